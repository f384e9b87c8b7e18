"""Why a store failed, in the user's words: what was tried, where, why, and the next step."""

import errno
import os
import shutil
from pathlib import Path

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "ProfileNotFound",
}
_NO_ANSWER = {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "ProxyConnectionError"}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}


class StoreError(OSError):
    """The artefact store failed: full, read-only, out of reach, forbidden. What was stored before is whole; a later try may succeed."""

    def __init__(self, what: str, where: str, why: str, next_step: str) -> None:
        super().__init__(f"The artefact store {where}: cannot {what}: {why}. {next_step} Nothing that was stored before is lost.")
        self.what, self.where, self.why, self.next_step = what, where, why, next_step

    def __reduce__(self) -> "tuple[type[StoreError], tuple[str, str, str, str]]":
        return type(self), (self.what, self.where, self.why, self.next_step)


def explain_os_error(error: OSError, folder: Path) -> tuple[str, str]:
    """Why, and the next step, for a failure of the file system that holds `folder`."""
    why = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno in _NO_ROOM:
        return f"{why} ({_free(folder)})", "Make room there, or set store.root to a larger disk; then run it again."
    if error.errno in _NOT_ALLOWED:
        return why, "Give this user the right to write there, or set store.root to a folder that is this user's; then run it again."
    if error.errno in _NO_FOLDER:
        return (
            f"a file stands where a folder is needed ({_in_the_way(Path(error.filename or folder))})",
            "Move it away, or set store.root to another folder.",
        )
    return why, "Look at that disk or mount, or set store.root to another folder; then run it again."


def explain_s3_error(
    error: Exception, bucket: str, endpoint: str | None, *, setting: str = "store.root", again: str = "then run it again"
) -> tuple[str, str]:
    """Why, and the next step, for what boto3 raised. Nothing of a signature or a credential is in it.

    Args:
        error: what was raised.
        bucket: which bucket was asked for.
        endpoint: the server's address; None is AWS.
        setting: the setting that names the bucket.
        again: what to do after the next step.
    """
    server = endpoint or "AWS"
    response = getattr(error, "response", None) or {}  # None in errors of the connection
    code = str(response.get("Error", {}).get("Code", ""))
    said = str(response.get("Error", {}).get("Message", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    name = type(error).__name__
    if code == "NoSuchBucket":
        why, step = f"{server} has no bucket {bucket}", f"Create the bucket, or correct {setting}; {again}."
    elif name in _NO_CREDENTIALS:
        why, step = "there are no AWS credentials", f"Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role; {again}."
    elif status in (401, 403):
        why, step = f"{server} denies it ({said or code})", f"Check the credentials and their rights on bucket {bucket}; {again}."
    elif status == 501:
        why = f"{server} cannot do it ({said or code})"
        step = "A server without server-side encryption needs store.encryption: none, and a disk that is encrypted itself."
    elif name == "CutBodyError":
        why, step = str(error), f"Check the network between here and {server}; {again}."
    elif name in _NO_ANSWER:
        why, step = f"{server} does not answer", f"Check that it runs, store.endpoint_url and the network; {again}."
    else:
        why, step = f"{server} says: {said or error}", f"Check {setting}, store.endpoint_url and that server's log; {again}."
    return why, step


def _in_the_way(path: Path) -> Path:
    return next((place for place in (path, *path.parents) if place.is_file()), path)


def _free(folder: Path) -> str:
    """Free room on the disk of a folder that may not exist yet."""
    place = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    return f"{shutil.disk_usage(place).free / 1e6:,.0f} MB free"
