"""Store, source, MLflow, keys, endpoints."""

import secrets
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from pipeline_project.local.probes.finding import Finding
from pipeline_project.settings import Settings

_PROBE = "artifacts/doctor"
_DRAFT_AGE = timedelta(hours=1)
_SKEW_WARNING_S, _SKEW_ERROR_S = 60.0, 600.0  # S3 refuses requests that are 15 minutes off
_RECENT_DAYS = 7


def store(settings: Settings) -> list[Finding]:
    """The artefact store can be written, read and cleaned."""
    from pipeline_project.storage import open_store

    step = "check store.root in the settings, the rights on it, and its free space"
    try:
        bytes_ = open_store(settings)
        key, data = f"{_PROBE}/{secrets.token_hex(8)}", secrets.token_bytes(64)
        bytes_.write(key, data)
        same = bytes_.read(key) == data
        bytes_.delete(key)
        drafts = [draft for draft in bytes_.drafts() if draft.modified < datetime.now(UTC) - _DRAFT_AGE]
    except Exception as error:  # S3 clients have errors of their own; each says why
        return [Finding("the artefact store cannot be used", settings.store_root, str(error), step)]
    found = []
    if not same:
        found.append(Finding("the store gives back other bytes than were written", settings.store_root, "a probe differed", step))
    if drafts:
        why = "their writers were killed; no reader sees them, but they take space"
        found.append(Finding(f"{len(drafts)} half-written files lie in the store", settings.store_root, why, "pipeline gc", "warning"))
    return found


def store_clock(settings: Settings) -> list[Finding]:
    """This machine's clock and that of an S3 store agree."""
    if not settings.store_root.startswith("s3://"):
        return []
    bucket = settings.store_root.removeprefix("s3://").split("/")[0]
    return clock_skew(settings.store.endpoint_url or f"https://{bucket}.s3.amazonaws.com")


def clock_skew(url: str) -> list[Finding]:
    """Compare this machine's clock with the Date that a server puts on its answers; an unreachable one is another probe's concern."""
    import httpx

    try:
        said = httpx.head(url, timeout=10).headers.get("date")
    except httpx.HTTPError:
        return []
    if said is None:
        return []
    skew = time.time() - parsedate_to_datetime(said).timestamp()
    if abs(skew) < _SKEW_WARNING_S:
        return []
    what = f"this machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the store's"
    severity = "error" if abs(skew) >= _SKEW_ERROR_S else "warning"
    why = "S3 refuses requests that are 15 minutes off, and days are told by the clock"
    return [Finding(what, url, why, "set the clock (NTP)", "error" if severity == "error" else "warning")]


def source(settings: Settings) -> list[Finding]:
    """The source can be listed and has labels."""
    from pipeline_project.ingest.sources import open_source

    address, labels, folder = settings.data.shown_source, settings.data.labels_file, settings.data.folder
    if folder is not None and not folder.is_dir():
        return [Finding("the source is not there", address, "no such folder", "set data.source, or make the folder")]
    try:
        opened = open_source(settings)
        today = datetime.now(UTC).date()
        days = [today - timedelta(days=n) for n in range(_RECENT_DAYS)]  # a bucket is looked at in part: it may hold millions
        listed = opened.list_all() if folder is not None else [found for day in days for found in opened.list_day(day)]
    except Exception as error:  # as in `store`
        return [Finding("the source cannot be listed", address, str(error), "check data.source and the rights to read it")]
    if any(found.key.rsplit("/", 1)[-1] == labels for found in listed):
        return []
    where = address if folder is not None else f"{address} (last {_RECENT_DAYS} days)"
    severity = "error" if folder is not None else "warning"
    why = f"{len(listed)} objects, none of them named {labels}"
    step = "put the label file there, or set data.labels_file"
    return [Finding("the source has no labels", where, why, step, "error" if severity == "error" else "warning")]


def mlflow(settings: Settings) -> list[Finding]:
    """MLflow's server answers, or its database opens."""
    from pipeline_project.training.tracking import TrackingError, require_reachable, shown_address

    uri = settings.tracking_uri
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return []  # made on first use
    try:
        require_reachable(uri)
    except TrackingError as error:
        step = "start the server or restore the database, or set tracking.uri (empty: a database in the runtime home)"
        return [Finding("MLflow cannot be used", shown_address(uri), str(error), step)]
    return []


def keys(settings: Settings) -> list[Finding]:
    """Private keys are private, and trust is what it should be."""
    from pipeline_project.storage import open_artifacts
    from pipeline_project.trust.signing import trusted_keys

    found = []
    for path in sorted({*settings.home.glob("keys/*.pem"), settings.signing_key}):
        if path.is_file() and path.stat().st_mode & 0o077:
            why = "whoever reads it can sign packages or approve releases in its owner's name"
            found.append(Finding("a private key is readable by others", str(path), why, f"chmod 600 {path}", mend=_closing(path)))
    trusted = {}
    for role, folder in (("signers", settings.trusted_signers), ("approvers", settings.trusted_approvers)):
        try:
            trusted[role] = [owner for owner, _ in trusted_keys(folder).values()]
        except ValueError as error:
            found.append(Finding(f"the trusted {role} cannot be read", str(folder), str(error), "remove that file"))
    try:
        packaged = open_artifacts(settings).find("model_package") is not None
    except (ValueError, OSError):
        packaged = False  # the store's own probe tells
    if packaged and trusted.get("signers") == []:
        why = "endpoints serve only packages that somebody trusted has signed"
        step = "materialize model_package again, or put the signer's public key there"
        found.append(Finding("nobody is trusted to sign packages", str(settings.trusted_signers), why, step))
    if packaged and trusted.get("approvers") == []:
        step = "pipeline keys create NAME"
        why = "no approval counts, so nothing can go to production"
        found.append(Finding("nobody is trusted to approve", str(settings.trusted_approvers), why, step, "warning"))
    for path in sorted(settings.trusted_approvers.glob("demo-approver.*.pem")):
        why = "whoever runs `make demo` here approves releases to production"
        step = f"before you rely on approvals: rm {path}"
        found.append(Finding("the demo's throw-away approver is trusted", str(path), why, step, "warning"))
    return found


def endpoints(settings: Settings) -> list[Finding]:
    """What runs serves the newest document."""
    from pipeline_project.local.probes.machine import ENVIRONMENTS
    from pipeline_project.serving.documents import newest, replica_reports
    from pipeline_project.serving.process import find_server
    from pipeline_project.storage import open_store

    found = []
    for environment in ENVIRONMENTS:
        server = find_server(settings, environment)
        if server is None:
            continue
        log = settings.home / "logs" / f"endpoint-{environment}.log"
        try:
            document = newest(open_store(settings), environment)
            reports = replica_reports(open_store(settings), environment) if document is not None else []
        except (ValueError, OSError) as error:
            found.append(Finding(f"the documents of {environment} cannot be read", settings.store_root, str(error), f"read {log}"))
            continue
        if document is None:
            continue
        behind = [report for report in reports if report.document != document.number]
        reasons = "; ".join(sorted({reason for report in behind for reason in report.refused.values()}))
        if not reports:
            why = "no replica has reported within the last seconds"
            found.append(Finding(f"{environment} runs, but reports nothing", server.url, why, f"read {log}; make stop dev"))
        elif behind:
            what = f"{environment} does not serve its newest document, {document.number}"
            why = reasons or f"{len(behind)} of {len(reports)} replicas serve document {behind[0].document}"
            found.append(Finding(what, server.url, why, f"read {log}; a refused document names what is missing"))
    return found


def _closing(path: Path) -> "Closing":
    return Closing(path)


class Closing:
    """Takes a key's permissions away from everybody but its owner."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> str:
        """Do it."""
        self._path.chmod(0o600)
        return f"{self._path} is now readable by its owner only"
