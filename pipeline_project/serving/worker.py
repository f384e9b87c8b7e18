"""One worker process of the server: answers requests on the supervisor's socket and follows the documents.

Started by the supervisor as `python -m pipeline_project.serving.worker ORDER`, where ORDER is a `WorkerOrder` in JSON.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from pydantic import BaseModel, ConfigDict

from pipeline_project.contracts import Environment
from pipeline_project.serving.app import create_app
from pipeline_project.serving.balanced import BalancedServer
from pipeline_project.serving.guard import RouteStatistics
from pipeline_project.serving.metrics import Metrics
from pipeline_project.serving.predicting import Predictor
from pipeline_project.serving.prediction_log import PredictionLog, new_worker_id, spool_folder
from pipeline_project.serving.reconcile import Reconciler, Serving
from pipeline_project.settings import Settings
from pipeline_project.storage import open_artifacts

DRAIN_S = 10
_STATISTICS_S = 0.5


class WorkerOrder(BaseModel):
    """What the supervisor tells a worker. File descriptors are inherited; paths are absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings_file: Path
    environment: Environment
    replica: str
    socket_descriptor: int
    shared_socket: bool
    watch_descriptor: int
    threads: int
    metrics_folder: Path
    statistics_folder: Path
    package_digest: str | None


def main(order: WorkerOrder) -> None:
    """Serve until SIGTERM, or until the supervisor is gone; then finish what is under way."""
    _end_with_supervisor(order.watch_descriptor)
    settings = Settings.model_validate_json(order.settings_file.read_bytes())
    artifacts = open_artifacts(settings)
    worker = new_worker_id(order.replica)
    metrics = Metrics(order.metrics_folder)
    statistics = RouteStatistics(order.statistics_folder / f"{worker}.json")
    log = PredictionLog(spool_folder(settings.home, order.environment), worker)

    def changed(serving: Serving) -> None:
        statistics.begin(serving.document)
        metrics.document.set(serving.document)
        metrics.packages.set(len(serving.engines))

    reconciler = Reconciler(
        settings,
        artifacts,
        order.environment,
        order.replica,
        os.getpid(),
        package_digest=order.package_digest,
        log=lambda line: print(f"{worker}: {line}", flush=True),  # noqa: T201 the worker's log is its standard output
        changed=changed,
    )
    predictor = Predictor(settings, order.environment, log, metrics, statistics, serving=lambda: reconciler.current, threads=order.threads)

    def health() -> Mapping[str, Any]:
        serving = reconciler.current
        return {
            "ready": serving is not None,
            "environment": order.environment,
            "document": serving.document if serving else None,
            "models": sorted(digest[:12] for digest in serving.engines) if serving else [],
        }

    stop = threading.Event()
    background = [
        threading.Thread(target=reconciler.run, args=(stop,), name="reconcile", daemon=True),
        threading.Thread(target=_keep_statistics, args=(statistics, stop), name="statistics", daemon=True),
    ]
    for thread in background:
        thread.start()
    server = BalancedServer(
        uvicorn.Config(
            create_app(predictor, health=health),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=DRAIN_S,
        ),
        socket.socket(fileno=order.socket_descriptor),
        shared=order.shared_socket,
    )

    def finish(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, finish)  # uvicorn raises the signal once more after draining; the default action would end us here
    server.run()
    stop.set()
    for thread in background:
        thread.join(timeout=5)
    predictor.close()


def _keep_statistics(statistics: RouteStatistics, stop: threading.Event) -> None:
    while not stop.wait(_STATISTICS_S):
        statistics.write()


def _end_with_supervisor(descriptor: int) -> None:
    """End this process when the supervisor does, however it ends: the pipe's other end then closes."""

    def watch() -> None:
        os.read(descriptor, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(DRAIN_S + 5)
        os._exit(1)

    threading.Thread(target=watch, name="watch", daemon=True).start()


if __name__ == "__main__":
    main(WorkerOrder.model_validate_json(sys.argv[1]))
