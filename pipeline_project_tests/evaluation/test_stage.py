"""The three steps over a real store, network, package and server, in the order of the graph."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline_project.contracts import GateVerdict
from pipeline_project.evaluation import checks, gates
from pipeline_project.evaluation.load_test import load_test_package
from pipeline_project.evaluation.report import evaluate_package
from pipeline_project.stage import Picture, Table
from pipeline_project.tables import parquet_to_frame
from pipeline_project_tests.recording import recorded

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def evaluated(world):
    return evaluate_package(world.context)


@pytest.fixture(scope="module")
def loaded(world):
    with recorded(world.context.settings) as recording:
        result = load_test_package(world.context)
    shown_only = {f"gates.{name}" for name in type(world.context.settings.gates).model_fields}
    where_and_how_to_start = {"data.source", "serving.host", "serving.production.port", "serving.production.url"}
    assert recording.undeclared("", load_test_package.settings) <= shown_only | where_and_how_to_start
    return result


def test_report_judges_the_package_on_the_test_split(world, evaluated):
    report = evaluated.artifact.json("evaluation.json")
    assert (report["package"], report["dataset"], report["images"]) == (world.package.digest, world.dataset.digest, 90)
    accuracy = report["performance"]["accuracy"]
    assert accuracy["value"] == pytest.approx(86 / 90, abs=1e-6)  # the wrong labels
    assert accuracy["low"] < accuracy["lower_bound"] < accuracy["value"] < accuracy["high"]
    assert np.sum(report["performance"]["confusion_matrix"]) == 90
    assert set(report["slices"]) >= {"region", "image brightness", "image contrast", "image border_brightness"}
    assert report["robustness"]["corruptions"]["jpeg"]["relative"] > 0.9
    assert 0 <= report["robustness"]["adversarial"]["accuracy"] <= report["robustness"]["adversarial"]["clean_accuracy"]
    assert report["explanations"]["valid"], report["explanations"]
    assert report["explanations"]["mean_drop"] > report["explanations"]["mean_control_drop"]
    predictions = parquet_to_frame(evaluated.artifact.read("predictions.parquet"))
    assert (predictions["label"] == predictions["predicted_class"]).mean() == pytest.approx(accuracy["value"], abs=1e-6)
    assert np.allclose(predictions.filter(like="probability.").sum(axis=1), 1, atol=1e-5)


def test_report_has_pictures_and_tables(evaluated):
    for name in ("confusion_matrix", "reliability", "explanations", "worst_mistakes"):
        picture = evaluated.metadata[name]
        assert isinstance(picture, Picture)
        assert 1000 < len(picture.data) < 120_000
        assert evaluated.artifact.sidecar(f"{name}.{picture.media_type.split('/')[1]}") == picture.data
    assert isinstance(evaluated.metadata["classes"], Table)
    assert len(evaluated.metadata["classes"].rows) == 3
    assert len(evaluated.metadata["slices"].rows) > 8


def test_report_is_the_same_the_second_time(world, evaluated):
    anew = replace(world.context, recompute=True)
    result = evaluate_package(anew)
    assert not result.metadata["reused"]
    assert result.artifact.digest == evaluated.artifact.digest


def test_server_under_load_meets_its_thresholds_and_withstands_hostile_input(world, loaded):
    protocol, info = loaded.artifact.json("load_test.json"), loaded.artifact.info
    assert protocol["package"] == world.package.digest
    assert info["findings"] == []
    measured = info["measurements"]
    assert json.loads(loaded.artifact.sidecar("measurements.json")) == measured
    assert measured["requests"] > 20
    assert 0 < measured["p50_ms"] <= measured["p95_ms"] <= measured["p99_ms"]
    assert measured["memory_mb"] > 50
    assert measured["cost_per_prediction_usd"] == pytest.approx(0.05 * measured["cores"] / 3600 / measured["throughput_rps"], rel=1e-3)
    assert not any(key in json.dumps(protocol) for key in ("p99", "throughput"))
    outcomes = {outcome.name: outcome for outcome in checks.check_load_test(world.context)}
    assert set(outcomes) == set(checks.LOAD_TEST_CHECKS)
    assert outcomes["errors"].passed
    assert outcomes["hostile_input"].passed


def test_load_predictions_do_not_reach_the_prediction_log(world, loaded):
    stored = {key.split("/")[1] for key in world.context.artifacts.bytes.list("")}
    assert stored <= {*("validated_manifest", "image_shard", "image_pack", "image_features", "dataset_splits", "trained_model")} | {
        *("model_package", "evaluation_report", "load_test_report", "release_gate", "approvals", "made")
    }


def test_gate_binds_its_verdict_and_checks_report_it(world, evaluated, loaded):
    result = gates.judge(world.context)
    verdict = GateVerdict.model_validate(result.artifact.json("verdict.json"))
    assert verdict.package == world.package.digest
    assert verdict.evaluation == evaluated.artifact.digest
    assert verdict.load_test == loaded.artifact.digest
    assert [gate.gate for gate in verdict.gates] == list(gates.GATES)
    assert verdict.gates[4].measurements == []
    full = gates.full_verdict(result.artifact)
    assert len(full.gates[4].measurements) == 5
    assert {gate.gate: gate.passed for gate in full.gates} | {"load_testing_successful": True} == dict.fromkeys(gates.GATES, True)
    days = full.gates[0].measurements[1]
    assert "2026-11-06" in (days.note or "")
    outcomes = checks.check_release_gate(world.context)
    assert [outcome.name for outcome in outcomes] == list(gates.GATES)
    assert {outcome.name for outcome in checks.check_evaluation(world.context)} == set(checks.EVALUATION_CHECKS)
    if verdict.passed:
        assert gates.require_passed(world.context.artifacts, world.package.digest) == verdict
