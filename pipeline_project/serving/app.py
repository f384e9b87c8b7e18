"""The HTTP API of the server (R144). Thin: routes here, the work in `predicting`."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline_project.contracts import TruthRecord
from pipeline_project.serving.page import CONTENT_SECURITY_POLICY, PAGE
from pipeline_project.serving.predicting import Answer, Predictor, Upload
from pipeline_project.serving.prediction_log import REQUEST_ID
from pipeline_project.serving.uploads import RequestError, UploadBudget, read_body, read_upload

MAX_REQUESTS = 128  # in one worker at once; more would only wait longer than anybody wants to
_FEEDBACK_BYTES = 4_000
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_UPLOAD_DOCS = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
            }
        },
    },
    "parameters": [
        {"name": "X-Request-ID", "in": "header", "required": False, "schema": {"type": "string", "pattern": REQUEST_ID.pattern}}
    ],
}


class Prediction(BaseModel):
    """The answer to POST /predict."""

    predicted_class: str
    confidence: float
    all_probabilities: dict[str, float]
    request_id: str
    model: str = Field(description="the first 12 digits of the package's digest")
    route: str


class Problem(BaseModel):
    """Every answer that is no success. `code` is stable, `message` is for people."""

    code: str
    message: str
    request_id: str | None = None


_PROBLEMS: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (400, 408, 413, 422, 500, 503)}


class Feedback(BaseModel):
    """The true label of an answered request."""

    model_config = ConfigDict(extra="forbid")

    request_id: str = Field(pattern=REQUEST_ID.pattern)
    label: str = Field(min_length=1, max_length=200)


def create_app(predictor: Predictor, *, health: Callable[[], Mapping[str, Any]]) -> ASGIApp:
    """The application of one worker.

    Args:
        predictor: does the work, in its thread pool.
        health: facts for GET /health; `ready` (bool) among them.
    """
    app = FastAPI(title="Product image classifier", version="1", docs_url=None, redoc_url=None)
    budget = UploadBudget(max_bytes=max(8 * predictor.settings.serving.max_upload_bytes, 64_000_000), max_requests=MAX_REQUESTS)
    _add_upload_routes(app, predictor, budget)
    _add_feedback_route(app, predictor, budget)
    _add_status_routes(app, predictor, health)
    _add_error_handlers(app, predictor)
    return _SecurityHeaders(app)


def _add_upload_routes(app: FastAPI, predictor: Predictor, budget: UploadBudget) -> None:
    limit = predictor.settings.serving.max_upload_bytes

    async def with_upload(request: Request, work: Callable[[Upload], Answer], path: str) -> Response:
        request_id = _request_id(request)
        serving = predictor.serving()
        if serving is None:
            raise RequestError(503, "no_model", "no model is loaded yet: deploy one to this environment, or wait until it is ready")
        route, engine = serving.choose(request_id)
        upload = Upload(request_id, serving.document, route, engine)
        with budget.lease() as lease:
            try:
                upload.data = await read_upload(request, limit, lease)
                upload.received = time.perf_counter()
                answer = await predictor.run(work, upload)
            except RequestError as error:
                answer = await predictor.run(partial(predictor.fail, error=error, logged=path == "predict"), upload)
        predictor.metrics.requests.labels(path, str(answer.status), route.name).inc()
        predictor.metrics.latency.labels(path, route.name).observe(time.perf_counter() - upload.received)
        return Response(answer.body, answer.status, {"X-Request-ID": request_id, **answer.headers}, answer.media_type)

    @app.post("/predict", response_model=Prediction, responses=_PROBLEMS, openapi_extra=_UPLOAD_DOCS)
    async def predict(request: Request) -> Response:
        """Classify one image."""
        return await with_upload(request, predictor.predict, "predict")

    @app.post("/explain", response_class=Response, responses=_PROBLEMS, openapi_extra=_UPLOAD_DOCS)
    async def explain(request: Request) -> Response:
        """A PNG of the image with a heat map over it: where the evidence for the predicted class lies."""
        return await with_upload(request, predictor.explain, "explain")


def _add_feedback_route(app: FastAPI, predictor: Predictor, budget: UploadBudget) -> None:
    @app.post("/feedback", status_code=201, responses=_PROBLEMS)
    async def feedback(request: Request) -> Response:
        """Note the true label of an answered request."""
        with budget.lease() as lease:
            body = await read_body(request, _FEEDBACK_BYTES, lease)
        try:
            said = Feedback.model_validate_json(body)
        except ValidationError as error:
            fields = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors(include_url=False))
            raise RequestError(422, "bad_feedback", f'send {{"request_id": ..., "label": ...}}: {fields}') from None
        known = predictor.known_classes()
        if said.label not in known:
            raise RequestError(422, "unknown_label", f"the label must be one of: {', '.join(known)}")
        record = TruthRecord(request_id=said.request_id, label=said.label, source="api", received=datetime.now(UTC))
        await predictor.write_truth(record)
        predictor.metrics.requests.labels("feedback", "201", "").inc()
        return JSONResponse({"request_id": said.request_id, "label": said.label}, 201)


def _add_status_routes(app: FastAPI, predictor: Predictor, health: Callable[[], Mapping[str, Any]]) -> None:
    @app.get("/health")
    async def health_() -> Response:
        """Whether the process lives (always, when this answers) and whether it can predict."""
        facts = dict(health())
        return JSONResponse({"status": "ready" if facts["ready"] else "not_ready", "live": True, **facts})

    @app.get("/health/live")
    async def live() -> Response:
        """200 while the process answers."""
        return JSONResponse({"live": True})

    @app.get("/health/ready")
    async def ready() -> Response:
        """200 with a model loaded, else 503."""
        can = bool(health()["ready"])
        return JSONResponse({"ready": can}, 200 if can else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus metrics of all workers."""
        text = await asyncio.to_thread(predictor.metrics.render)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """The web page."""
        return Response(PAGE, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


def _add_error_handlers(app: FastAPI, predictor: Predictor) -> None:
    @app.exception_handler(RequestError)
    async def on_request_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        predictor.metrics.requests.labels(_known_path(app, request), str(error.status), "").inc()
        headers = {"Retry-After": "1"} if error.status == 503 else None
        return JSONResponse({"code": error.code, "message": error.message, "request_id": None}, error.status, headers)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return JSONResponse({"code": code, "message": error.detail, "request_id": None}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        return JSONResponse({"code": "internal_error", "message": "something failed in the server", "request_id": None}, 500)

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(request: Request, error: Exception) -> Response:
        return Response(status_code=400)  # nobody is there to read it


def _request_id(request: Request) -> str:
    given = request.headers.get("x-request-id")
    if given is None:
        return uuid.uuid4().hex
    if not REQUEST_ID.match(given):
        raise RequestError(400, "bad_request_id", "X-Request-ID must be 1-128 letters, digits, dots, colons, dashes or underscores")
    return given


def _known_path(app: FastAPI, request: Request) -> str:
    path = request.url.path.strip("/")
    return path if path in {"predict", "explain", "feedback"} else "other"  # a stranger's path must not become a label


class _SecurityHeaders:
    """Adds the security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(header for header in _HEADERS if header[0] not in present)]
            await send(message)

        await self._app(scope, receive, send_with_headers)
