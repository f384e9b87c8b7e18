"""The guard: takes a canary or challenger out on its own when it fails or is too slow, by writing the next document.

Workers keep small statistics of their latest requests and write them to a file; the supervisor reads those of all its workers.
"""

import json
import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline_project.contracts import DesiredState, Environment, Route
from pipeline_project.serving.documents import ConcurrentDeploymentError, newest, read_document, write_next
from pipeline_project.settings.tree import GuardSettings
from pipeline_project.storage import ByteStore

WINDOW = 500  # latest requests of a route in a worker: old good ones must not hide new bad ones
_SWITCH_S = 15.0
AUTHOR = "guard"


class RouteStatistics:
    """Latency and failure of a worker's latest requests, for each route of the document they were answered under; thread-safe.

    Args:
        file: where `write` puts them; None keeps them to this process.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._document = 0
        self._routes: dict[str, deque[tuple[float, bool]]] = {}
        self._changed = False

    def begin(self, document: int) -> None:
        """Start afresh: from now on this document serves."""
        with self._lock:
            self._document, self._routes, self._changed = document, {}, True

    def add(self, document: int, route: str, latency_ms: float, *, failed: bool) -> None:
        """Count one request. `failed`: the server failed (5xx); a bad image is not the model's fault.

        Requests that end under a document that serves no more are not counted.
        """
        with self._lock:
            if document == self._document:
                self._routes.setdefault(route, deque(maxlen=WINDOW)).append((latency_ms, failed))
                self._changed = True

    def write(self) -> None:
        """Write what changed since the last time; readers see the old file or the new one."""
        with self._lock:
            if self._file is None or not self._changed:
                return
            value = {"document": self._document, "routes": {name: list(seen) for name, seen in self._routes.items()}}
            self._changed = False
        draft = self._file.with_name(f".{self._file.name}")
        draft.write_text(json.dumps(value))
        draft.replace(self._file)


@dataclass(frozen=True)
class RouteHealth:
    """What all workers together saw of a route lately. `error_rate` is 0-1, `p99_ms` the nearest-rank percentile."""

    requests: int
    error_rate: float
    p99_ms: float


def read_statistics(folder: Path) -> tuple[int, dict[str, RouteHealth]]:
    """The newest document that workers answered under, and each route's health under it. Damaged files are passed over."""
    found: list[dict[str, Any]] = []
    for path in folder.glob("[!.]*.json"):
        try:
            found.append(json.loads(path.read_text()))
        except (OSError, ValueError):
            continue
    document = max((value["document"] for value in found), default=0)
    seen: dict[str, list[tuple[float, bool]]] = {}
    for value in found:
        if value["document"] == document:
            for name, requests in value["routes"].items():
                seen.setdefault(name, []).extend((float(latency), bool(failed)) for latency, failed in requests)
    return document, {name: _health(requests) for name, requests in seen.items()}


def _health(requests: Sequence[tuple[float, bool]]) -> RouteHealth:
    latencies = sorted(latency for latency, _ in requests)
    rank = math.ceil(0.99 * len(latencies)) - 1
    return RouteHealth(len(requests), sum(failed for _, failed in requests) / len(requests), latencies[rank])


def verdict(health: RouteHealth, limits: GuardSettings) -> str | None:
    """Why a route must go, in words; None when it may stay or has had too few requests to tell."""
    if health.requests < limits.min_requests:
        return None
    if health.error_rate > limits.max_error_rate:
        return f"{health.error_rate:.1%} of {health.requests} requests failed, above {limits.max_error_rate:.1%}"
    if health.p99_ms > limits.max_p99_ms:
        return f"p99 latency {health.p99_ms:.0f} ms over {health.requests} requests, above {limits.max_p99_ms:g} ms"
    return None


def without(routes: Sequence[Route], name: str) -> list[Route]:
    """The routes without one; its weight goes to the champion (or the first that is left). Raises `ValueError` when none is left."""
    kept = [route for route in routes if route.name != name and route.weight > 0]
    if not kept:
        raise ValueError(f"{name} is the only route: there is nothing to fall back to.")
    heir = next((route for route in kept if route.name == "champion"), kept[0])
    others = math.fsum(route.weight for route in kept if route is not heir)
    return [route.model_copy(update={"weight": 1 - others}) if route is heir else route for route in kept]


def guard_once(store: ByteStore, environment: Environment, statistics: Path, limits: GuardSettings) -> DesiredState | None:
    """Judge the canary and the challenger that serve now; write and return the next document when one must go.

    The newest document may be refused by the workers; then the routes that serve in fact are judged, once the workers have had
    time to switch. When somebody else deploys in this moment, theirs stands and the next call judges it.
    """
    number, health = read_statistics(statistics)
    reasons = {name: why for name, seen in health.items() if name != "champion" and (why := verdict(seen, limits))}
    if not reasons:
        return None
    serving, last = read_document(store, environment, number), newest(store, environment)
    if serving is None or last is None:
        return None
    if last.number != number and (datetime.now(UTC) - last.created).total_seconds() < _SWITCH_S:
        return None
    routes = list(serving.routes)
    present = [name for name in reasons if any(route.name == name and route.weight > 0 for route in routes)]
    for name in list(present):
        if len([route for route in routes if route.weight > 0]) > 1:
            routes = without(routes, name)
        else:
            present.remove(name)  # the last route stays: a bad answer is better than none, and there is nobody to fall back to
    if not present:
        return None
    reason = "; ".join(f"{name} taken out: {reasons[name]}" for name in present)
    try:
        return write_next(store, environment, routes, reason, AUTHOR, after=last.number)
    except ConcurrentDeploymentError:
        return None
