import base64
import io
from datetime import date

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.monitoring.alerts import list_alerts
from pipeline_project.monitoring.checks import check_drift_report
from pipeline_project.monitoring.data_drift import judge_data_drift, noise_thresholds
from pipeline_project.monitoring.drift import report_drift
from pipeline_project.monitoring.predictions import compact_predictions
from pipeline_project.storage import ArtifactMissingError
from pipeline_project_tests.recording import recorded

DAY = date(2026, 11, 20)


def like_images(random: np.random.Generator, count: int) -> pd.DataFrame:
    common = random.beta(3, 3, size=(count, 1))
    return pd.DataFrame(common * 0.6 + random.beta(2, 2, size=(count, len(FEATURE_NAMES))) * 0.4, columns=FEATURE_NAMES)


def evidently_psi(reference: np.ndarray, current: np.ndarray) -> float:
    """What Evidently 0.7 computes; a test below compares it with Evidently itself."""
    edges = np.histogram_bin_edges(np.concatenate([reference, current]), bins="sturges")
    p, q = (np.histogram(side, edges)[0] / len(side) for side in (reference, current))
    p, q = (np.where(share == 0, 1e-4, share) for share in (p, q))
    return float(((p - q) * np.log(p / q)).sum())


@pytest.mark.parametrize(("rows", "days"), [(130, 30), (400, 12)])
def test_days_from_the_same_distribution_are_rarely_called_drifted(rows, days):
    alarms = plain = 0
    for seed in range(days):
        random = np.random.default_rng(seed)
        reference, current = like_images(random, 800), like_images(random, rows)
        low, high = reference.quantile(0.005), reference.quantile(0.995)
        a, b = reference.clip(low, high, axis=1), current.clip(low, high, axis=1)
        thresholds = noise_thresholds(a, rows, threshold=0.1, drift_share=0.1, significance=0.01, seed=seed)
        psi = {name: evidently_psi(a[name].to_numpy(), b[name].to_numpy()) for name in FEATURE_NAMES}
        alarms += sum(psi[name] >= thresholds[name] for name in FEATURE_NAMES) >= 2
        plain += sum(value >= 0.1 for value in psi.values()) >= 2
    assert alarms <= 1, f"{alarms} of {days} at a significance of 0.01"
    if rows == 130:
        assert plain > 15  # why the thresholds depend on the size of the day


def test_a_large_day_is_held_against_the_threshold_itself():
    reference = like_images(np.random.default_rng(0), 5000)
    thresholds = noise_thresholds(reference, 5000, threshold=0.1, drift_share=0.1, significance=0.01, seed=0)
    assert set(thresholds.values()) == {0.1}


def test_an_empty_day_and_a_tiny_day_say_too_few(world):
    compact_predictions(world.context, DAY)
    empty = report_drift(world.context, DAY)
    assert empty.artifact.json("drift.json")["status"] == "too_few" and empty.metadata["drift_share"] == "no verdict"
    world.write(world.records(world.publish_package(), 20, shift=0.3))
    compact_predictions(world.context, DAY)
    report = report_drift(world.context, DAY).artifact.json("drift.json")
    assert report["data_drift_detected"] is None and report["predictions"] == 20
    assert [part["prediction"]["status"] for part in report["packages"].values()] == ["too_few"]
    assert all(outcome.passed for outcome in check_drift_report(world.context, DAY))


def test_a_day_without_a_prediction_log_is_refused_and_one_without_requests_is_empty(world):
    with pytest.raises(ArtifactMissingError, match=f"Materialize prediction_log of {DAY} first"):
        report_drift(world.context, DAY)
    compact_predictions(world.context, DAY)
    assert report_drift(world.context, DAY).artifact.json("drift.json")["predictions"] == 0


def test_every_setting_that_the_report_reads_is_in_its_recipe(world):
    world.write(world.records("d" * 64, 200))
    compact_predictions(world.context, DAY)
    with recorded(world.context.settings) as recording:
        report_drift(world.context, DAY)
    assert "monitoring.min_predictions" in recording.settings[""]
    assert recording.undeclared("", report_drift.settings) == set()


def test_an_unreadable_package_makes_the_check_fail_not_the_report(world):
    world.write(world.records("d" * 64, 200))
    compact_predictions(world.context, DAY)
    report = report_drift(world.context, DAY).artifact.json("drift.json")
    assert report["data"]["status"] == "unavailable"
    assert not any(outcome.passed for outcome in check_drift_report(world.context, DAY))
    assert {alert.name for _, alert in list_alerts(world.context.artifacts.bytes, DAY)} == {
        "storage_fault_drift_data",
        "storage_fault_package_dddddddddddd",
    }


def test_brightness_that_shifts_is_drift_and_the_same_distribution_is_not(world):
    package = world.publish_package()
    thumbnail = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(thumbnail, "JPEG")
    records = world.records(package, 150, thumbnail=base64.b64encode(thumbnail.getvalue()).decode())
    world.write(records)
    compact_predictions(world.context, DAY)
    same = report_drift(world.context, DAY)
    report = same.artifact.json("drift.json")
    assert report["status"] == "measured" and report["data_drift_detected"] is False and report["drift_share"] == 0
    part = report["packages"][package]
    assert part["prediction"]["detected"] is False and part["feature"]["detected"] is False
    assert all(outcome.passed for outcome in check_drift_report(world.context, DAY))
    assert same.artifact.sidecar("evidently.html").lstrip().startswith(b"<") and str(same.metadata["evidently_report"]).endswith(
        "evidently.html"
    )
    assert same.metadata["what_moved"].media_type == "image/jpeg"
    assert same.artifact.info["mlflow_run_id"] == "" and "not in MLflow" in world.log[-1]
    assert report_drift(world.context, DAY).artifact.digest == same.artifact.digest

    moved = [
        r.model_copy(update={"predicted_class": "toys" if i % 2 else r.predicted_class})
        for i, r in enumerate(world.records(package, 150, seed=1, shift=0.2, worker="b"))
    ]
    later = date(2026, 11, 21)
    world.write(moved, day=later)
    compact_predictions(world.context, later)
    report = report_drift(world.context, later).artifact.json("drift.json")
    assert report["data_drift_detected"] is True and report["data"]["columns"]["brightness"]["drifted"]
    assert report["data"]["columns"]["aspect"]["drifted"] is False
    part = report["packages"][package]
    assert part["prediction"]["detected"] and part["prediction"]["kl"] > 0.05 and part["feature"]["detected"]
    names = {outcome.name: outcome.passed for outcome in check_drift_report(world.context, later)}
    assert names == {"data_drift": False, "prediction_drift": False, "feature_drift": False}


def test_evidently_computes_psi_as_the_false_alarm_test_does_and_constant_features_are_judged():
    random = np.random.default_rng(5)
    reference, current = like_images(random, 700), like_images(random, 200)
    drift = judge_data_drift(reference, current, threshold=0.1, drift_share=0.1, significance=0.01, seed=0)
    low, high = reference.quantile(0.005), reference.quantile(0.995)
    for name in FEATURE_NAMES:
        a, b = (side[name].clip(low[name], high[name]).to_numpy() for side in (reference, current))
        assert drift.columns[name].psi == pytest.approx(evidently_psi(a, b), abs=1e-3)
    reference["aspect"], current["red"] = 0.0, 0.5
    drift = judge_data_drift(reference, current, threshold=0.1, drift_share=0.1, significance=0.01, seed=0)
    assert drift.detected and {name for name, column in drift.columns.items() if column.drifted} == {"aspect", "red"}
