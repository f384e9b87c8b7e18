"""The gate's answers: what misses is named, what is stale is refused, and no sidecar changes a published answer."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline_project.contracts import GateVerdict
from pipeline_project.digests import canonical_json
from pipeline_project.evaluation import checks, gates
from pipeline_project.evaluation.load import LoadResult
from pipeline_project.evaluation.load_test import PeakMemory, measurements_of
from pipeline_project.evaluation.performance import rounded, score_predictions
from pipeline_project.evaluation.robustness import CORRUPTIONS
from pipeline_project.evaluation.slices import compare_slices
from pipeline_project.stage import StageContext
from pipeline_project.storage import ArtifactMissingError
from pipeline_project.trust.approvals import ApprovalRequiredError, record_approval
from pipeline_project.trust.signing import load_or_create_key

CLASSES = ["red", "green", "blue"]
GOOD_LOAD = {"p99_ms": 40.0, "throughput_rps": 300.0, "memory_mb": 400.0, "cost_per_prediction_usd": 1e-7, "errors": 0}


@pytest.fixture
def context(world, tmp_path: Path) -> StageContext:
    """A copy of the world's inputs, without reports, that a test may change."""
    shutil.copytree(world.context.settings.home, tmp_path / "home")
    for name in ("evaluation_report", "load_test_report", "release_gate", "approvals"):
        shutil.rmtree(tmp_path / "home" / "store" / "artifacts" / name, ignore_errors=True)
    return StageContext.open(world.context.settings.model_copy(update={"home": tmp_path / "home"}))


@functools.cache
def scores_of(rows: int, wrong: tuple[int, ...]):
    """The scores of `rows` answers, those in `wrong` wrong, and which answers are right; cached, for the bootstrap takes its time."""
    true = np.arange(rows) % 3
    predicted = true.copy()
    predicted[list(wrong)] = (predicted[list(wrong)] + 1) % 3
    return score_predictions(true, np.eye(3)[predicted] * 0.94 + 0.02, CLASSES, 0.95), predicted == true


def publish_reports(context, world, *, wrong=(), rows=300, regions=None, load=None, findings=(), package=None, corrupted=1.0):
    """An evaluation of `rows` answers, those in `wrong` wrong, and a load test."""
    scores, correct = scores_of(rows, tuple(wrong))
    package = package or world.package.digest
    columns = {"region": regions if regions is not None else ["north", "south"] * (rows // 2)}
    g = context.settings.gates
    compared = compare_slices(columns, correct, min_size=g.min_slice_size, max_gap=g.max_slice_gap, confidence=0.95)
    report = {
        "package": package,
        "dataset": world.dataset.digest,
        "confidence": 0.95,
        "performance": scores,
        "slices": compared,
        "missing_slice_columns": [],
        "robustness": {"corruptions": {name: {"relative": corrupted} for name in CORRUPTIONS}, "adversarial": {"accuracy": 0.5}},
        "explanations": {
            "valid": True,
            "deleted_share": 0.2,
            "images": 8,
            "mean_drop": 0.3,
            "mean_control_drop": 0.1,
            "p_value": 0.01,
        },
    }
    context.artifacts.publish("evaluation_report", {"evaluation.json": canonical_json(rounded(report))})
    context.artifacts.publish(
        "load_test_report",
        {"load_test.json": canonical_json({"package": package})},
        info={"package": package, "measurements": GOOD_LOAD | (load or {}), "findings": list(findings)},
    )


def answers(result) -> dict[str, bool]:
    return {gate["gate"]: gate["passed"] for gate in result.artifact.json("verdict.json")["gates"]}


def test_a_good_package_passes_all_five(context, world):
    publish_reports(context, world, wrong=[0, 100])
    result = gates.judge(context)
    assert answers(result) == dict.fromkeys(gates.GATES, True)
    assert gates.require_passed(context.artifacts, world.package.digest).passed
    assert all(outcome.passed for outcome in checks.check_release_gate(context))
    assert all(outcome.passed for outcome in [*checks.check_evaluation(context), *checks.check_load_test(context)])


def test_timings_do_not_change_the_digest_but_answers_do(context, world):
    publish_reports(context, world, load={"p99_ms": 40.0})
    first = gates.judge(context).artifact
    publish_reports(context, world, load={"p99_ms": 55.5})
    second = gates.judge(context).artifact
    assert first.digest == second.digest
    assert json.loads(second.sidecar("verdict_full.json"))["gates"][4]["measurements"][0]["value"] == 55.5
    publish_reports(context, world, load={"p99_ms": 900.0})
    assert gates.judge(context).artifact.digest != first.digest


@pytest.mark.parametrize(
    ("changes", "gate", "named"),
    [
        ({"wrong": range(60)}, gates.GATES[1], "accuracy = 0.8 misses >= 0.85"),
        ({"wrong": range(0, 120, 3)}, gates.GATES[1], "recall of red = 0.6 misses >= 0.8"),
        ({"corrupted": 0.5}, gates.GATES[1], "relative accuracy under blur = 0.5 misses >= 0.7"),
        ({"wrong": range(0, 90, 2)}, gates.GATES[2], "accuracy gap over region = 0.3 misses <= 0.1"),
        ({"rows": 30}, gates.GATES[2], "compared columns = 0 misses >= 1"),
        ({"load": {"p99_ms": 700.0}}, gates.GATES[4], "p99_latency_ms = 700 misses <= 500"),
        ({"load": {"errors": 3}}, gates.GATES[4], "errors = 3 misses <= 0"),
        (
            {"findings": [{"code": "hostile_input", "where": "empty body", "detail": "500; a 4xx answer was expected"}]},
            gates.GATES[3],
            "empty body",
        ),
    ],
)
def test_each_miss_fails_its_gate_and_is_named(context, world, changes, gate, named):
    publish_reports(context, world, **changes)
    result = gates.judge(context)
    assert not answers(result)[gate]
    with pytest.raises(ValueError, match="may not be released") as caught:
        gates.require_passed(context.artifacts, world.package.digest)
    assert f"{gate}: " in str(caught.value)
    assert named in str(caught.value)
    outcome = next(o for o in checks.check_release_gate(context) if o.name == gate)
    assert not outcome.passed
    assert named in outcome.detail


def test_the_lower_bound_decides_where_asked(context, world):
    publish_reports(context, world, wrong=range(0, 300, 8))  # 0.873, whose bound lies below 0.85
    accuracy = gates.judge(context) and _measurement(context, "accuracy")
    assert accuracy.passed
    assert accuracy.lower_bound < 0.85
    assert accuracy.needed > 300
    strict = context.settings.gates.model_copy(update={"mode": "lower_bound"})
    changed = StageContext.open(context.settings.model_copy(update={"gates": strict}))
    with pytest.raises(ApprovalRequiredError, match="mode from 'point' to 'lower_bound'") as caught:
        gates.judge(changed)
    key = load_or_create_key(changed.settings.home / "approver.pem", changed.settings.trusted_approvers)
    record_approval(changed.artifacts.bytes, key, caught.value.kind, caught.value.subject, approver="ada", reason="stricter")
    gates.judge(changed)
    assert not _measurement(changed, "accuracy").passed


@pytest.mark.parametrize(
    ("section", "values", "change"),
    [
        ("gates", {"accuracy": 0.5}, "gates.accuracy from 0.85 to 0.5"),
        ("evaluation", {"confidence": 0.6}, "evaluation.confidence from 0.95 to 0.6"),
        ("evaluation", {"vcpu_hour_usd": 1e-9}, "evaluation.vcpu_hour_usd from "),
        ("ingest", {"max_reject_rate": 1.0}, "ingest.max_reject_rate from 0.05 to 1.0"),
        ("data", {"slice_columns": []}, "data.slice_columns from "),
        ("data", {"text_columns": []}, "data.text_columns from "),
    ],
)
def test_what_decides_a_release_cannot_change_without_an_approval(context, world, section, values, change):
    publish_reports(context, world)
    before = gates.judge(context)
    assert before.metadata["accepted_settings"] == before.metadata["gate_settings"]
    assert before.metadata["accepted_by"] == "the first value, accepted without a person"
    part = getattr(context.settings, section).model_copy(update=values)
    changed = StageContext.open(context.settings.model_copy(update={section: part}))
    with pytest.raises(ApprovalRequiredError) as caught:
        gates.judge(changed)
    assert f"What decides a release changed: {change}" in str(caught.value)
    assert str(caught.value).count(" from ") == 1, "only what differs is named"
    key = load_or_create_key(changed.settings.home / "approver.pem", changed.settings.trusted_approvers)
    record_approval(changed.artifacts.bytes, key, caught.value.kind, caught.value.subject, approver="ada", reason="agreed")
    after = gates.judge(changed)
    assert after.metadata["gate_settings"] == caught.value.subject
    assert after.metadata["accepted_by"].startswith("ada on ")
    assert gates.judge(context).metadata["gate_settings"] == before.metadata["gate_settings"], "back again, without a further approval"


def test_the_verdict_names_the_digests_of_its_evidence(context, world):
    publish_reports(context, world)
    shown = gates.judge(context).metadata
    for name, asset in (("evaluation", "evaluation_report"), ("load_test", "load_test_report"), ("package", "model_package")):
        assert shown[name] == context.artifacts.latest(asset).digest


def _measurement(context, name):
    verdict = GateVerdict.model_validate(context.artifacts.latest("release_gate").json("verdict.json"))
    return next(m for gate in verdict.gates for m in gate.measurements if m.name == name)


def test_a_gap_that_chance_explains_is_noted(context, world):
    regions = ["north"] * 270 + ["south"] * 30
    publish_reports(context, world, regions=regions, wrong=[270, 271, 275, 279])
    result = gates.judge(context)
    gap = _measurement(context, "accuracy gap over region")
    assert gap.value > 0.1
    assert gap.passed == ("chance explains it" in gap.note)
    assert answers(result)["bias_fairness_tests_pass"] == gap.passed


def test_days_without_a_passing_verdict_fail_the_data_gate(context, world):
    publish_reports(context, world)
    verdict_file = next(Path(context.settings.store_root).glob("processed-data/validated_manifest/*/*/verdict.json"))
    verdict_file.unlink()
    shutil.rmtree(verdict_file.parent)
    result = gates.judge(context)
    assert not answers(result)["data_validation_passes"]
    with pytest.raises(ValueError, match="2026-11-05: no stored verdict"):
        gates.require_passed(context.artifacts, world.package.digest)


def test_reports_about_another_package_are_refused(context, world):
    publish_reports(context, world, package="f" * 64)
    with pytest.raises(ValueError, match="evaluation_report is about package ffffffffffff"):
        gates.judge(context)
    publish_reports(context, world)
    gates.judge(context)
    with pytest.raises(ValueError, match="not eeeeeeeeeeee"):
        gates.require_passed(context.artifacts, "e" * 64)


def test_missing_reports_and_verdicts_are_named(context, world):
    with pytest.raises(ArtifactMissingError, match="release_gate"):
        gates.require_passed(context.artifacts, world.package.digest)
    with pytest.raises(ArtifactMissingError, match="evaluation_report"):
        gates.judge(context)


def test_a_changed_sidecar_or_verdict_changes_no_answer(context, world):
    publish_reports(context, world, load={"p99_ms": 700.0})
    artifact = gates.judge(context).artifact
    forged = json.loads(artifact.sidecar("verdict_full.json"))
    forged["passed"] = True
    forged["gates"][4]["passed"] = True
    artifact.add_sidecar("verdict_full.json", json.dumps(forged).encode())
    with pytest.raises(ValueError, match="load_testing_successful: did not pass"):
        gates.require_passed(context.artifacts, world.package.digest)
    assert not next(o for o in checks.check_release_gate(context) if o.name == "load_testing_successful").passed
    payload = json.loads(artifact.read("verdict.json"))
    payload["passed"] = True
    artifact.store.write(f"{artifact.prefix}verdict.json", canonical_json(payload))
    with pytest.raises(ValueError, match="differ from those published"):
        gates.require_passed(context.artifacts, world.package.digest)


def test_cost_is_the_price_of_the_cores_over_throughput(world):
    load = LoadResult(1000, 0, 100.0, 1.0, 2.0, 3.0, [])
    production = world.context.settings.serving.production.model_copy(update={"cpu": 1.0})
    measured = measurements_of(load, 123.4, production, 0.05)
    assert measured["cost_per_prediction_usd"] == pytest.approx(0.05 / 3600 / 100, rel=1e-3)
    assert measured["memory_mb"] == 123.4


def test_peak_memory_is_the_highest_sample():
    samples = iter([5.0, 9.0, 7.0] + [1.0] * 100)
    with PeakMemory(lambda: next(samples)) as memory:
        memory._done.wait(0.7)
    assert memory.peak_mb == 9.0
