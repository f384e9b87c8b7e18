"""One request's work, off the event loop: decode, resize, predict, measure, log, and only then answer."""

import asyncio
import base64
import io
import json
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline_project.contracts import Environment, PredictionRecord, Route, TruthRecord
from pipeline_project.digests import sha256_bytes
from pipeline_project.imaging import DecodeLimits, ImageRejectedError, measure, prepare
from pipeline_project.serving.engine import Engine, EngineError
from pipeline_project.serving.explanation import explain, overlay_png
from pipeline_project.serving.guard import RouteStatistics
from pipeline_project.serving.metrics import Metrics
from pipeline_project.serving.prediction_log import PredictionLog
from pipeline_project.serving.reconcile import Serving
from pipeline_project.serving.router import unit_interval
from pipeline_project.serving.uploads import RequestError
from pipeline_project.settings import Settings

THUMBNAIL_SIDE = 48
_FEATURE_DIGITS = 4


@dataclass
class Upload:
    """A request under way: which model answers it, and its bytes once they are here.

    `received` is a `perf_counter` time; `logged` says whether the prediction log has it.
    """

    request_id: str
    document: int
    route: Route
    engine: Engine
    data: bytes | None = None
    received: float = field(default_factory=time.perf_counter)
    logged: bool = False


@dataclass(frozen=True)
class Answer:
    """What goes back to the client."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Predictor:
    """Answers uploads with the engines that serve now.

    Args:
        serving: gives the current set of engines, or None before the first.
        threads: how many images are worked on at once.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Environment,
        log: PredictionLog,
        metrics: Metrics,
        statistics: RouteStatistics,
        *,
        serving: Callable[[], Serving | None],
        threads: int = 1,
    ) -> None:
        self.settings, self.serving, self.metrics = settings, serving, metrics
        self._environment, self._log, self._statistics = environment, log, statistics
        self._limits = DecodeLimits.from_settings(settings.ingest)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")

    async def run(self, work: Callable[[Upload], Answer], upload: Upload) -> Answer:
        """Run one request's work in the pool. Failures of the model or of the log become 500 and 503 answers."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._guarded, work, upload)

    async def write_truth(self, record: TruthRecord) -> None:
        """Log a true label. Raises `RequestError` (503) when it cannot be kept."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._log.append_truth, record)
        except OSError:
            raise _LOG_UNAVAILABLE from None

    def known_classes(self) -> list[str]:
        """The classes of the packages that serve now, or of the settings before there is one."""
        serving = self.serving()
        if serving is None:
            return list(self.settings.data.classes)
        return sorted({name for engine in serving.engines.values() for name in engine.manifest.classes})

    def close(self) -> None:
        """Finish what is under way and seal the log."""
        self._pool.shutdown(wait=True)
        self._log.close()

    def predict(self, upload: Upload) -> Answer:
        """Classify an image, log it, and make the answer. Raises as `_pixels`, and `EngineError`, `OSError`."""
        pixels, aspect = self._pixels(upload)
        prediction = upload.engine.predict(pixels[None])
        classes = upload.engine.manifest.classes
        probabilities = [round(float(p), 6) for p in prediction.probabilities[0]]
        best = int(prediction.probabilities[0].argmax())
        self._append(
            upload,
            200,
            predicted_class=classes[best],
            confidence=probabilities[best],
            probabilities=probabilities,
            measurements=measure(pixels, aspect),
            features=[round(float(value), _FEATURE_DIGITS) for value in prediction.features[0]],
            thumbnail=self._thumbnail(upload.request_id, pixels),
        )
        self.metrics.confidence.labels(upload.route.name).observe(probabilities[best])
        self.metrics.classes.labels(classes[best], upload.route.name).inc()
        body = {
            "predicted_class": classes[best],
            "confidence": probabilities[best],
            "all_probabilities": dict(zip(classes, probabilities, strict=True)),
            "request_id": upload.request_id,
            "model": upload.route.package[:12],
            "route": upload.route.name,
        }
        return Answer(200, json.dumps(body).encode())

    def explain(self, upload: Upload) -> Answer:
        """The heat map of the predicted class over the image. Raises as `predict`."""
        pixels, _ = self._pixels(upload)
        prediction = upload.engine.predict(pixels[None])
        best = int(prediction.logits[0].argmax())
        heat = explain(prediction.feature_map[0], upload.engine.head, best, pixels.shape[0])
        named = upload.engine.manifest.classes[best].encode("ascii", "replace").decode()
        return Answer(200, overlay_png(pixels, heat), "image/png", {"X-Predicted-Class": named})

    def fail(self, upload: Upload, error: RequestError, *, logged: bool) -> Answer:
        """The answer to a request that failed; such requests are in the prediction log too."""
        if logged and not upload.logged:
            self._append(upload, error.status)
        body = {"code": error.code, "message": error.message, "request_id": upload.request_id}
        return Answer(error.status, json.dumps(body).encode(), headers={"Retry-After": "1"} if error.status == 503 else {})

    def _guarded(self, work: Callable[[Upload], Answer], upload: Upload) -> Answer:
        logged = work == self.predict
        try:
            try:
                return work(upload)
            except OSError:
                raise
            except Exception as error:
                return self.fail(upload, self._problem(upload, error), logged=logged)
        except OSError:  # only the log touches the disk
            return self.fail(upload, _LOG_UNAVAILABLE, logged=False)

    def _problem(self, upload: Upload, error: Exception) -> RequestError:
        """What the client is told; what it must not see goes to the worker's own log."""
        if isinstance(error, ImageRejectedError):
            return RequestError(413 if error.code == "too_many_bytes" else 422, error.code, error.detail)
        if isinstance(error, EngineError):
            print(f"request {upload.request_id}: {error}", flush=True)  # noqa: T201 the worker's log is its standard output
            return RequestError(500, "model_failed", "the model failed on this image")
        traceback.print_exception(error)
        return RequestError(500, "internal_error", "something failed in the server")

    def _pixels(self, upload: Upload) -> tuple[NDArray[np.uint8], float]:
        manifest = upload.engine.manifest
        pixels, decoded = prepare(upload.data or b"", self._limits, manifest.image_size, manifest.resample)
        return pixels, decoded.width / decoded.height

    def _thumbnail(self, request_id: str, pixels: NDArray[np.uint8]) -> str | None:
        if unit_interval(request_id, "thumbnail") >= self.settings.serving.thumbnail_share:
            return None
        out = io.BytesIO()
        Image.fromarray(pixels).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR).save(out, "JPEG", quality=75)
        return base64.b64encode(out.getvalue()).decode()

    def _append(
        self,
        upload: Upload,
        status: int,
        *,
        predicted_class: str | None = None,
        confidence: float | None = None,
        probabilities: list[float] | None = None,
        measurements: dict[str, float] | None = None,
        features: list[float] | None = None,
        thumbnail: str | None = None,
    ) -> None:
        latency_ms = round((time.perf_counter() - upload.received) * 1000, 3)
        self._statistics.add(upload.document, upload.route.name, latency_ms, failed=status >= 500)
        self._log.append(
            PredictionRecord(
                request_id=upload.request_id,
                time=datetime.now(UTC),
                environment=self._environment,
                worker=self._log.worker,
                sequence=0,  # the log counts
                document=upload.document,
                route=upload.route.name,
                package=upload.route.package,
                image_id=sha256_bytes(upload.data) if upload.data else None,
                status=status,
                predicted_class=predicted_class,
                confidence=confidence,
                probabilities=probabilities,
                latency_ms=latency_ms,
                measurements=measurements,
                features=features,
                thumbnail=thumbnail,
            )
        )
        upload.logged = True


_LOG_UNAVAILABLE = RequestError(503, "log_unavailable", "the prediction could not be recorded, so it is not given; try again")
