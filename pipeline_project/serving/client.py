"""A client of the prediction API: for smoke tests, replayed traffic and batch predictions through the server."""

from types import TracebackType
from typing import Self

import httpx
from pydantic import BaseModel, ConfigDict


class PredictionError(ValueError):
    """The server did not predict. `status` is the HTTP code (0: no answer at all), `code` the server's stable code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}" if status else message)
        self.status, self.code = status, code


class PredictionAnswer(BaseModel):
    """What POST /predict answers. Probabilities are 0-1 and sum to 1; `model` is the package's first 12 digits."""

    model_config = ConfigDict(frozen=True)

    predicted_class: str
    confidence: float
    all_probabilities: dict[str, float]
    request_id: str
    model: str
    route: str


class PredictionClient:
    """Keeps connections open; safe for several threads. Close it, or use it as a context manager.

    Args:
        url: of the server, such as http://127.0.0.1:8000.
        timeout_s: for each request, seconds.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.url = url
        # The transport tries again only what was never sent: a connection that could not be made.
        self._client = httpx.Client(base_url=url, timeout=timeout_s, transport=httpx.HTTPTransport(retries=2), trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def predict(self, image: bytes, *, request_id: str | None = None) -> PredictionAnswer:
        """Classify an image's bytes. Raises `PredictionError`."""
        return PredictionAnswer.model_validate_json(self._upload("/predict", image, request_id))

    def explain(self, image: bytes, *, request_id: str | None = None) -> bytes:
        """The heat map of the predicted class over the image, PNG bytes. Raises `PredictionError`."""
        return self._upload("/explain", image, request_id)

    def feedback(self, request_id: str, label: str) -> None:
        """Say what the image of an answered request really was. Raises `PredictionError`."""
        self._checked("POST", "/feedback", json={"request_id": request_id, "label": label})

    def ready(self) -> bool:
        """Whether the server answers and has a model."""
        try:
            return self._client.get("/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def _upload(self, path: str, image: bytes, request_id: str | None) -> bytes:
        headers = {} if request_id is None else {"X-Request-ID": request_id}
        return self._checked("POST", path, files={"file": ("image", image, "application/octet-stream")}, headers=headers)

    def _checked(self, method: str, path: str, **arguments: object) -> bytes:
        try:
            answer = self._client.request(method, path, **arguments)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            why = f"{self.url}{path}: {error or type(error).__name__}. Is the server running? Start it with `pipeline serve`."
            raise PredictionError(0, "no_answer", why) from None
        if answer.is_success:
            return answer.content
        try:
            problem = answer.json()
            raise PredictionError(answer.status_code, str(problem["code"]), str(problem["message"]))
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, PredictionError):
                raise
            raise PredictionError(answer.status_code, "http_error", answer.text[:200]) from None
