"""Traffic for a running endpoint: photos of the test split, sent as a client would, and their true labels afterwards."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from pipeline_project.dataset.reading import load_split
from pipeline_project.ingest.sources import open_source
from pipeline_project.serving.client import PredictionClient
from pipeline_project.stage import StageContext

_CONNECTIONS = 2
_SHIPPED_WITHIN_S = 30.0


def send_traffic(context: StageContext, requests: int, say: Callable[[str], None]) -> int:
    """Send requests to production and report the truth for each; returns how many answers were right.

    Returns once the log of all answers has reached the store, so that a report made next sees them.

    Raises:
        PredictionError: the endpoint does not answer.
    """
    from pipeline_project.serving.prediction_log import read_segments

    test, source = load_split(context.artifacts, "test"), open_source(context.settings)
    classes, store = context.settings.data.classes, context.artifacts.bytes
    started = datetime.now(UTC)
    right = 0
    with PredictionClient(context.settings.serving.production.address) as client, ThreadPoolExecutor(_CONNECTIONS) as pool:

        def ask(number: int) -> tuple[str, bool]:
            i = number % len(test.keys)
            answer = client.predict(source.read(test.keys[i]))
            truth = classes[int(test.class_index[i])]
            client.feedback(answer.request_id, truth)
            return answer.request_id, answer.predicted_class == truth

        sent = set()
        for done, (request_id, correct) in enumerate(pool.map(ask, range(requests)), 1):
            sent.add(request_id)
            right += correct
            if done % 100 == 0:
                say(f"{done} of {requests} predictions, {right} right")
    deadline = time.monotonic() + _SHIPPED_WITHIN_S
    days = sorted({started.date(), datetime.now(UTC).date()})
    while time.monotonic() < deadline:
        logged = {record.request_id for day in days for record in read_segments(store, "production", day)}
        if sent <= logged:
            break
        time.sleep(0.5)
    say(f"{requests} predictions answered, {right} right; all are in the prediction log")
    return right
