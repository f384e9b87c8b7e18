"""Checks of the evaluation assets: over what was published, so each can be run alone."""

from collections.abc import Sequence
from typing import Any

from pipeline_project.contracts import Measurement
from pipeline_project.evaluation.gates import (
    GATES,
    fairness_measurements,
    full_verdict,
    performance_measurements,
    robustness_measurements,
)
from pipeline_project.evaluation.load_test import threshold_measurements
from pipeline_project.evaluation.slices import slice_rows
from pipeline_project.stage import CheckOutcome, StageContext, Table

EVALUATION_CHECKS = ("performance", "slices", "robustness", "explanations", "calibration")
LOAD_TEST_CHECKS = ("latency", "throughput", "memory", "cost", "errors", "hostile_input")
GATE_CHECKS = GATES
_CALIBRATION = "expected_calibration_error"


def check_evaluation(context: StageContext) -> list[CheckOutcome]:
    """performance, slices, robustness, explanations and calibration of the newest evaluation_report."""
    report = context.artifacts.latest("evaluation_report").json("evaluation.json")
    gates = context.settings.gates
    robustness = robustness_measurements(report, gates)
    scores = [m for m in performance_measurements(report, gates) if m not in robustness]
    return [
        _outcome("performance", [m for m in scores if m.name != _CALIBRATION]),
        _outcome("slices", fairness_measurements(report, gates), {"slices": Table(slice_rows(report["slices"]))}),
        _outcome("robustness", robustness, {"adversarial": report["robustness"]["adversarial"]}),
        _explanations(report["explanations"]),
        _outcome("calibration", [m for m in scores if m.name == _CALIBRATION]),
    ]


def check_load_test(context: StageContext) -> list[CheckOutcome]:
    """latency, throughput, memory, cost, errors and hostile_input of the newest load_test_report."""
    info = context.artifacts.latest("load_test_report").info
    held = threshold_measurements(info["measurements"], context.settings.gates)
    outcomes = [_outcome(name, [measurement]) for name, measurement in zip(LOAD_TEST_CHECKS, held, strict=False)]
    findings = info["findings"]
    detail = "; ".join(f"{f['where']}: {f['detail']}" for f in findings) or "every hostile request was answered with 4xx"
    return [*outcomes, CheckOutcome("hostile_input", not findings, f"{detail}.", {"findings": findings})]


def check_release_gate(context: StageContext) -> list[CheckOutcome]:
    """One outcome for each of the five quality gates of the newest release_gate."""
    verdict = full_verdict(context.artifacts.latest("release_gate"))
    by_name = {gate.gate: gate for gate in verdict.gates}
    outcomes = []
    for name in GATES:
        gate = by_name.get(name)
        if gate is None:
            outcomes.append(CheckOutcome(name, False, "The verdict lacks this gate. Materialize release_gate again."))
            continue
        outcome = _outcome(name, gate.measurements, {"evidence": gate.evidence})
        # The published answer counts, also where its numbers are gone.
        outcomes.append(CheckOutcome(name, gate.passed, outcome.detail, outcome.metadata))
    return outcomes


def _explanations(report: dict[str, Any]) -> CheckOutcome:
    detail = (
        f"Painting over the hottest {report['deleted_share']:.0%} of {report['images']} images lowers the answer's probability by "
        f"{report['mean_drop']:.3f}, the same shape elsewhere by {report['mean_control_drop']:.3f} (one-sided p = {report['p_value']:.2g})."
    )
    if not report["valid"]:
        detail += " The explanations do not show what the model looks at: do not rely on them."
    numbers = {key: report[key] for key in ("mean_drop", "mean_control_drop", "p_value", "images")}
    return CheckOutcome("explanations", report["valid"], detail, numbers)


def _outcome(name: str, measurements: Sequence[Measurement], metadata: dict[str, Any] | None = None) -> CheckOutcome:
    misses = [str(m) for m in measurements if not m.passed]
    detail = "; ".join(misses) if misses else f"{len(measurements)} of {len(measurements)} measurements meet their thresholds"
    if len(measurements) == 1 and not misses:
        detail = str(measurements[0])
    rows = [m.model_dump(exclude_none=True) for m in measurements]
    return CheckOutcome(name, not misses, f"{detail}.", {"measurements": Table(_same_keys(rows)), **(metadata or {})})


def _same_keys(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key, "") for key in keys} for row in rows]
