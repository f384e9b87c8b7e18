"""What a worker serves, and how it follows the documents: verify, load, warm up, switch at once, report.

A document that is refused changes nothing: the routes before it keep serving. A worker that starts afresh serves the newest document of
the history that it can accept, so an unapproved newest document does not take production down.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline_project.contracts import Environment, ReplicaReport, Route
from pipeline_project.packaging.package import load_package
from pipeline_project.serving.documents import DocumentError, numbers, read_document, write_report
from pipeline_project.serving.engine import Engine
from pipeline_project.serving.router import Router
from pipeline_project.settings import Settings
from pipeline_project.storage import ArtifactStore
from pipeline_project.trust.approvals import find_approval

HEARTBEAT_S = 3.0
_RETRY_S = 1.0
_MAX_RETRY_S = 30.0


@dataclass(frozen=True)
class Serving:
    """One consistent set of routes and engines. A request takes the current one and keeps it to its end."""

    document: int
    router: Router
    engines: Mapping[str, Engine]

    def choose(self, request_id: str) -> tuple[Route, Engine]:
        """The route of a request and its engine."""
        route = self.router.route_request(request_id)
        return route, self.engines[route.package]


class RefusedError(ValueError):
    """A document is not served; `reasons` says why for each package (or for "document" itself)."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


class Reconciler:
    """Brings what one worker serves to what the documents ask for.

    Args:
        package_digest: serve exactly this package, without documents and approvals (load tests of a package before its release).
        log: takes one line for people.
        changed: called after every switch.
    """

    def __init__(
        self,
        settings: Settings,
        artifacts: ArtifactStore,
        environment: Environment,
        replica: str,
        process: int,
        *,
        package_digest: str | None = None,
        threads: int = 1,
        log: Callable[[str], None] = lambda _: None,
        changed: Callable[[Serving], None] = lambda _: None,
    ) -> None:
        self._settings, self._artifacts, self._environment = settings, artifacts, environment
        self._replica, self._process = replica, process
        self._package_digest, self._threads, self._log, self._changed = package_digest, threads, log, changed
        self.current: Serving | None = None
        self._newest = 0
        self._refused: dict[str, str] = {}
        self._retry_at, self._retry_s = 0.0, _RETRY_S
        self._reported_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Reconcile every `serving.poll_seconds` until `stop` is set. Trouble with the store is logged and tried again."""
        while not stop.is_set():
            self.step()
            stop.wait(self._settings.serving.poll_seconds)

    def step(self) -> None:
        """Look for a new document once, follow it if possible, and report if something changed or the heart-beat is due."""
        before = self._state()
        try:
            if self._package_digest is not None:
                self._serve_package(self._package_digest)
            else:
                self._follow()
        except Exception as error:  # a store that is away, or a bug in reading it: what serves now serves on, and we try again
            self._log(f"cannot follow the documents of {self._environment}, trying again: {type(error).__name__}: {error}")
        if self._package_digest is None and (self._state() != before or time.monotonic() - self._reported_at >= HEARTBEAT_S):
            self._report()

    def _state(self) -> tuple[int, int, dict[str, str]]:
        return (self.current.document if self.current else 0, self._newest, self._refused)

    def _serve_package(self, digest: str) -> None:
        if self.current is None and time.monotonic() >= self._retry_at:
            self._retry_at = time.monotonic() + _RETRY_S
            engine = Engine(load_package(self._artifacts, digest, self._settings.trusted_signers), self._threads)
            self._switch(Serving(0, Router([Route(name="champion", package=digest, weight=1)]), {digest: engine}))

    def _follow(self) -> None:
        newest = self._newest_number()
        if newest == 0 or (newest == self._newest and (not self._refused or time.monotonic() < self._retry_at)):
            return
        serving = self.current.document if self.current else 0
        refused: dict[str, str] = {}
        for number in range(newest, serving, -1):  # the newest acceptable one; never back behind what serves already
            try:
                self._switch(self._load(number))
                break
            except RefusedError as error:
                if number == newest:
                    refused = error.reasons
                    self._log(f"document {newest} of {self._environment} is refused: {error}")
        self._retry_s = min(2 * self._retry_s, _MAX_RETRY_S) if newest == self._newest else _RETRY_S
        self._newest, self._refused = newest, refused
        self._retry_at = time.monotonic() + self._retry_s  # what is refused now may be approved later

    def _newest_number(self) -> int:
        if self._newest == 0:
            known = numbers(self._artifacts.bytes, self._environment)
            return known[-1] if known else 0
        number = self._newest
        while self._artifacts.bytes.exists(f"artifacts/deployments/{self._environment}/documents/{number + 1:08d}.json"):
            number += 1  # one look-up a poll instead of a listing, which object stores charge for
        return number

    def _load(self, number: int) -> Serving:
        try:
            document = read_document(self._artifacts.bytes, self._environment, number)
            if document is None:
                raise DocumentError(f"document {number} is gone")
            router = Router(document.routes)
        except ValueError as error:
            raise RefusedError({"document": str(error)}) from None
        loaded = self.current.engines if self.current else {}
        engines: dict[str, Engine] = {}
        reasons: dict[str, str] = {}
        for digest in {route.package for route in router.routes}:
            try:
                self._require_approval(digest)
                package_engine = loaded.get(digest)
                if package_engine is None:
                    package_engine = Engine(load_package(self._artifacts, digest, self._settings.trusted_signers), self._threads)
                engines[digest] = package_engine
            except ValueError as error:
                reasons[digest] = str(error)
        if reasons:
            raise RefusedError(reasons)
        return Serving(number, router, engines)

    def _require_approval(self, digest: str) -> None:
        if self._environment != "production":
            return
        approval = find_approval(self._artifacts.bytes, self._settings.trusted_approvers, "production_deployment", digest)
        if approval is None:
            raise ValueError(
                f"package {digest[:12]}: no valid approval for production. A person must approve it: "
                f'`pipeline approve production_deployment {digest} --approver NAME --reason "why"`.'
            )

    def _switch(self, serving: Serving) -> None:
        self.current = serving  # one assignment: a request sees the old set or the new one, never a mixture
        self._changed(serving)
        routes = ", ".join(f"{route.name} {route.package[:12]} {route.weight:.0%}" for route in serving.router.routes)
        self._log(f"serves document {serving.document} of {self._environment}: {routes}")

    def _report(self) -> None:
        document, newest, refused = self._state()
        report = ReplicaReport(
            environment=self._environment,
            replica=self._replica,
            process=self._process,
            document=document,
            newest=newest,
            packages=sorted(self.current.engines) if self.current else [],
            refused=refused,
            ready=self.current is not None,
            reported=datetime.now(UTC),
        )
        try:
            write_report(self._artifacts.bytes, report)
        except Exception as error:  # as in `step`
            self._log(f"cannot report to {self._artifacts.bytes.uri}, trying again: {type(error).__name__}: {error}")
            return
        self._reported_at = time.monotonic()
