"""A failed gate stops the release whichever way it is started, and each refusal names the number that was missed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline_project_tests.graph.conftest import GATES, NO_GO, RELEASE, Platform
from pipeline_project_tests.graph.pages import RunLog

pytestmark = pytest.mark.slow


@dataclass
class NoGo:
    """The project with a verdict of no: how it came to be, what was released before, and what was tried since."""

    platform: Platform
    judged: list[RunLog]
    before: dict[str, Any]
    missed: list[str]
    backfill: str


@pytest.fixture(scope="module")
def no_go(platform: Platform) -> Iterator[NoGo]:
    before = platform.released()
    judged = platform.judge_with(NO_GO)
    verdict = platform.context.artifacts.latest("release_gate").json("verdict.json")
    missed = [f"{m['value']:.4g}" for gate in verdict["gates"] for m in gate["measurements"] if not m["passed"]]
    backfill = platform.ui.backfill([*RELEASE, "batch_predictions"], platform.days[-1:])
    yield NoGo(platform, judged, before, missed, backfill)
    platform.write(GATES)
    back = platform.run("release_gate")  # settings that were accepted before need no second approval
    assert back.status == "SUCCESS", back.why


def names_a_miss(log: RunLog, no_go: NoGo) -> bool:
    return log.status == "FAILURE" and "accuracy" in log.why and any(value in log.why for value in no_go.missed)


def test_a_changed_gate_waits_for_an_approval_and_the_approve_job_lets_it_pass(no_go: NoGo) -> None:
    refused, approved, judged = no_go.judged
    assert refused.materialized == []
    assert "accuracy from 0.4 to 1.0" in refused.why
    assert approved.status == "SUCCESS", approved.why
    assert judged.materialized == ["release_gate"]


def test_the_verdict_is_kept_and_its_blocking_check_fails_the_run(no_go: NoGo) -> None:
    judged = no_go.judged[-1]
    assert judged.checks["release_gate.model_performance_meets_threshold"] is False
    assert names_a_miss(judged, no_go)
    assert no_go.platform.ui.materializations("release_gate")[0].metadata["passed"] is False


@pytest.fixture(scope="module")
def stopped(no_go: NoGo) -> RunLog:
    """The gate with all that it guards."""
    return no_go.platform.run("release_gate", *RELEASE)


def test_the_gate_with_all_downstream_stops_at_the_gate(no_go: NoGo, stopped: RunLog) -> None:
    assert names_a_miss(stopped, no_go)
    assert stopped.materialized == ["release_gate"]
    assert not set(stopped.steps_started) & set(RELEASE)


def test_each_release_asset_alone_reads_the_verdict_again(no_go: NoGo) -> None:
    ui = no_go.platform.ui
    for log in ui.wait(*[ui.materialize(asset) for asset in RELEASE]):
        assert log.materialized == []
        assert names_a_miss(log, no_go), log.why


def test_the_deploy_job_and_a_selection_downstream_of_the_gate_are_refused(no_go: NoGo) -> None:
    ui = no_go.platform.ui
    for log in ui.wait(ui.launch_job("deploy"), ui.materialize(*RELEASE, "batch_predictions", partition=no_go.platform.days[-1])):
        assert log.materialized == []
        assert names_a_miss(log, no_go), log.why


def test_re_execution_from_failure_does_not_step_over_the_gate(no_go: NoGo, stopped: RunLog) -> None:
    ui = no_go.platform.ui
    for again in ui.wait(*[ui.reexecute(stopped.run_id, strategy) for strategy in ("FROM_FAILURE", "FROM_ASSET_FAILURE")]):
        assert again.parent == stopped.run_id
        assert names_a_miss(again, no_go), again
        assert not set(again.materialized) & set(RELEASE)


def test_a_backfill_downstream_of_the_gate_is_refused(no_go: NoGo) -> None:
    found = no_go.platform.ui.wait_backfill(no_go.backfill)
    assert found["status"] == "COMPLETED_FAILED", found
    logs = [no_go.platform.ui.log(run["runId"]) for run in found["runs"]]
    assert any(names_a_miss(log, no_go) for log in logs), logs
    assert all(log.materialized == [] for log in logs)


def test_nothing_was_registered_or_deployed(no_go: NoGo) -> None:
    assert no_go.platform.released() == no_go.before
