"""release_gate: the five quality gates (R197) over the newest package, each with its numbers, thresholds and evidence.

The verdict's payload holds what is deterministic; measured timings stand in the sidecar `verdict_full.json`, so that a second run on a
busier machine gives the same digest unless a gate's answer changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline_project.contracts import DatasetVersion, DayVerdict, GateResult, GateVerdict, Measurement
from pipeline_project.digests import canonical_json
from pipeline_project.evaluation.load_test import threshold_measurements
from pipeline_project.evaluation.security_scan import Finding, scan_package
from pipeline_project.settings import Settings
from pipeline_project.settings.tree import GateSettings
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.statistics.intervals import needed_by_scaling, needed_trials
from pipeline_project.storage import Artifact, ArtifactMissingError, ArtifactStore
from pipeline_project.trust.approvals import require_unchanged

NAME = "release_gate"
GATES = (
    "data_validation_passes",
    "model_performance_meets_threshold",
    "bias_fairness_tests_pass",
    "security_scans_clear",
    "load_testing_successful",
)
_TIMED_GATE = GATES[4]
_SHOWN_FINDINGS = 3


@dataclass(frozen=True)
class Evidence:
    """The artefacts that a verdict is made of: all about one package."""

    package: Artifact
    evaluation: Artifact
    load_test: Artifact


def judge(context: StageContext) -> StepResult:
    """Decide whether the newest package may be released.

    Payload: verdict.json (`GateVerdict`, the load test's numbers left out). Sidecar: verdict_full.json (`GateVerdict` with all of them).

    Raises:
        ApprovalRequiredError: the gate settings differ from those accepted before, and nobody approved it (R198).
        ValueError: a report is about another package than the newest.
        ArtifactMissingError: a report was not made yet; the message names it.
    """
    settings, artifacts = context.settings, context.artifacts
    accepted = require_unchanged(
        artifacts.bytes,
        settings.trusted_approvers,
        "compliance_configuration_changes",
        compliance_settings(settings),
        "What decides a release",
    )
    evidence = find_evidence(artifacts)
    report = evidence.evaluation.json("evaluation.json")
    results = [
        data_gate(artifacts, [report["dataset"], evidence.package.json("package.json")["dataset_version"]]),
        _gate(GATES[1], evidence.evaluation, performance_measurements(report, settings.gates)),
        _gate(GATES[2], evidence.evaluation, fairness_measurements(report, settings.gates)),
        security_gate(context, evidence),
        _gate(_TIMED_GATE, evidence.load_test, threshold_measurements(evidence.load_test.info["measurements"], settings.gates)),
    ]
    full = GateVerdict(
        passed=all(result.passed for result in results),
        package=evidence.package.digest,
        dataset=report["dataset"],
        evaluation=evidence.evaluation.digest,
        load_test=evidence.load_test.digest,
        gate_settings=accepted.subject,
        gates=results,
    )
    stable = full.model_copy(update={"gates": [r.model_copy(update={"measurements": []}) if r.gate == _TIMED_GATE else r for r in results]})
    artifact = artifacts.publish(
        NAME,
        {"verdict.json": canonical_json(stable.model_dump(mode="json"))},
        sidecars={"verdict_full.json": canonical_json(full.model_dump(mode="json"))},
        info={"package": full.package, "passed": full.passed},
    )
    return StepResult(artifact, {**_metadata(full, settings), **accepted.metadata})


def compliance_settings(settings: Settings) -> dict[str, Any]:
    """The settings that decide what may be released; a change of them needs an approval (R198).

    Beside the thresholds these are: how the evidence is measured, which days are good, over which columns fairness is judged, and in
    which columns personal data is masked.
    """
    return {
        "gates": settings.gates.model_dump(mode="json"),
        "evaluation": settings.evaluation.model_dump(mode="json", exclude={"explained_images"}),
        "ingest": {"max_reject_rate": settings.ingest.max_reject_rate},
        "data": {"slice_columns": settings.data.slice_columns, "text_columns": settings.data.text_columns},
    }


def find_evidence(artifacts: ArtifactStore) -> Evidence:
    """The newest package with its reports.

    Raises:
        ValueError: a report is about another package; it must be made again.
        ArtifactMissingError: one of them is missing.
    """
    package, evaluation, load_test = (artifacts.latest(name) for name in ("model_package", "evaluation_report", "load_test_report"))
    for artifact, file in ((evaluation, "evaluation.json"), (load_test, "load_test.json")):
        about = artifact.json(file)["package"]
        if about != package.digest:
            raise ValueError(
                f"{artifact.name} is about package {about[:12]}, the newest is {package.digest[:12]}. "
                f"Materialize {artifact.name} again, then {NAME}."
            )
    return Evidence(package, evaluation, load_test)


def data_gate(artifacts: ArtifactStore, datasets: Sequence[str]) -> GateResult:
    """Every day of the dataset versions has a stored, passing verdict of exactly the manifest that was used."""
    days: set[tuple[str, str]] = set()
    left_out: dict[str, str] = {}
    used = [artifacts.version("dataset_splits", digest) for digest in dict.fromkeys(datasets)]
    for artifact in used:
        version = DatasetVersion.model_validate(artifact.json("dataset.json"))
        days |= set(version.days.items())
        left_out |= version.left_out_days | artifact.info.get("left_out_days", {})
    failed = [problem for day, digest in sorted(days) if (problem := _day_problem(artifacts, day, digest))]
    note = f"{len(left_out)} days left out: {', '.join(sorted(left_out))}" if left_out else "no day left out"
    measurements = [
        _measure("days_without_passing_verdict", len(failed), "<=", 0, note="; ".join(failed[:_SHOWN_FINDINGS]) or None),
        _measure("days_used", len({day for day, _ in days}), ">=", 1, note=note),
    ]
    return _gate(GATES[0], used[0], measurements)


def performance_measurements(report: Mapping[str, Any], gates: GateSettings) -> list[Measurement]:
    """Accuracy, precision and recall of every class, macro F1 (R100-R103, D13), calibration and accuracy under corruption."""
    scores, level = report["performance"], report["confidence"]
    found = [_score("accuracy", scores["accuracy"], gates.accuracy, gates.mode, level)]
    for name, entry in scores["classes"].items():
        found.append(_score(f"precision of {name}", entry["precision"], gates.precision_per_class, gates.mode, level))
        found.append(_score(f"recall of {name}", entry["recall"], gates.recall_per_class, gates.mode, level))
    found.append(_score("macro_f1", scores["macro_f1"], gates.macro_f1, gates.mode, level, proportion=False))
    calibration = scores["expected_calibration_error"]["value"]
    found.append(_measure("expected_calibration_error", calibration, "<=", gates.max_expected_calibration_error))
    return found + robustness_measurements(report, gates)


def robustness_measurements(report: Mapping[str, Any], gates: GateSettings) -> list[Measurement]:
    """Accuracy under every mild corruption, relative to that without."""
    return [
        _measure(f"relative accuracy under {name}", entry["relative"], ">=", gates.min_corruption_accuracy)
        for name, entry in report["robustness"]["corruptions"].items()
    ]


def fairness_measurements(report: Mapping[str, Any], gates: GateSettings) -> list[Measurement]:
    """The accuracy gap of every compared column; larger than allowed fails only where chance does not explain it (R109, D12)."""
    found = []
    for column, entry in report["slices"].items():
        if entry["gap"] is None:
            continue
        note = f"best {entry['best']}, worst {entry['worst']}, adjusted p = {entry['adjusted_p_value']:.2g}"
        if entry["gap"] > gates.max_slice_gap and not entry["unfair"]:
            note += "; larger than allowed, but chance explains it"
        found.append(
            _measure(f"accuracy gap over {column}", entry["gap"], "<=", gates.max_slice_gap, note=note, passed=not entry["unfair"])
        )
    enough = f"a column counts when two slices have {gates.min_slice_size} test images: collect more images, or lower gates.min_slice_size"
    found.append(_measure("compared columns", len(found), ">=", 1, note=None if found else enough))
    missing = report["missing_slice_columns"]
    remedy = f"labels lack {', '.join(missing)}: add the columns, or take them out of data.slice_columns"
    found.append(_measure("missing slice columns", len(missing), "<=", 0, note=remedy if missing else None))
    return found


def security_gate(context: StageContext, evidence: Evidence) -> GateResult:
    """No finding in the package, none from the hostile requests of the load test."""
    scanned = scan_package(context.artifacts, evidence.package.digest, context.settings.trusted_signers)
    probed = [Finding(**finding) for finding in evidence.load_test.info["findings"]]
    measurements = [
        _measure("findings in the package", len(scanned), "<=", 0, note=_summary(scanned)),
        _measure("findings of hostile requests", len(probed), "<=", 0, note=_summary(probed)),
    ]
    return _gate(GATES[3], evidence.load_test, measurements)


def require_passed(artifacts: ArtifactStore, package_digest: str) -> GateVerdict:
    """The newest verdict, if it allows this package. Every way to a release asks here: a check blocks only within its own run.

    Raises:
        ValueError: the verdict is no (the message names every missed number), or about another package.
        ArtifactMissingError: there is no verdict.
    """
    artifact = artifacts.latest(NAME)
    verdict = GateVerdict.model_validate(artifact.json("verdict.json"))
    if verdict.package != package_digest:
        raise ValueError(
            f"The newest verdict is about package {verdict.package[:12]}, not {package_digest[:12]}. "
            f"Materialize evaluation_report, load_test_report and {NAME} for this package."
        )
    if not verdict.passed or {g.gate for g in verdict.gates if g.passed} != set(GATES):
        misses = _all_misses(artifact, verdict)
        raise ValueError(f"Package {package_digest[:12]} may not be released: {NAME} says no.\n  " + "\n  ".join(misses))
    return verdict


def full_verdict(artifact: Artifact) -> GateVerdict:
    """A verdict with its measured numbers where the sidecar has them, else as published."""
    stable = GateVerdict.model_validate(artifact.json("verdict.json"))
    try:
        full = GateVerdict.model_validate_json(artifact.sidecar("verdict_full.json"))
    except (FileNotFoundError, ValueError):
        return stable
    # The sidecar is outside the digest: it may add numbers to the published answers, never change them.
    same = [(g.gate, g.passed) for g in full.gates] == [(g.gate, g.passed) for g in stable.gates]
    return full if same and full.package == stable.package else stable


def _all_misses(artifact: Artifact, verdict: GateVerdict) -> list[str]:
    full = full_verdict(artifact)
    misses = full.misses()
    named = {gate.gate for gate in full.gates if any(not m.passed for m in gate.measurements)}
    unnamed = [gate for gate in GATES if gate not in named and gate not in {g.gate for g in verdict.gates if g.passed}]
    return misses + [f"{gate}: did not pass" for gate in unnamed]


def _day_problem(artifacts: ArtifactStore, day: str, digest: str) -> str | None:
    try:
        verdict = DayVerdict.model_validate(artifacts.version("validated_manifest", digest, day).json("verdict.json"))
    except (ArtifactMissingError, KeyError):
        return f"{day}: no stored verdict"
    if verdict.day.isoformat() != day:
        return f"{day}: the stored verdict is of {verdict.day}"
    return None if verdict.passed else f"{day}: {'; '.join(verdict.reasons) or 'did not pass'}"


def _score(
    name: str,
    estimate: Mapping[str, Any],
    threshold: float,
    mode: Literal["point", "lower_bound"],
    confidence: float,
    *,
    proportion: bool = True,
) -> Measurement:
    """A score with its lower bound and the N at which that would reach the threshold; `mode` says which of them decides (D13)."""
    value, bound, size = estimate["value"], estimate["lower_bound"], estimate["size"]
    needed = needed_trials(value, threshold, confidence) if proportion else needed_by_scaling(value, bound, threshold, size)
    decisive = bound if mode == "lower_bound" else value
    note = "the lower bound decides" if mode == "lower_bound" else None
    return _measure(name, value, ">=", threshold, note=note, passed=decisive >= threshold, lower_bound=bound, needed=needed)


def _measure(
    name: str,
    value: float,
    comparison: Literal[">=", "<="],
    threshold: float,
    *,
    note: str | None = None,
    passed: bool | None = None,
    lower_bound: float | None = None,
    needed: int | None = None,
) -> Measurement:
    if passed is None:
        passed = value >= threshold if comparison == ">=" else value <= threshold
    return Measurement(
        name=name,
        value=value,
        threshold=threshold,
        comparison=comparison,
        passed=passed,
        lower_bound=lower_bound,
        needed=needed,
        note=note,
    )


def _gate(name: str, evidence: Artifact, measurements: list[Measurement]) -> GateResult:
    return GateResult(
        gate=name,
        passed=all(m.passed for m in measurements),
        evidence=f"{evidence.name} {evidence.digest}",
        measurements=measurements,
    )


def _summary(findings: Sequence[Finding]) -> str | None:
    shown = [f"{finding.where}: {finding.code}: {finding.detail}" for finding in findings[:_SHOWN_FINDINGS]]
    return "; ".join(shown) or None


def _metadata(verdict: GateVerdict, settings: Settings) -> dict[str, Any]:
    rows = [
        {
            "gate": gate.gate,
            "measurement": m.name,
            "value": round(m.value, 6),
            "threshold": f"{m.comparison} {m.threshold:g}",
            "passed": m.passed,
            "lower_bound": "" if m.lower_bound is None else f"{m.lower_bound:.3f}",
            "needed": "" if m.needed is None else str(m.needed),
            "note": m.note or "",
        }
        for gate in verdict.gates
        for m in gate.measurements
    ]
    return {
        "passed": verdict.passed,
        "misses": verdict.misses(),
        "mode": settings.gates.mode,
        "measurements": Table(rows),
        "gates": {gate.gate: gate.passed for gate in verdict.gates},
        "package": verdict.package,
        "dataset": verdict.dataset,
        "evaluation": verdict.evaluation,
        "load_test": verdict.load_test,
        "gate_settings": verdict.gate_settings,
    }
