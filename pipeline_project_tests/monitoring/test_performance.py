from datetime import date, timedelta

import pytest

from pipeline_project.digests import canonical_json
from pipeline_project.monitoring.alerts import list_alerts
from pipeline_project.monitoring.checks import check_performance_report
from pipeline_project.monitoring.performance import report_performance
from pipeline_project.monitoring.predictions import collect_truth, compact_predictions
from pipeline_project.storage import ArtifactMissingError

DAY = date(2026, 11, 20)
PACKAGE = "a" * 64


def evaluate(world, accuracy: float, images: int) -> None:
    report = {"images": images, "performance": {"accuracy": {"value": accuracy, "size": images}}}
    world.context.artifacts.publish("evaluation_report", {"evaluation.json": canonical_json(report)}, info={"package": PACKAGE})


def fired(report):
    return {alert["name"] for alert in report["alerts"] if alert["fired"]}


def test_a_day_whose_log_was_not_made_is_refused(world):
    with pytest.raises(ArtifactMissingError, match=f"Materialize prediction_log of {DAY} first"):
        report_performance(world.context, DAY)


def test_an_empty_day_has_no_verdict_and_no_alert(world):
    compact_predictions(world.context, DAY)
    collect_truth(world.context, DAY)
    result = report_performance(world.context, DAY)
    report = result.artifact.json("performance.json")
    assert report["accuracy"]["accuracy"] is None and report["requests"]["requests"] == 0 and fired(report) == set()
    assert all(outcome.passed for outcome in check_performance_report(world.context, DAY))
    assert list_alerts(world.context.artifacts.bytes) == []


def test_good_days_are_quiet_and_numbers_are_right(world):
    evaluate(world, 0.96, 150)
    records = world.records(PACKAGE, 200)
    world.write(records)
    world.write_truth(world.truth_of(records, lambda i: i % 25 != 0))
    compact_predictions(world.context, DAY)
    collect_truth(world.context, DAY)
    result = report_performance(world.context, DAY)
    report = result.artifact.json("performance.json")
    assert report["accuracy"]["accuracy"] == 0.96 and report["accuracy"]["truths"] == 200
    assert report["concept_drift"]["status"] == "measured" and report["requests"]["error_rate"] == 0
    assert report["requests"]["throughput_rps"] == round(200 / 199, 4)
    assert fired(report) == set(), report["alerts"]
    assert report["by_package"][0]["package"] == PACKAGE and report["by_route"][0]["accuracy"] == 0.96
    assert report_performance(world.context, DAY).artifact.digest == result.artifact.digest


def test_low_accuracy_is_critical_slow_answers_warn_and_concept_drift_is_seen(world):
    evaluate(world, 0.92, 150)
    records = [r.model_copy(update={"latency_ms": 1500.0 if r.sequence % 20 == 0 else 30.0}) for r in world.records(PACKAGE, 200)]
    world.write(records)
    world.write_truth(world.truth_of(records, lambda i: i % 4 != 0))
    compact_predictions(world.context, DAY)
    collect_truth(world.context, DAY)
    report = report_performance(world.context, DAY).artifact.json("performance.json")
    assert {"accuracy", "accuracy_low", "p99_latency", "p99_latency_high", "concept_drift", "macro_f1"} <= fired(report)
    kept = list_alerts(world.context.artifacts.bytes, DAY)
    assert {alert.name for _, alert in kept} == fired(report) and {a.severity for _, a in kept} == {"critical", "warning", "pre_alert"}
    report_performance(world.context, DAY)
    assert len(list_alerts(world.context.artifacts.bytes, DAY)) == len(kept)
    outcomes = {outcome.name: outcome.passed for outcome in check_performance_report(world.context, DAY)}
    assert outcomes == {"accuracy": False, "latency": False, "drift": True}


def test_late_truth_changes_the_report_of_the_day_it_belongs_to(world):
    before = DAY - timedelta(days=3)
    records = world.records(PACKAGE, 60, day=before)
    world.write(records, day=before)
    for at in (before, DAY):
        compact_predictions(world.context, at)
        collect_truth(world.context, at)
    assert report_performance(world.context, DAY).artifact.json("performance.json")["accuracy"]["truths"] == 0
    later = DAY + timedelta(days=1)
    world.write_truth(world.truth_of(records, lambda i: True), day=later)
    collect_truth(world.context, later)
    report = report_performance(world.context, DAY).artifact.json("performance.json")
    assert report["accuracy"]["truths"] == 60 and report["accuracy"]["accuracy"] == 1
    assert next(row for row in report["by_day"] if row["day"] == before.isoformat())["truths"] == 60


def test_few_truths_give_no_verdict(world):
    records = world.records(PACKAGE, 50)
    world.write(records)
    world.write_truth(world.truth_of(records, lambda i: False)[:10])
    compact_predictions(world.context, DAY)
    collect_truth(world.context, DAY)
    report = report_performance(world.context, DAY).artifact.json("performance.json")
    assert report["accuracy"]["accuracy"] == 0 and "accuracy" not in fired(report)


def test_errors_are_counted_and_drift_is_taken_from_its_report(world):
    good = world.records(PACKAGE, 90)
    none = {"predicted_class": None, "confidence": None, "probabilities": None, "measurements": None, "features": None}
    world.write([*good, *world.records(PACKAGE, 6, status=500, **none), *world.records(PACKAGE, 4, status=422, **none)])
    compact_predictions(world.context, DAY)
    collect_truth(world.context, DAY)
    drift = {"drift_share": 0.25, "status": "measured", "packages": {}}
    world.context.artifacts.publish("drift_report", {"drift.json": canonical_json(drift)}, partition=DAY.isoformat())
    report = report_performance(world.context, DAY).artifact.json("performance.json")
    assert report["requests"]["error_rate"] == 0.06 and report["requests"]["rejected_rate"] == 0.04
    assert "drift_score" in fired(report)
