"""What Prometheus scrapes. With a folder of their own, all workers of a supervisor add up there, so any worker answers for all."""

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
_CONFIDENCE = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Metrics:
    """The server's metrics.

    Args:
        shared: the supervisor's folder of per-process values. The process must have been started with `PROMETHEUS_MULTIPROC_DIR`
            set to it, for prometheus_client reads that at import. None: this process answers for itself only.
    """

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = shared
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests = Counter("pipeline_requests", "Requests by path, status and route", ["path", "status", "route"], registry=registry)
        self.latency = Histogram(
            "pipeline_inference_latency_seconds",
            "From the received body to the answer",
            ["path", "route"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.confidence = Histogram(
            "pipeline_prediction_confidence", "Probability of the predicted class", ["route"], buckets=_CONFIDENCE, registry=registry
        )
        self.classes = Counter("pipeline_predicted_class", "Predictions by class", ["predicted_class", "route"], registry=registry)
        self.packages = Gauge("pipeline_loaded_packages", "Packages loaded by a worker", registry=registry, multiprocess_mode="livemax")
        self.document = Gauge(
            "pipeline_document_number", "Desired-state document that the workers serve", registry=registry, multiprocess_mode="livemin"
        )

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        if self._shared is None:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(registry)
