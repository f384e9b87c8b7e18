"""Deployment is a document: what an environment shall serve, and what its replicas report that they serve.

Documents are numbered from 1, created once and never changed, so the history answers what was asked for at any time. A document
authorises nothing: replicas verify packages and approvals themselves.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from pipeline_project.contracts import DesiredState, Environment, ReplicaReport, Route
from pipeline_project.settings import Settings
from pipeline_project.storage import AlreadyExistsError, ByteStore

REPORT_MAX_AGE_S = 10.0


class ConcurrentDeploymentError(ValueError):
    """Another writer was first; look at what it wrote before writing again."""


class DeploymentError(ValueError):
    """Replicas do not serve a document: they refuse it, did not answer in time, or a later document replaced it."""


class DocumentError(ValueError):
    """A stored document is damaged or does not belong where it lies."""


def read_document(store: ByteStore, environment: Environment, number: int) -> DesiredState | None:
    """One document, or None where there is none yet.

    Raises:
        DocumentError: it is not valid, or is of another environment or number than its key says.
    """
    key = f"{_folder(environment)}/documents/{number:08d}.json"
    try:
        document = DesiredState.model_validate_json(store.read(key))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise DocumentError(f"{key}: not a desired-state document: {error}. Deploy again to write a new one.") from None
    if document.environment != environment or document.number != number:
        raise DocumentError(f"{key}: is document {document.number} of {document.environment}. Deploy again to write a new one.")
    return document


def numbers(store: ByteStore, environment: Environment) -> list[int]:
    """The numbers of all documents, ascending."""
    keys = store.list(f"{_folder(environment)}/documents/")
    names = [key.rpartition("/")[2].removesuffix(".json") for key in keys if key.endswith(".json")]
    return sorted(int(name) for name in names if len(name) == 8 and name.isdecimal())


def newest(store: ByteStore, environment: Environment) -> DesiredState | None:
    """The newest document, or None. Raises `DocumentError`."""
    known = numbers(store, environment)
    return read_document(store, environment, known[-1]) if known else None


def history(store: ByteStore, environment: Environment) -> list[DesiredState]:
    """All documents, oldest first. Raises `DocumentError`."""
    documents = (read_document(store, environment, number) for number in numbers(store, environment))
    return [document for document in documents if document is not None]


def write_next(
    store: ByteStore, environment: Environment, routes: Sequence[Route], reason: str, author: str, *, after: int | None = None
) -> DesiredState:
    """Write the next document.

    Args:
        routes: weights sum to 1.
        after: the number of the document that the caller looked at (0 for none); refuse if a newer one exists.

    Raises:
        ConcurrentDeploymentError: another writer was first. It is not tried again: what that one wrote may change what is wanted.
        ValueError: the routes are not valid.
    """
    known = numbers(store, environment)
    last = known[-1] if known else 0
    if after is not None and last != after:
        raise ConcurrentDeploymentError(f"{environment} is at document {last}, not {after} any more. Look at it, then deploy again.")
    document = DesiredState(
        environment=environment, number=last + 1, routes=list(routes), reason=reason, author=author, created=datetime.now(UTC)
    )
    try:
        store.create(f"{_folder(environment)}/documents/{document.number:08d}.json", document.model_dump_json().encode())
    except AlreadyExistsError:
        raise ConcurrentDeploymentError(
            f"document {document.number} of {environment} was written by another deployment in this moment. Look at it, then deploy again."
        ) from None
    return document


def write_report(store: ByteStore, report: ReplicaReport) -> None:
    """Publish what a replica serves, replacing its report before."""
    store.write(f"{_folder(report.environment)}/replicas/{report.replica}.json", report.model_dump_json().encode())


def remove_report(store: ByteStore, environment: Environment, replica: str) -> None:
    """Withdraw the report of a replica that has stopped."""
    store.delete(f"{_folder(environment)}/replicas/{replica}.json")


def replica_reports(store: ByteStore, environment: Environment, *, max_age_s: float = REPORT_MAX_AGE_S) -> list[ReplicaReport]:
    """The reports of the replicas that are alive: those younger than `max_age_s` seconds. Damaged ones are passed over."""
    oldest = datetime.now(UTC) - timedelta(seconds=max_age_s)
    reports = []
    for key in store.list(f"{_folder(environment)}/replicas/"):
        try:
            report = ReplicaReport.model_validate_json(store.read(key))
        except (FileNotFoundError, ValidationError):
            continue  # stopped in this moment, or written by another version
        if report.environment == environment and report.reported >= oldest:
            reports.append(report)
    return reports


def wait_until_served(store: ByteStore, environment: Environment, number: int, timeout_s: float, settings: Settings) -> list[ReplicaReport]:
    """Wait until every living replica serves a document, and return their reports.

    Raises:
        DeploymentError: at once when a replica refuses a package of the document, or a later document has replaced it; after
            `timeout_s` seconds when replicas did not answer. The message says why and what to do.
    """
    document = read_document(store, environment, number)
    if document is None:
        raise DeploymentError(f"{environment} has no document {number} in {store.uri}. Deploy first.")
    deadline = time.monotonic() + timeout_s
    while True:
        reports = replica_reports(store, environment)
        refusals = _refusals(document, reports)
        if refusals:
            raise DeploymentError(
                f"document {number} of {environment} is refused; the routes before it keep serving:\n" + "\n".join(refusals)
            )
        later = max((report.document for report in reports), default=0)
        if later > number:
            by = read_document(store, environment, later)
            why = f": {by.reason} (by {by.author})" if by else ""
            raise DeploymentError(f"document {number} of {environment} was replaced by document {later}{why}.")
        if reports and all(report.document == number and report.ready for report in reports):
            return reports
        if time.monotonic() >= deadline:
            raise DeploymentError(_timeout_message(environment, number, timeout_s, reports, settings))
        time.sleep(min(0.2, settings.serving.poll_seconds))


def _refusals(document: DesiredState, reports: Sequence[ReplicaReport]) -> list[str]:
    wanted = {route.package for route in document.routes}
    return [
        f"  {report.replica}: {reason}"
        for report in reports
        if report.newest == document.number  # an older refusal of the same package may be out of date: it may be approved by now
        for package, reason in sorted(report.refused.items())
        if package in wanted
    ]


def _timeout_message(environment: Environment, number: int, timeout_s: float, reports: Sequence[ReplicaReport], settings: Settings) -> str:
    if not reports:
        return (
            f"no replica of {environment} has reported within {timeout_s:g} s, so document {number} waits. Start the endpoint with "
            f"`pipeline serve {environment}` (runtime home {settings.home}), then materialize this asset again."
        )
    states = ", ".join(f"{report.replica} serves document {report.document}" for report in reports)
    return f"document {number} of {environment} is not served everywhere after {timeout_s:g} s: {states}. Look at the server's log."


def _folder(environment: Environment) -> str:
    return f"artifacts/deployments/{environment}"
