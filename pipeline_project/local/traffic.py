"""Traffic for a running endpoint: photos of the test split, sent as a client would, and their true labels afterwards."""

import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

from pipeline_project.dataset.reading import load_split
from pipeline_project.ingest.sources import open_source
from pipeline_project.serving.client import PredictionClient
from pipeline_project.serving.prediction_log import read_segments, read_truth
from pipeline_project.stage import StageContext

_CONNECTIONS = 2
_SHIPPED_WITHIN_S = 30.0


def send_traffic(context: StageContext, requests: int, say: Callable[[str], None]) -> int:
    """Send requests to production and report the truth for each; returns how many answers were right.

    The same requests of the same day to the same package are sent once: a second call sends what is missing. Returns once the log of all
    answers has reached the store, so that a report made next sees them.

    Raises:
        PredictionError: the endpoint does not answer.
    """
    test, source = load_split(context.artifacts, "test"), open_source(context.settings)
    classes = context.settings.data.classes
    today = datetime.now(UTC).date()
    package = context.artifacts.latest("deployed_endpoint").info["package"]
    wanted = {f"demo-{today}-{package[:8]}-{number:05d}": number % len(test.keys) for number in range(requests)}
    truth = {request_id: classes[int(test.class_index[i])] for request_id, i in wanted.items()}
    answers, told = _logged(context, today, wanted)
    missing = [request_id for request_id in wanted if request_id not in answers or request_id not in told]
    if len(missing) < requests:
        say(f"{requests - len(missing)} of the {requests} predictions were answered before today")
    with PredictionClient(context.settings.serving.production.address) as client, ThreadPoolExecutor(_CONNECTIONS) as pool:

        def ask(request_id: str) -> tuple[str, str]:
            answer = answers.get(request_id)
            if answer is None:
                answer = client.predict(source.read(test.keys[wanted[request_id]]), request_id=request_id).predicted_class
            client.feedback(request_id, truth[request_id])
            return request_id, answer

        for done, (request_id, answer) in enumerate(pool.map(ask, missing), 1):
            answers[request_id] = answer
            if done % 100 == 0:
                say(f"{done} of {len(missing)} predictions sent")
    _wait_logged(context, today, wanted)
    right = sum(answers[request_id] == label for request_id, label in truth.items())
    say(f"{requests} predictions answered, {right} right; all are in the prediction log")
    return right


def _logged(context: StageContext, today: date, wanted: Collection[str]) -> tuple[dict[str, str], set[str]]:
    """{request: predicted class} of those that are in the log already, and the requests whose truth is."""
    store = context.artifacts.bytes
    days = sorted({today, datetime.now(UTC).date()})  # midnight may pass
    records = (record for day in days for record in read_segments(store, "production", day) if record.request_id in wanted)
    truths = {record.request_id for day in days for record in read_truth(store, "production", day)}
    return {record.request_id: record.predicted_class or "" for record in records if record.status == 200}, truths


def _wait_logged(context: StageContext, today: date, wanted: Collection[str]) -> None:
    deadline = time.monotonic() + _SHIPPED_WITHIN_S
    while time.monotonic() < deadline:
        answers, truths = _logged(context, today, wanted)
        if all(request_id in answers and request_id in truths for request_id in wanted):
            return
        time.sleep(0.5)
