"""A prefix of a bucket on Google Cloud Storage, or of a container on Azure, as a source, through obstore.

Credentials are found as the clouds' own tools find them: GOOGLE_APPLICATION_CREDENTIALS or the machine's service account;
AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_KEY, a managed or workload identity.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from pipeline_project.ingest.sources.base import Listed, SourceError, SourceUnreachableError, gone
from pipeline_project.ingest.sources.bucket import BucketSource
from pipeline_project.storage.s3_client import Patience

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import AzureStore, GCSStore

_PAGE = 1000
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_CREDENTIALS = {
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or the service account of this machine",
    "az": "AZURE_STORAGE_ACCOUNT_NAME with a key, a SAS token or an identity",
}


class ObjectStoreSource(BucketSource):
    """A prefix of a Google bucket (gs) or an Azure container (az).

    The listing gives no hint of folder markers but their emptiness: an empty object without an ending counts as one.

    Args:
        scheme: which cloud.
        bucket: the bucket's or container's name.
        prefix: what all keys begin with; empty, or with a slash at the end.
        options: of obstore's store, where the environment does not say them (an emulator's address).
        patience: timeouts and attempts.

    Raises:
        SourceError: what the environment says of the account is missing or wrong.
    """

    def __init__(
        self,
        scheme: Literal["gs", "az"],
        bucket: str,
        prefix: str,
        options: Mapping[str, Any] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._scheme, self._bucket, self._prefix = scheme, bucket, prefix
        self._patience = patience or Patience()
        self._store = self._open(dict(options or {}))

    def read(self, key: str, first_bytes: int | None = None) -> bytes:
        import obstore
        from obstore.exceptions import BaseError

        for attempt in range(self._patience.attempts):
            if attempt:
                time.sleep(self._patience.pause_s * 2 ** (attempt - 1))
            try:
                answer = obstore.get(self._store, key, options={"range": (0, first_bytes)} if first_bytes else {})
                begin, end = answer.range
                data = bytes(answer.bytes())
            except FileNotFoundError as error:
                if _CODE.findall(str(error))[:1] and _CODE.findall(str(error))[0] in _NO_BUCKET:
                    raise self._unreachable(f"{key} cannot be read", error) from None
                raise FileNotFoundError(gone(key, self._address)) from None
            except (BaseError, OSError, ValueError) as error:
                if _STATUS.findall(str(error))[:1] == ["416"]:  # a range of an empty object
                    return b""
                raise self._unreachable(f"{key} cannot be read", error) from None
            if len(data) == end - begin:
                return data
        raise SourceUnreachableError(
            f"data.source: {self._address}: {key} cannot be read: the connection ended before all bytes came, "
            f"{self._patience.attempts} times. Check the network; then materialize raw_images again."
        )

    @property
    def _address(self) -> str:
        return f"{self._scheme}://{self._bucket}/{self._prefix}"

    def _open(self, options: dict[str, Any]) -> "GCSStore | AzureStore":
        from obstore.exceptions import BaseError
        from obstore.store import AzureStore, GCSStore

        retry = {
            "max_retries": self._patience.attempts - 1,
            "retry_timeout": timedelta(seconds=180),
            "backoff": {"init_backoff": timedelta(seconds=self._patience.pause_s), "max_backoff": timedelta(seconds=10), "base": 2},
        }
        client = {
            "connect_timeout": timedelta(seconds=self._patience.connect_s),
            "read_timeout": timedelta(seconds=self._patience.read_s),
            "timeout": timedelta(seconds=10 * self._patience.read_s),
        } | options.pop("client_options", {})
        kind: Any = GCSStore if self._scheme == "gs" else AzureStore
        try:
            store: GCSStore | AzureStore = kind(
                self._bucket, prefix=self._prefix or None, retry_config=retry, client_options=client, **options
            )
        except (BaseError, ValueError) as error:
            raise SourceError(
                f"data.source: {self._address}: {_in_short(error)}. Set {_CREDENTIALS[self._scheme]}; then materialize raw_images again."
            ) from None
        return store

    def _below(self, folder: str, start_after: str) -> Iterator[Listed]:
        import obstore

        pages = iter(obstore.list(self._store, folder.rstrip("/") or None, offset=start_after or None, chunk_size=_PAGE))
        while True:
            with self._telling():
                page = next(pages, None)
            if page is None:
                return
            for found in page:
                if found["path"] > start_after and _is_file(found):
                    yield _listed(found)

    def _top(self) -> tuple[list[Listed], list[str]]:
        import obstore

        with self._telling():
            found = obstore.list_with_delimiter(self._store)
        return [_listed(o) for o in found["objects"] if _is_file(o)], list(found["common_prefixes"])

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """obstore's errors while listing, as errors of the source."""
        from obstore.exceptions import BaseError, InvalidPathError

        try:
            yield
        except InvalidPathError as error:
            raise SourceError(
                f"data.source: {self._address}: {_in_short(error)}. Rename that object: empty folder names, . and .. and line breaks "
                "cannot be read from this cloud; then materialize raw_images again."
            ) from None
        except (BaseError, OSError, ValueError) as error:
            raise self._unreachable("cannot be listed", error) from None

    def _unreachable(self, what: str, error: Exception) -> SourceUnreachableError:
        text = str(error)
        status = (_STATUS.findall(text) or ["0"])[0]
        code = (_CODE.findall(text) or [""])[0]
        if code in _NO_BUCKET:
            why, step = f"there is no bucket {self._bucket}", "Create it, or correct data.source"
        elif status in ("401", "403") or type(error).__name__ in ("UnauthenticatedError", "PermissionDeniedError"):
            why, step = f"the server denies it ({code or status})", f"Check {_CREDENTIALS[self._scheme]}, and its rights on {self._bucket}"
        elif status == "0":
            why, step = f"the server does not answer ({_in_short(error)})", "Check the network and the credentials"
        else:
            why, step = f"the server says {status} {code}".rstrip(), "Check data.source and that service"
        return SourceUnreachableError(f"data.source: {self._address}: {what}: {why}. {step}; then materialize raw_images again.")


def _is_file(found: "ObjectMeta") -> bool:
    return bool(found["size"]) or "." in found["path"].rpartition("/")[2]


def _listed(found: "ObjectMeta") -> Listed:
    return Listed(found["path"], found["size"], (found["e_tag"] or "").strip('"'), found["last_modified"])


def _in_short(error: Exception) -> str:
    """The first line of what obstore said, without query strings (they may hold a signature) and without the server's document."""
    line = str(error).split("\n", 1)[0].split("<", 1)[0]
    return re.sub(r"\?\S*", "", line).strip().rstrip(".:")[:300]
