"""Champion against challenger (R157-R160): split, accuracy, latency and business value, with a test that allows looking at any time."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date
from typing import TYPE_CHECKING, Any

from pipeline_project.contracts import DesiredState, Route
from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.monitoring.performance import CONFIDENCE, join_truth, latency
from pipeline_project.monitoring.predictions import answered, read_predictions, read_truth
from pipeline_project.monitoring.sequential import block_sizes, compare_proportions
from pipeline_project.monitoring.tracking import log_report
from pipeline_project.plots import bars
from pipeline_project.serving.documents import history
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.statistics.intervals import wilson_interval

if TYPE_CHECKING:
    import pandas as pd

CONFIDENT = 0.5
"""A prediction at least this confident is used without a person; so it is worth 1 when it is also right, else 0 (business metric)."""

_CHAMPION, _CHALLENGER = "champion", "challenger"


def report_ab(context: StageContext) -> StepResult:
    """Compare the champion with the newest challenger over all requests since the document that introduced it (asset ab_report).

    Payload: ab.json
        {status: running | ended | no_challenger, since_document, champion, challenger, routes: {name: {requests, answered,
        error_rate, latency_ms, truths, correct, accuracy, low, high, auto_categorised_correctly}}, split: {weights, observed, p_value, ok},
        tests: {accuracy, auto_categorised_correctly: {difference, p_value, evidence, used}}, decision, detail}.
        The tests' p-values are valid at every look; `low` and `high` are fixed-sample 95% intervals. The split's test is an ordinary one.

    Raises:
        ValueError: production serves nothing yet.
    """
    documents = history(context.artifacts.bytes, "production")
    if not documents:
        raise ValueError("Production has no document yet, so there is nothing to compare. Materialize deployed_endpoint first.")
    report, rows = _report(context, documents)
    payload = canonical_json(report)
    routes = report["routes"]
    numbers = {
        f"{name}_{metric}": value
        for name, route in routes.items()
        for metric, value in (
            ("accuracy", route["accuracy"]),
            ("p99_latency_ms", route["latency_ms"]["p99"]),
            ("auto_categorised_correctly", route["auto_categorised_correctly"]),
            ("requests", float(route["requests"])),
        )
    }
    numbers |= {f"{metric}_p_value": test["p_value"] for metric, test in report["tests"].items()}
    name = f"ab-{(report['challenger'] or 'none')[:12]}"
    run_id = log_report(context, name, sha256_bytes(payload), numbers, {"kind": "ab", "decision": report["decision"]})
    artifact = context.artifacts.publish(
        "ab_report",
        {"ab.json": payload},
        info={"status": report["status"], "decision": report["decision"], "challenger": report["challenger"], "mlflow_run_id": run_id},
    )
    metadata: dict[str, Any] = {
        "status": report["status"],
        "decision": report["decision"],
        "detail": report["detail"],
        "routes": Table([_flat(route_name, route) for route_name, route in routes.items()]),
        "requests": len(rows),
        "mlflow_run_id": run_id or "not logged",
    }
    accuracies = {route_name: route["accuracy"] for route_name, route in routes.items() if route["accuracy"] is not None}
    if accuracies:
        metadata["accuracy"] = bars(accuracies, title="Accuracy with the truth known so far", y_label="accuracy")
    return StepResult(artifact, metadata)


def find_experiment(documents: Sequence[DesiredState]) -> tuple[list[DesiredState], bool]:
    """The documents of the newest experiment, and whether it still runs.

    An experiment is an unbroken run of documents with a challenger, whose champion and challenger stay the same packages. Without one
    the list is empty.
    """
    last = next((i for i in reversed(range(len(documents))) if _packages(documents[i])), None)
    if last is None:
        return [], False
    first = last
    while first > 0 and _packages(documents[first - 1]) == _packages(documents[last]):
        first -= 1
    return list(documents[first : last + 1]), last == len(documents) - 1


def _report(context: StageContext, documents: Sequence[DesiredState]) -> tuple[dict[str, Any], "pd.DataFrame"]:
    experiment, running = find_experiment(documents)
    days = [date.fromisoformat(day) for day in context.artifacts.partitions("prediction_log")]
    report: dict[str, Any] = {
        "status": "running" if running else "ended",
        "since_document": None,
        "champion": None,
        "challenger": None,
        "routes": {},
        "split": None,
        "tests": {},
        "decision": "none",
        "detail": "",
    }
    chosen = experiment or list(documents[-1:])
    since = min((d.created.astimezone(UTC).date() for d in chosen), default=None)
    rows = read_predictions(context.artifacts, [day for day in days if since and day >= since], "production")
    rows = rows[rows["document"].isin([d.number for d in chosen])]
    known = join_truth(rows, read_truth(context.artifacts, since or date.min))
    champion = _route(chosen[-1], _CHAMPION)
    report |= {"since_document": chosen[0].number, "champion": champion.package if champion else None}
    if not experiment:
        detail = "No challenger is or was routed. Deploy one with a weight to start an experiment."
        routes = {_CHAMPION: _measure(rows, known, _CHAMPION)}
        return report | {"status": "no_challenger", "routes": routes, "detail": detail}, rows
    challenger = _route(chosen[-1], _CHALLENGER)
    report |= {"challenger": challenger.package if challenger else None}
    report["routes"] = {name: _measure(rows, known, name) for name in (_CHAMPION, _CHALLENGER)}
    report["split"] = _split(experiment, rows, context.settings.monitoring.significance)
    report["tests"] = _tests(experiment, known)
    return report | _decide(report, context.settings.monitoring.significance), rows


def _measure(rows: "pd.DataFrame", known: "pd.DataFrame", name: str) -> dict[str, Any]:
    """One route's numbers. Shares are 0-1, latencies milliseconds; without truth the scores are None."""
    mine, labelled = rows[rows["route"] == name], known[known["route"] == name]
    truths, correct = len(labelled), int(labelled["right"].sum())
    low, high = wilson_interval(correct, truths, CONFIDENCE)
    valuable = int(_auto_categorised_correctly(labelled).sum())
    return {
        "requests": len(mine),
        "answered": len(answered(mine)),
        "error_rate": round(float((mine["status"] >= 500).mean()), 6) if len(mine) else None,
        "latency_ms": latency(answered(mine)),
        "truths": truths,
        "correct": correct,
        "accuracy": round(correct / truths, 6) if truths else None,
        "low": round(low, 6),
        "high": round(high, 6),
        "auto_categorised_correctly": round(valuable / truths, 6) if truths else None,
    }


def _auto_categorised_correctly(labelled: "pd.DataFrame") -> "pd.Series[bool]":
    return labelled["right"] & (labelled["confidence"] >= CONFIDENT)


def _split(experiment: Sequence[DesiredState], rows: "pd.DataFrame", significance: float) -> dict[str, Any]:
    """Observed against configured shares, over distinct request ids: a repeated id takes the same route and says nothing new.

    Where the weights changed during the experiment each weight is tested on its own, and the smallest p-value counts with their number
    (Bonferroni).
    """
    from scipy.stats import binomtest

    two = rows[rows["route"].isin([_CHAMPION, _CHALLENGER])].drop_duplicates(["document", "request_id"])
    groups: dict[float, list[int]] = {}
    for document in experiment:
        weight = _share(document)
        served = two[two["document"] == document.number]["route"]
        counts = groups.setdefault(round(weight, 6), [0, 0])
        counts[0] += int((served == _CHALLENGER).sum())
        counts[1] += len(served)
    tested = [(weight, k, n) for weight, (k, n) in sorted(groups.items()) if n]
    p_values = [float(binomtest(k, n, weight).pvalue) for weight, k, n in tested]
    p_value = min(1.0, min(p_values) * len(p_values)) if p_values else None
    return {
        "weights": [{"challenger_weight": weight, "challenger": k, "requests": n, "observed": round(k / n, 6)} for weight, k, n in tested],
        "p_value": None if p_value is None else round(p_value, 6),
        "ok": p_value is None or p_value >= significance,
    }


def _tests(experiment: Sequence[DesiredState], known: "pd.DataFrame") -> dict[str, Any]:
    """Always-valid tests of challenger against champion; outcomes in the order in which their labels came, so a later look only adds."""
    weights = [(1 - _share(d), _share(d)) for d in experiment if 0 < _share(d) < 1]
    block = block_sizes(*weights[0]) if weights else (1, 1)
    ordered = known.sort_values(["received", "request_id"], kind="stable")
    found: dict[str, Any] = {}
    for name in ("accuracy", "auto_categorised_correctly"):
        good = ordered["right"] if name == "accuracy" else _auto_categorised_correctly(ordered)
        first, second = ([bool(v) for v in good[ordered["route"] == route]] for route in (_CHAMPION, _CHALLENGER))
        outcome = compare_proportions(first, second, block=block)
        both = bool(first) and bool(second)
        found[name] = {
            "difference": round(sum(second) / len(second) - sum(first) / len(first), 6) if both else None,
            "p_value": float(f"{outcome.p_value:.6g}"),
            "evidence": float(f"{outcome.evidence:.6g}"),
            "block": list(block),
            "used": list(outcome.used),
        }
    return found


def _decide(report: Mapping[str, Any], significance: float) -> dict[str, str]:
    """The decision that the numbers allow; people or a schedule act on it."""
    split, accuracy = report["split"], report["tests"]["accuracy"]
    if not split["ok"]:
        detail = f"The observed split does not fit the weights (p = {split['p_value']:g}): look at the router before believing the rest."
        return {"decision": "invalid_split", "detail": detail}
    if accuracy["difference"] is None:
        return {"decision": "keep_running", "detail": "No truth for one of the routes yet."}
    numbers = f"accuracy differs by {accuracy['difference']:+.3f} (always-valid p = {accuracy['p_value']:.3g}, level {significance:g})"
    if accuracy["p_value"] >= significance:
        return {"decision": "keep_running", "detail": f"Not decided: {numbers}."}
    winner = _CHALLENGER if accuracy["difference"] > 0 else _CHAMPION
    return {"decision": f"{winner}_wins", "detail": f"The {winner} is better: {numbers}."}


def _packages(document: DesiredState) -> tuple[str, str] | None:
    """The two packages of a document with both routes, else None."""
    champion, challenger = _route(document, _CHAMPION), _route(document, _CHALLENGER)
    return (champion.package, challenger.package) if champion and challenger else None


def _route(document: DesiredState, name: str) -> Route | None:
    return next((route for route in document.routes if route.name == name), None)


def _share(document: DesiredState) -> float:
    """The challenger's share of the traffic of champion and challenger together."""
    champion, challenger = _route(document, _CHAMPION), _route(document, _CHALLENGER)
    weights = (champion.weight if champion else 0.0, challenger.weight if challenger else 0.0)
    return weights[1] / sum(weights) if sum(weights) else 0.0


def _flat(name: str, route: Mapping[str, Any]) -> dict[str, Any]:
    flat = {"route": name, **{key: value for key, value in route.items() if not isinstance(value, Mapping)}}
    flat |= {f"{key}_ms": value for key, value in route["latency_ms"].items()}
    return {key: "" if value is None else value for key, value in flat.items()}
