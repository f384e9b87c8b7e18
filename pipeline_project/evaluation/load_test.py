"""load_test_report: the newest package behind the real server, under load and under hostile input (R105-R108).

What was asked is the payload; what was measured differs from run to run, so it stands beside it, in the sidecar and in `info`.
"""

import os
import platform
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline_project import plots
from pipeline_project.contracts import Measurement
from pipeline_project.digests import canonical_json
from pipeline_project.evaluation.hostile_probe import probe_server
from pipeline_project.evaluation.load import LoadError, LoadResult, run_load
from pipeline_project.evaluation.performance import rounded
from pipeline_project.evaluation.robustness import evenly_spaced
from pipeline_project.imaging.decode import DECODE_SETTINGS
from pipeline_project.reuse import reusable
from pipeline_project.settings import Settings
from pipeline_project.settings.tree import EnvironmentSettings, GateSettings
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.storage import Artifact, FolderStore

NAME = "load_test_report"
_IMAGES = 64
_MEMORY_INTERVAL_S = 0.2
_WARM_UP_S = 1.0


def _met(context: StageContext, report: Artifact) -> bool:
    """Whether a stored load test meets what is asked for now: a measurement that missed is taken again, never reused."""
    held = threshold_measurements(report.info["measurements"], context.settings.gates)
    return all(m.passed for m in held) and not report.info["findings"]


@reusable(
    NAME,
    inputs=["model_package", "dataset_splits"],
    settings=[
        *DECODE_SETTINGS,
        "evaluation.load_test_connections",
        "evaluation.load_test_s",
        "evaluation.vcpu_hour_usd",
        "serving.max_upload_bytes",
        "serving.poll_seconds",
        "serving.production.cpu",
        "serving.production.workers",
        "serving.thumbnail_share",
    ],
    code=["serving"],
    sound=_met,
)
def load_test_package(context: StageContext) -> StepResult:
    """Start a server as production runs it with the newest package, load it, probe it, stop it.

    Payload: load_test.json (package, connections, duration, image ids, environment). Sidecars: measurements.json (also in `info`
    under "measurements", with "findings" of the hostile requests), server.log.

    Raises:
        ValueError: the server did not start, or answered no request; the message holds the end of its log.
    """
    from pipeline_project.dataset.reading import load_split
    from pipeline_project.ingest.sources import open_source
    from pipeline_project.serving.process import start_server

    settings, artifacts = context.settings, context.artifacts
    package = artifacts.latest("model_package")
    test = load_split(artifacts, "test")
    chosen = [int(row) for row in evenly_spaced(len(test.keys), _IMAGES)]
    source = open_source(settings)
    images = [source.read(test.keys[row]) for row in chosen]
    plan = settings.evaluation
    protocol = {
        "version": 1,
        "package": package.digest,
        "environment": "production",
        "connections": plan.load_test_connections,
        "duration_s": plan.load_test_s,
        "images": [test.image_ids[row] for row in chosen],
    }
    with tempfile.TemporaryDirectory(prefix="load-test-") as folder:
        log_file = Path(folder) / "server.log"
        alone = isolated_settings(settings, package, Path(folder))
        server = start_server(alone, "production", package_digest=package.digest, port=0, home=Path(folder), log_file=log_file)
        try:
            server.wait_ready()
            context.log(f"loading {server.url} for {plan.load_test_s:g} s with {plan.load_test_connections} connections")
            run_load(server.url, images, plan.load_test_connections, min(_WARM_UP_S, plan.load_test_s / 4))
            with PeakMemory(server.memory_mb) as memory:
                load = run_load(server.url, images, plan.load_test_connections, plan.load_test_s)
            context.log("sending hostile requests")
            findings = probe_server(server.url, images[0])
        except LoadError as error:
            raise ValueError(f"{error} The server's log ends with:\n{_read(log_file)[-2000:].decode(errors='replace')}") from error
        finally:
            server.stop()
        log = _read(log_file)
    measured = measurements_of(load, memory.peak_mb, settings.serving.production, plan.vcpu_hour_usd)
    artifact = artifacts.publish(
        NAME,
        {"load_test.json": canonical_json(protocol)},
        sidecars={"measurements.json": canonical_json(measured), "server.log": log[-1_000_000:]},
        info={"package": package.digest, "measurements": measured, "findings": [finding.as_json() for finding in findings]},
    )
    held = threshold_measurements(measured, settings.gates)
    latencies = {name: measured[name] for name in ("p50_ms", "p95_ms", "p99_ms")}
    return StepResult(
        artifact,
        {
            **{name: value for name, value in measured.items() if value is not None},
            "thresholds": Table([_row(m) for m in held]),
            "hostile_findings": Table([finding.as_json() for finding in findings]) if findings else "none",
            "latency": plots.bars(latencies, title="Latency", y_label="ms", threshold=settings.gates.p99_latency_ms),
            "package": package.digest,
        },
    )


def measurements_of(load: LoadResult, memory_mb: float, environment: EnvironmentSettings, vcpu_hour_usd: float) -> dict[str, Any]:
    """What a load test measured, as JSON: latencies in ms, throughput in requests a second, memory in MB, cost in US dollars.

    The cost of a prediction is the price of the cores that the server may use, divided by its throughput; a machine with fewer cores
    than the environment grants costs what it has.
    """
    cores = min(environment.cpu, float(os.cpu_count() or 1))
    measured: dict[str, Any] = rounded(
        {
            "requests": load.requests,
            "errors": load.errors,
            "first_error": load.first_error,
            "throughput_rps": load.throughput_rps,
            "p50_ms": load.p50_ms,
            "p95_ms": load.p95_ms,
            "p99_ms": load.p99_ms,
            "memory_mb": memory_mb,
            "cores": cores,
        },
        3,
    )
    cost = vcpu_hour_usd * cores / 3600 / load.throughput_rps
    return measured | {"cost_per_prediction_usd": float(f"{cost:.4g}"), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}


def threshold_measurements(measured: dict[str, Any], gates: GateSettings) -> list[Measurement]:
    """A load test's numbers held against their thresholds (R105-R108)."""
    bounds = [
        ("p99_latency_ms", measured["p99_ms"], gates.p99_latency_ms, "<="),
        ("throughput_rps", measured["throughput_rps"], gates.throughput_rps, ">="),
        ("memory_mb", measured["memory_mb"], gates.memory_mb, "<="),
        ("cost_per_prediction_usd", measured["cost_per_prediction_usd"], gates.cost_per_prediction_usd, "<="),
        ("errors", measured["errors"], 0.0, "<="),
    ]
    return [
        Measurement(
            name=name,
            value=value,
            threshold=threshold,
            comparison=">=" if comparison == ">=" else "<=",
            passed=value >= threshold if comparison == ">=" else value <= threshold,
        )
        for name, value, threshold, comparison in bounds
    ]


def isolated_settings(settings: Settings, package: Artifact, folder: Path) -> Settings:
    """Settings whose store is a folder with nothing but the package, so that a test's predictions never reach the real logs."""
    copy = FolderStore(folder / "store")
    for key in package.store.list(package.prefix):
        copy.write(key, package.store.read(key))
    store = settings.store.model_copy(update={"root": str(copy.root.absolute()), "endpoint_url": None, "encryption": "none"})
    return settings.model_copy(update={"store": store})


class PeakMemory:
    """The highest of samples taken every 0.2 s while the block runs, MB."""

    def __init__(self, sample: Callable[[], float]) -> None:
        self._sample = sample
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_mb = 0.0

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak_mb = max(self.peak_mb, self._sample())

    def _watch(self) -> None:
        while not self._done.wait(_MEMORY_INTERVAL_S):
            self.peak_mb = max(self.peak_mb, self._sample())


def _read(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def _row(measurement: Measurement) -> dict[str, Any]:
    return {
        "measurement": measurement.name,
        "value": measurement.value,
        "threshold": f"{measurement.comparison} {measurement.threshold:g}",
        "passed": measurement.passed,
    }
