"""MLflow through a client and explicit run ids: no global active run, so parallel steps cannot mix their runs up.

A server that is away is told within seconds, where MLflow's own client would try for minutes, and before hours of computing.
"""

import contextlib
import fcntl
import secrets
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline_project.provenance import git_commit
from pipeline_project.settings import Settings

_CONNECT_S = 3.0
_REQUEST_S, _REQUEST_RETRIES = 10, 2
_AWAY_S = 30.0
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


class TrackingError(ConnectionError):
    """MLflow cannot be reached or used; the message says where, why and what to do."""

    def __init__(self, uri: str, why: str) -> None:
        super().__init__(
            f"MLflow at {shown_address(uri)} cannot be used: {why}. Start it, or correct tracking.uri in the settings (empty: a database "
            "in the runtime home); then materialize this asset again. Nothing that was computed before is lost."
        )
        self.uri, self.why = uri, why

    def __reduce__(self) -> "tuple[type[TrackingError], tuple[str, str]]":
        return type(self), (self.uri, self.why)


class Tracker:
    """Logs to one MLflow run.

    Args:
        warn: takes one line when MLflow stops answering; what is logged then waits, and is sent when it answers again. Without it, logging
            raises `TrackingError`.
    """

    def __init__(self, tracking_uri: str, run_id: str, warn: Callable[[str], None] | None = None) -> None:
        from mlflow.tracking import MlflowClient

        self.run_id = run_id
        self._uri, self._warn = tracking_uri, warn
        self._client = MlflowClient(tracking_uri)
        self._waiting: list[Callable[[], object]] = []
        self._away_until = 0.0

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Set parameters; a parameter can be set once."""
        from mlflow.entities import Param

        entries = [Param(key, str(value)) for key, value in params.items()]
        self._send(lambda: self._client.log_batch(self.run_id, params=entries))

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record metrics at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        self._send(lambda: self._client.log_batch(self.run_id, metrics=entries))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        entries = [RunTag(key, value) for key, value in tags.items()]
        self._send(lambda: self._client.log_batch(self.run_id, tags=entries))

    def log_file(self, name: str, data: bytes) -> None:
        """Store a file under `name` (with folders) among the run's artefacts."""
        self._send(lambda: self._store_file(name, data))

    def end(self, status: str) -> None:
        """Close the run: FINISHED, FAILED or KILLED. What waits is tried a last time."""
        self._away_until = 0.0
        self._send(lambda: self._client.set_terminated(self.run_id, status))

    def child(self, name: str) -> "Tracker":
        """A nested run. Raises `TrackingError`."""
        with telling_tracking_errors(self._uri):
            parent = self._client.get_run(self.run_id)
            tags = {"mlflow.parentRunId": self.run_id, "mlflow.source.git.commit": git_commit()}
            run = self._client.create_run(parent.info.experiment_id, run_name=name, tags=tags)
        return Tracker(self._uri, run.info.run_id, self._warn)

    def _store_file(self, name: str, data: bytes) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(data)
            self._client.log_artifact(self.run_id, str(path), str(Path(name).parent) if "/" in name else None)

    def _send(self, call: Callable[[], object]) -> None:
        """Send what waits, then this, in order; half a minute after MLflow did not answer, not sooner."""
        self._waiting.append(call)
        if time.monotonic() < self._away_until:
            return
        try:
            with telling_tracking_errors(self._uri):
                require_reachable(self._uri)
                while self._waiting:
                    self._waiting[0]()
                    self._waiting.pop(0)
        except TrackingError as error:
            if self._warn is None:
                self._waiting.clear()
                raise
            self._away_until = time.monotonic() + _AWAY_S
            words = f"MLflow at {shown_address(self._uri)} does not answer: {error.why}. The work goes on"
            self._warn(f"{words}; {len(self._waiting)} entries of run {self.run_id} wait and are sent when it answers again.")


def start_run(settings: Settings, name: str, tags: Mapping[str, str] | None = None) -> Tracker:
    """A new run in the settings' experiment, with the code's commit (R120, R126). Raises `TrackingError`."""
    from mlflow.tracking import MlflowClient

    experiment = prepare_tracking(settings)
    with telling_tracking_errors(settings.tracking_uri):
        client = MlflowClient(settings.tracking_uri)
        run = client.create_run(experiment, run_name=name, tags={"mlflow.source.git.commit": git_commit(), **(tags or {})})
    return Tracker(settings.tracking_uri, run.info.run_id)


@contextmanager
def tracked_run(settings: Settings, name: str, tags: Mapping[str, str] | None = None) -> Iterator[Tracker]:
    """A run that is closed whatever happens: FINISHED, or FAILED when the body raises."""
    tracker = start_run(settings, name, tags)
    try:
        yield tracker
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


def require_reachable(uri: str) -> None:
    """Raise `TrackingError` within seconds where nothing answers at the address of a server, or a local database cannot be opened."""
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        _require_file(uri, _database(uri))
        return
    port = parts.port or _PORTS.get(parts.scheme.split("+")[0])
    if parts.hostname and port:
        try:
            socket.create_connection((parts.hostname, port), timeout=_CONNECT_S).close()
        except OSError as error:
            raise TrackingError(uri, error.strerror.lower() if error.strerror else str(error)) from None


def create_database(database: Path) -> None:
    """Make a local MLflow database whole or not at all, once.

    MLflow makes its tables one by one, and a process that is killed on the way leaves a file that no later one can use. So they are made
    in a draft, which then takes the place of the missing (or empty) file. Processes that start together wait for the first.
    """
    if _has_tables(database):
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    held = database.with_name(f".{database.name}.lock")
    with held.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases it when its holder dies
        if not _has_tables(database):
            _make_tables(database)
        held.unlink(missing_ok=True)  # whoever waits for it, or makes it again, finds the tables


def _make_tables(database: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for old in database.parent.glob(f".draft-*-{database.name}*"):
        old.unlink(missing_ok=True)
    draft = database.with_name(f".draft-{secrets.token_hex(4)}-{database.name}")
    SqlAlchemyStore(f"sqlite:///{draft}", (database.parent / "mlflow-artifacts").as_uri()).engine.dispose()
    draft.replace(database)


def _has_tables(database: Path) -> bool:
    return database.is_file() and database.stat().st_size > 0


def _database(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def _require_file(uri: str, database: Path) -> None:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rwc", uri=True, timeout=_CONNECT_S)) as opened:
            opened.execute("PRAGMA schema_version")
    except OSError as error:
        raise TrackingError(uri, error.strerror.lower() if error.strerror else str(error)) from None
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):  # another process writes: it is there
            raise TrackingError(uri, str(error)) from None
    except sqlite3.DatabaseError as error:
        raise TrackingError(uri, str(error)) from None


def shown_address(uri: str) -> str:
    """The address without user and password."""
    parts = urlsplit(uri)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def prepare_tracking(settings: Settings) -> str:
    """Make the settings' experiment, and the folder of a local database, if they are missing. Returns the experiment's id.

    Raises:
        TrackingError: within seconds when MLflow cannot be reached.
    """
    require_reachable(settings.tracking_uri)
    with telling_tracking_errors(settings.tracking_uri):
        return _prepare(settings)


def _prepare(settings: Settings) -> str:
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    for variable, value in ((MLFLOW_HTTP_REQUEST_MAX_RETRIES, _REQUEST_RETRIES), (MLFLOW_HTTP_REQUEST_TIMEOUT, _REQUEST_S)):
        if not variable.is_set():  # its own defaults wait for a quarter of an hour
            variable.set(value)
    if settings.tracking_uri.startswith("sqlite:"):
        create_database(_database(settings.tracking_uri))
    client, name = MlflowClient(settings.tracking_uri), settings.tracking.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=_artifact_location(settings)))
        except MlflowException:  # another process was first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


@contextmanager
def telling_tracking_errors(uri: str) -> Iterator[None]:
    """What MLflow's clients raise (their own errors, the network's, the database's) as `TrackingError`."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, TrackingError):
            cause = cause.__cause__
        words = str(cause).replace(uri, shown_address(uri)).splitlines()
        raise TrackingError(uri, words[0][:300].rstrip(".") if words else type(cause).__name__) from error


def _artifact_location(settings: Settings) -> str | None:
    """Beside a local database, artefacts lie in the runtime home; a server has its own place for them."""
    return (settings.home / "mlflow-artifacts").as_uri() if settings.tracking_uri.startswith("sqlite:") else None
