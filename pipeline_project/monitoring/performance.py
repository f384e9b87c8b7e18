"""The performance report of a day (R170, R174-R178, R182): accuracy against the truth known so far, latency, errors, alerts."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.monitoring.alerts import Alert, judge, raise_alert
from pipeline_project.monitoring.evidence import score_on_test
from pipeline_project.monitoring.predictions import answered, read_predictions, read_truth, window
from pipeline_project.monitoring.tracking import log_report
from pipeline_project.plots import plot
from pipeline_project.stage import Picture, StageContext, StepResult, Table
from pipeline_project.statistics import classification
from pipeline_project.statistics.intervals import wilson_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MIN_TRUTH = 30
"""Labelled predictions below which accuracy gets no verdict: at 30 the 95% interval is still about 0.15 to each side."""

CONFIDENCE = 0.95
_SUCCESS = 200
_SERVER_ERROR = 500


def report_performance(context: StageContext, day: date) -> StepResult:
    """How production did on a day, and over the last `late_truth_days` days where truth comes late (asset performance_report).

    Requests, latency, errors and throughput are of the day; accuracy is over the window, with all truth known so far. Running it again
    later, with more truth, gives a new version.

    Payload: performance.json
        {day, window: [day], requests: {requests, answered, error_rate, rejected_rate, throughput_rps, peak_rps, latency_ms},
        accuracy: {truths, unknown_labels, correct, accuracy, low, high, macro_f1, roc_auc, confidence_gap, classes: {name: {...}}},
        by_day, by_route, by_package, concept_drift, alerts: [Alert]}. Shares are 0-1, latencies in milliseconds.
    Alerts that fired are kept by `monitoring.alerts`.

    Raises:
        ArtifactMissingError: the day's prediction_log or ground_truth was not made yet.
    """
    settings = context.settings.monitoring
    days = window(day, settings.late_truth_days)
    for name in ("prediction_log", "ground_truth"):
        context.artifacts.latest(name, day.isoformat())  # days before may lack theirs: there was nothing to report
    rows = read_predictions(context.artifacts, days, "production")
    today = rows[rows["time"].dt.date == day]
    known = join_truth(rows, read_truth(context.artifacts, days[0]))
    classes = context.settings.data.classes
    accuracy = _accuracy(known, classes)
    requests = _requests(today)
    concept = _concept_drift(context, known)
    drift = context.artifacts.find("drift_report", day.isoformat())
    alerts = judge_alerts(context, requests, accuracy, concept, drift.json("drift.json") if drift else None)
    report: dict[str, Any] = {
        "day": day.isoformat(),
        "window": [d.isoformat() for d in days],
        "requests": requests,
        "accuracy": accuracy,
        "by_day": [_slice({"day": d.isoformat()}, _of_day(rows, d), _of_day(known, d)) for d in days],
        "by_route": _slices(rows, known, "route"),
        "by_package": _slices(rows, known, "package"),
        "concept_drift": concept,
        "drift_report": drift.digest if drift else None,
        "alerts": [alert.model_dump(mode="json") for alert in alerts],
    }
    payload = canonical_json(report)
    numbers: dict[str, float | None] = {
        "current_accuracy": accuracy["accuracy"],
        "num_predictions": float(requests["answered"]),
        "num_truths": float(accuracy["truths"]),
        "p99_latency_ms": requests["latency_ms"]["p99"],
        "error_rate": requests["error_rate"],
    }
    run_id = log_report(context, f"performance-{day}", sha256_bytes(payload), numbers, {"day": day.isoformat(), "kind": "performance"})
    fired = [alert for alert in alerts if alert.fired]
    artifact = context.artifacts.publish(
        "performance_report",
        {"performance.json": payload},
        partition=day.isoformat(),
        info={**numbers, "alerts": [alert.name for alert in fired], "mlflow_run_id": run_id},
    )
    for alert in fired:
        raise_alert(context.artifacts.bytes, day, alert)
        context.log(f"{alert.severity}: {alert.message}")
    metadata: dict[str, Any] = {
        "current_accuracy": _shown(accuracy["accuracy"], f"no truth for {days[0]} to {day}"),
        "num_predictions": requests["answered"],
        "truths": accuracy["truths"],
        "p99_latency_ms": _shown(requests["latency_ms"]["p99"], "no requests"),
        "error_rate": _shown(requests["error_rate"], "no requests"),
        "alerts": Table([{"severity": a.severity, "alert": a.name, "fired": a.fired, "message": a.message} for a in alerts]),
        "packages": Table([_flat(row) for row in report["by_package"]]),
        "mlflow_run_id": run_id or "not logged",
        "accuracy_by_day": _plot_accuracy(report["by_day"], settings.critical_accuracy),
    }
    if len(today):
        metadata["latency"] = _plot_latency(today, settings.warning_p99_latency_ms)
    return StepResult(artifact, metadata)


def join_truth(predictions: "pd.DataFrame", truth: "pd.DataFrame") -> "pd.DataFrame":
    """Answered requests whose true label is known, with the columns label, received and right; of a repeated request its last answer."""
    last = answered(predictions).drop_duplicates("request_id", keep="last")
    joined = last.merge(truth[["request_id", "label", "received"]], on="request_id", how="inner")
    return joined.assign(right=joined["predicted_class"] == joined["label"])


def judge_alerts(
    context: StageContext,
    requests: Mapping[str, Any],
    accuracy: Mapping[str, Any],
    concept: Mapping[str, Any],
    drift: Mapping[str, Any] | None,
) -> list[Alert]:
    """Every alert of the day, fired or not, the exact thresholds (R176-R178) before their pre-alerts (D10) and the scores of R182."""
    settings, gates = context.settings.monitoring, context.settings.gates
    enough = accuracy["truths"] >= MIN_TRUTH
    value = accuracy["accuracy"] if enough else None
    truths = f"{accuracy['truths']} labelled predictions"
    note = f"{truths}, 95% interval {accuracy['low']:.3f}-{accuracy['high']:.3f}." if enough else f"{truths}; a verdict needs {MIN_TRUTH}."
    p99 = requests["latency_ms"]["p99"]
    timed = f"Over {requests['answered']} answered requests."
    share = drift["drift_share"] if drift else None
    drifted = "No drift_report of this day yet: materialize it first." if drift is None else f"drift_report: {drift['status']}."
    alerts = [
        judge("accuracy", "critical", value, "<", settings.critical_accuracy, note=note),
        judge("p99_latency", "warning", p99, ">", settings.warning_p99_latency_ms, unit=" ms", note=timed),
        judge("drift_score", "warning", share, ">", settings.warning_drift_score, note=drifted),
        judge("accuracy_low", "pre_alert", value, "<", settings.pre_alert_accuracy, note=note),
        judge("p99_latency_high", "pre_alert", p99, ">", settings.pre_alert_p99_latency_ms, unit=" ms", note=timed),
        judge("macro_f1", "warning", accuracy["macro_f1"] if enough else None, "<", gates.macro_f1, note=note),
        judge("roc_auc", "warning", accuracy["roc_auc"] if enough else None, "<", settings.warning_roc_auc, note=note),
        judge("concept_drift", "warning", concept["p_value"], "<", settings.significance, note=concept["detail"]),
    ]
    for name, score in accuracy["classes"].items():
        for kind, size in (("precision", score["predicted"]), ("recall", score["support"])):
            threshold = gates.precision_per_class if kind == "precision" else gates.recall_per_class
            told = f"{size} labelled predictions" + ("." if size >= MIN_TRUTH else f"; a verdict needs {MIN_TRUTH}.")
            alerts.append(judge(f"{kind}_{name}", "warning", score[kind] if size >= MIN_TRUTH else None, "<", threshold, note=told))
    if drift:
        alerts.append(_model_drift(drift))
    return alerts


def _model_drift(drift: Mapping[str, Any]) -> Alert:
    """One alert for predictions or features that moved in any served package; its value is the number that did."""
    moved = [
        f"{kind} drift of {digest[:12]}"
        for digest, p in drift["packages"].items()
        for kind in ("prediction", "feature")
        if p[kind]["detected"]
    ]
    unknown = all(p[kind]["detected"] is None for p in drift["packages"].values() for kind in ("prediction", "feature"))
    note = "Too few predictions." if unknown else "; ".join(moved) or "Nothing moved."
    return judge("model_drift", "warning", None if unknown else float(len(moved)), ">", 0, note=note)


def _requests(rows: "pd.DataFrame") -> dict[str, Any]:
    """Volume, errors and latency. `error_rate` counts answers from 500 up, `rejected_rate` those of 400-499, both of all requests."""
    count = len(rows)
    good = answered(rows)
    seconds = (rows["time"].max() - rows["time"].min()).total_seconds() if count > 1 else 0.0
    peak = int(rows["time"].dt.floor("min").value_counts().max()) if count else 0
    return {
        "requests": count,
        "answered": len(good),
        "error_rate": round(float((rows["status"] >= _SERVER_ERROR).mean()), 6) if count else None,
        "rejected_rate": round(float(((rows["status"] > _SUCCESS) & (rows["status"] < _SERVER_ERROR)).mean()), 6) if count else None,
        "throughput_rps": round(count / seconds, 4) if seconds > 0 else None,
        "peak_rps": round(peak / 60, 4),
        "latency_ms": latency(good),
    }


def latency(rows: "pd.DataFrame") -> dict[str, float | None]:
    """Percentiles and mean of latency, milliseconds; None without requests."""
    if not len(rows):
        return {"p50": None, "p95": None, "p99": None, "mean": None}
    values = rows["latency_ms"].to_numpy()
    p50, p95, p99 = (round(float(q), 3) for q in np.percentile(values, [50, 95, 99]))
    return {"p50": p50, "p95": p95, "p99": p99, "mean": round(float(values.mean()), 3)}


def _accuracy(known: "pd.DataFrame", classes: Sequence[str]) -> dict[str, Any]:
    """Scores over labelled predictions. A label outside the known classes is never right; it counts in accuracy, in no class."""
    score = _right(known)
    inside = known[known["label"].isin(classes) & known["predicted_class"].isin(classes)]
    found: dict[str, Any] = {
        **score,
        "unknown_labels": int((~known["label"].isin(classes)).sum()),
        "macro_f1": None,
        "roc_auc": None,
        "confidence_gap": round(float(known["confidence"].mean()) - score["accuracy"], 6) if len(known) else None,
        "classes": {},
    }
    if not len(inside):
        return found
    index = {name: i for i, name in enumerate(classes)}
    true, predicted = (np.array([index[name] for name in inside[column]], np.int64) for column in ("label", "predicted_class"))
    matrix = classification.confusion_matrix(true, predicted, len(classes))
    fits = [p is not None and len(p) == len(classes) for p in inside["probabilities"]]
    if all(fits):
        area = classification.macro_roc_auc(true, np.stack([np.asarray(p, np.float64) for p in inside["probabilities"]]))
        found["roc_auc"] = None if area is None else round(area, 6)
    found["macro_f1"] = round(classification.macro_f1(matrix), 6)
    found["classes"] = {
        name: {
            "precision": round(s.precision, 6),
            "recall": round(s.recall, 6),
            "f1": round(s.f1, 6),
            "support": s.support,
            "predicted": s.predicted,
        }
        for name, s in zip(classes, classification.class_scores(matrix), strict=True)
    }
    return found


def _right(known: "pd.DataFrame") -> dict[str, Any]:
    truths, correct = len(known), int(known["right"].sum())
    low, high = wilson_interval(correct, truths, CONFIDENCE)
    return {
        "truths": truths,
        "correct": correct,
        "accuracy": round(correct / truths, 6) if truths else None,
        "low": round(low, 6),
        "high": round(high, 6),
    }


def _slice(name: Mapping[str, str], rows: "pd.DataFrame", known: "pd.DataFrame") -> dict[str, Any]:
    requests = _requests(rows)
    return {
        **name,
        "requests": requests["requests"],
        "error_rate": requests["error_rate"],
        "latency_ms": requests["latency_ms"],
        **_right(known),
    }


def _slices(rows: "pd.DataFrame", known: "pd.DataFrame", column: str) -> list[dict[str, Any]]:
    values = sorted(rows[column].unique())
    return [_slice({column: str(value)}, rows[rows[column] == value], known[known[column] == value]) for value in values]


def _of_day(rows: "pd.DataFrame", day: date) -> "pd.DataFrame":
    chosen: pd.DataFrame = rows[rows["time"].dt.date == day]
    return chosen


def _concept_drift(context: StageContext, known: "pd.DataFrame") -> dict[str, Any]:
    """Whether the relation of input and label has changed (R175): is accuracy now below that on the test split beyond chance?

    Both accuracies are samples, so the test is Fisher's exact one-sided test on right and wrong answers; a binomial test would take the
    test split's accuracy for the truth. It judges the package with most labelled predictions.
    """
    found: dict[str, Any] = {"status": "too_few", "package": None, "test_accuracy": None, "accuracy": None, "p_value": None, "detail": ""}
    if len(known) < MIN_TRUTH:
        return found | {"detail": f"{len(known)} labelled predictions; a verdict needs {MIN_TRUTH}."}
    from scipy.stats import fisher_exact

    package = str(known["package"].value_counts().index[0])
    right = known[known["package"] == package]["right"]
    before = score_on_test(context.artifacts, package)
    if before is None:
        return found | {"status": "unavailable", "package": package, "detail": f"No evaluation_report of package {package[:12]}."}
    correct, truths = int(right.sum()), len(right)
    table = np.array([[correct, truths - correct], [before.correct, before.images - before.correct]])
    p_value = float(fisher_exact(table, alternative="less").pvalue)
    accuracy = correct / truths
    detail = f"accuracy {accuracy:.3f} on {truths} labelled predictions, {before.accuracy:.3f} on {before.images} test images (p-value)."
    return found | {
        "status": "measured",
        "package": package,
        "test_accuracy": round(before.accuracy, 6),
        "accuracy": round(accuracy, 6),
        "p_value": round(p_value, 6),
        "detail": detail,
    }


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in row.items() if not isinstance(value, Mapping)}
    flat["p99_ms"] = row["latency_ms"]["p99"]
    return {key: ("" if value is None else str(value)[:12] if key == "package" else value) for key, value in flat.items()}


def _shown(value: float | None, otherwise: str) -> float | str:
    return otherwise if value is None else value


def _plot_accuracy(by_day: Sequence[Mapping[str, Any]], critical: float) -> Picture:
    known = [row for row in by_day if row["accuracy"] is not None]

    def draw(axes: "Axes") -> None:
        days = [row["day"][5:] for row in known]
        values = [row["accuracy"] for row in known]
        errors = [[row["accuracy"] - row["low"] for row in known], [row["high"] - row["accuracy"] for row in known]]
        if known:
            axes.errorbar(days, values, yerr=errors, marker="o", capsize=3)
        axes.axhline(critical, linestyle="--", color="#e45756", label=f"critical {critical:g}")
        axes.set(ylim=(0, 1.02), ylabel="accuracy", title="Accuracy by day of prediction, 95% interval")
        axes.grid(alpha=0.3)
        axes.legend()

    return plot(draw)


def _plot_latency(rows: "pd.DataFrame", limit: float) -> Picture:
    values = np.maximum(rows["latency_ms"].to_numpy(), 0.01)

    def draw(axes: "Axes") -> None:
        axes.hist(values, bins=np.geomspace(values.min(), max(values.max(), values.min() * 1.1), 30).tolist(), color="#4c78a8")
        axes.axvline(limit, linestyle="--", color="#e45756", label=f"p99 limit {limit:g} ms")
        axes.set(xscale="log", xlabel="latency, ms", ylabel="requests", title="Latency of the day")
        axes.grid(alpha=0.3)
        axes.legend()

    return plot(draw)
