"""The prediction log and the ground truth of a day (R180, R181): segments written by workers become one sorted table each."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, get_args

from pipeline_project.contracts import PROBE_PREFIX, Environment, PredictionRecord, TruthRecord
from pipeline_project.digests import canonical_json
from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.serving.prediction_log import days_with_segments, find_gaps, read_segments
from pipeline_project.serving.prediction_log import read_truth as read_truth_segments
from pipeline_project.stage import Markdown, MetadataValue, StageContext, StepResult, Table
from pipeline_project.storage import ArtifactStore, ByteStore
from pipeline_project.tables import frame_to_parquet, parquet_to_frame

if TYPE_CHECKING:
    import pandas as pd

ENVIRONMENTS: tuple[Environment, ...] = get_args(Environment)
MEASUREMENT_COLUMNS: tuple[str, ...] = tuple(f"m_{name}" for name in FEATURE_NAMES)


def compact_predictions(context: StageContext, day: date) -> StepResult:
    """The prediction log of a day, both environments, each record once (asset prediction_log).

    A record is known by its worker and sequence number, so a segment that was uploaded twice counts once. A day without requests
    gives an empty table.

    Payload: predictions.parquet (a row a request, sorted by time; `read_predictions` names the columns) and summary.json
    {records, counts: [{environment, route, status, count}], gaps: {"environment/worker": [first, last] of each hole}}.
    """
    store = context.artifacts.bytes
    records: dict[tuple[str, str, int], PredictionRecord] = {}
    read = 0
    for environment in ENVIRONMENTS:
        for record in read_segments(store, environment, day):
            read += 1
            records.setdefault((record.environment, record.worker, record.sequence), record)
    ordered = sorted(records.values(), key=lambda r: (r.time, r.environment, r.worker, r.sequence))
    counts = Counter((r.environment, r.route, r.status) for r in ordered)
    gaps = _gaps(store, ordered, day)
    summary = {
        "records": len(ordered),
        "counts": [{"environment": e, "route": r, "status": s, "count": n} for (e, r, s), n in sorted(counts.items())],
        "gaps": gaps,
    }
    artifact = context.artifacts.publish(
        "prediction_log",
        {"predictions.parquet": frame_to_parquet(_prediction_frame(ordered)), "summary.json": canonical_json(summary)},
        partition=day.isoformat(),
        info={"records": len(ordered), "duplicates": read - len(ordered), "gaps": sum(len(holes) for holes in gaps.values())},
    )
    return StepResult(
        artifact,
        {
            "records": len(ordered),
            "duplicates_dropped": read - len(ordered),
            "counts": Table([{"environment": e, "route": r, "status": s, "count": n} for (e, r, s), n in sorted(counts.items())]),
            "packages": Table(_packages_that_answered(ordered)),
            "find_a_request": Markdown("`pipeline trace REQUEST_ID` walks from an answer back to its photos, approvals and runs."),
            "workers": len({(r.environment, r.worker) for r in ordered}),
            "lost_records": {name: _in_words(holes) for name, holes in gaps.items()},
        },
    )


def collect_truth(context: StageContext, day: date) -> StepResult:
    """The true labels that were received on a day (asset ground_truth); of several for one request the last one received counts.

    Payload: truth.parquet (request_id, label, source, received; sorted by request) and summary.json {records, replaced,
    labels: {label: count}, unknown_labels: {label: count}, sources: {source: count}}.
    """
    read = {record for environment in ENVIRONMENTS for record in read_truth_segments(context.artifacts.bytes, environment, day)}
    latest: dict[str, TruthRecord] = {}
    for record in sorted(read, key=lambda r: (r.received, r.label, r.source)):
        latest[record.request_id] = record
    ordered = [latest[request] for request in sorted(latest)]
    labels = Counter(r.label for r in ordered)
    unknown = {label: count for label, count in sorted(labels.items()) if label not in context.settings.data.classes}
    summary = {
        "records": len(ordered),
        "replaced": len(read) - len(ordered),
        "labels": dict(sorted(labels.items())),
        "unknown_labels": unknown,
        "sources": dict(sorted(Counter(r.source for r in ordered).items())),
    }
    artifact = context.artifacts.publish(
        "ground_truth",
        {"truth.parquet": frame_to_parquet(_truth_frame(ordered)), "summary.json": canonical_json(summary)},
        partition=day.isoformat(),
        info={"records": len(ordered)},
    )
    facts: dict[str, MetadataValue] = {
        "labels_received": len(ordered),
        "replaced": len(read) - len(ordered),
        "labels": dict(labels),
        "unknown_labels": unknown,
    }
    return StepResult(artifact, facts)


def read_predictions(artifacts: ArtifactStore, days: Iterable[date], environment: Environment) -> "pd.DataFrame":
    """The compacted predictions of an environment over days, in the order of time; a day without a prediction_log adds nothing.

    Columns: request_id, time (UTC), environment, worker, sequence, document, route, package, image_id, status, predicted_class,
    confidence, probabilities (lists or None), latency_ms, features (lists or None), thumbnail, and one m_<name> for each measurement.
    """
    import pandas as pd

    found = [artifacts.find("prediction_log", day.isoformat()) for day in sorted(set(days))]
    frames = [parquet_to_frame(artifact.read("predictions.parquet")) for artifact in found if artifact is not None]
    frames = [frame[frame["environment"] == environment] for frame in frames]
    kept = [frame for frame in frames if len(frame)]
    return pd.concat(kept, ignore_index=True) if kept else _prediction_frame([])


def read_truth(artifacts: ArtifactStore, since: date) -> "pd.DataFrame":
    """Every label received on or after a day, the last one of each request; columns request_id, label, source, received."""
    import pandas as pd

    days = [day for day in artifacts.partitions("ground_truth") if day >= since.isoformat()]
    frames = [parquet_to_frame(artifacts.latest("ground_truth", day).read("truth.parquet")) for day in days]
    kept = [frame for frame in frames if len(frame)]
    if not kept:
        return _truth_frame([])
    rows = pd.concat(kept, ignore_index=True).sort_values(["received", "label", "source"], kind="stable")
    return rows.drop_duplicates("request_id", keep="last").sort_values("request_id", ignore_index=True)


def answered(predictions: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of requests that got a prediction; our own probes (smoke tests) are no traffic."""
    real = (predictions["status"] == 200) & predictions["predicted_class"].notna() & ~predictions["request_id"].str.startswith(PROBE_PREFIX)
    return predictions[real].reset_index(drop=True)


def window(day: date, days: int) -> list[date]:
    """The last `days` days up to and including `day`, oldest first."""
    return [day - timedelta(days=back) for back in reversed(range(days))]


def _prediction_frame(records: Sequence[PredictionRecord]) -> "pd.DataFrame":
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for record in records:
        row = record.model_dump(exclude={"version", "measurements"})
        measured = record.measurements or {}
        row |= {column: measured.get(name) for column, name in zip(MEASUREMENT_COLUMNS, FEATURE_NAMES, strict=True)}
        rows.append(row)
    fields = [name for name in PredictionRecord.model_fields if name not in ("version", "measurements")]
    frame = pd.DataFrame(rows, columns=[*fields, *MEASUREMENT_COLUMNS])
    # Types are stated, because an empty day or one of errors only would otherwise get others.
    types = dict.fromkeys(("sequence", "document", "status"), "int64") | dict.fromkeys(("confidence", "latency_ms"), "float64")
    types |= dict.fromkeys(MEASUREMENT_COLUMNS, "float64")
    frame = frame.astype(types)
    frame["time"] = pd.to_datetime(frame["time"], utc=True).astype("datetime64[us, UTC]")
    return frame


def _truth_frame(records: Sequence[TruthRecord]) -> "pd.DataFrame":
    import pandas as pd

    rows = [record.model_dump(exclude={"version"}) for record in records]
    frame = pd.DataFrame(rows, columns=["request_id", "label", "source", "received"])
    frame["received"] = pd.to_datetime(frame["received"], utc=True).astype("datetime64[us, UTC]")
    return frame


def _packages_that_answered(records: Sequence[PredictionRecord]) -> list[dict[str, Any]]:
    counts = Counter((r.package, r.environment, r.route, r.document) for r in records)
    return [
        {"package": package, "environment": environment, "route": route, "document": document, "requests": count}
        for (package, environment, route, document), count in sorted(counts.items())
    ]


def _gaps(store: ByteStore, records: Sequence[PredictionRecord], day: date) -> dict[str, list[list[int]]]:
    """Holes in each worker's sequence that end on this day, as [first, last] missing numbers.

    A worker that started earlier must go on where it stopped on the last active day, and two requests around midnight may be logged in
    either order; so neighbouring days are read too, where a hole or a late start asks for it. Records lost after a worker's last one
    leave no hole.
    """
    found: dict[str, list[list[int]]] = {}
    for environment in ENVIRONMENTS:
        today = [record for record in records if record.environment == environment]
        seen: dict[str, set[int]] = defaultdict(set)
        for record in today:
            seen[record.worker].add(record.sequence)
        if not find_gaps(today) and all(1 in numbers for numbers in seen.values()):
            continue
        days = [d for d in days_with_segments(store, environment) if d != day]
        around = [max((d for d in days if d < day), default=None), min((d for d in days if d > day), default=None)]
        others = [read_segments(store, environment, neighbour) for neighbour in around if neighbour is not None]
        for gap in find_gaps(chain(today, *others)):
            if gap.last + 1 in seen.get(gap.worker, ()):
                found.setdefault(f"{environment}/{gap.worker}", []).append([gap.first, gap.last])
    return dict(sorted(found.items()))


def _in_words(holes: list[list[int]]) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in holes)
