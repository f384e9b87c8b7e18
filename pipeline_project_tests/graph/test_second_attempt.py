"""Runs that did not end well: a step that failed for a real reason is made good from failure; a cancelled run leaves nothing behind."""

import pytest

from pipeline_project_tests.graph.conftest import Platform

pytestmark = pytest.mark.slow
RECOMPUTE = {"recompute": "true"}


@pytest.fixture
def staging_down(platform: Platform) -> Platform:
    platform.stop_endpoint("staging")
    return platform


def test_re_execution_from_failure_repeats_only_what_failed_and_what_follows(staging_down: Platform) -> None:
    ui = staging_down.ui
    try:
        failed = staging_down.run("registered_model", "staging_endpoint")
    finally:
        staging_down.start_endpoint("staging")
    assert failed.status == "FAILURE", failed
    assert failed.materialized == ["registered_model"]
    assert "pipeline serve staging" in failed.why
    again = ui.wait(ui.reexecute(failed.run_id))[0]
    assert again.status == "SUCCESS", again.why
    assert again.parent == failed.run_id
    assert again.materialized == ["staging_endpoint"]
    assert "registered_model" not in again.steps_started
    assert again.checks["staging_endpoint.smoke_test"] is True
    assert ui.claimed_slots() == {}


def test_a_run_cancelled_while_it_waits_for_an_endpoint_gives_its_pool_slot_back(staging_down: Platform) -> None:
    ui = staging_down.ui
    try:
        waiting = ui.materialize("staging_endpoint")
        ui.wait_until(waiting, lambda log: "staging_endpoint" in log.steps_started)
        ui.terminate(waiting)
        cancelled = ui.wait(waiting)[0]
    finally:
        staging_down.start_endpoint("staging")
    assert cancelled.status == "CANCELED", cancelled
    assert cancelled.materialized == []
    assert ui.claimed_slots() == {}
    assert staging_down.run("staging_endpoint").status == "SUCCESS"


def test_a_cancelled_training_leaves_nothing_running_and_the_next_gives_the_same_model(platform: Platform) -> None:
    ui, before = platform.ui, platform.digest("trained_model")
    platform.write(training={"epochs": 2000, "early_stopping_patience": 2000})  # long enough to be cancelled
    try:
        training = ui.materialize("trained_model", tags=RECOMPUTE)
        ui.wait_until(training, lambda log: any("epoch 2/2000" in line for line in log.lines))
    finally:
        platform.write()
        ui.terminate(training)
    cancelled = ui.wait(training)[0]
    assert cancelled.status == "CANCELED", cancelled
    assert cancelled.materialized == []
    assert ui.claimed_slots() == {}
    assert platform.digest("trained_model") == before
    assert mlflow_status(platform, training) == {"KILLED"}  # closed, not left running
    again = platform.run("trained_model", tags=RECOMPUTE)
    assert again.status == "SUCCESS", again.why
    assert platform.digest("trained_model") == before
    assert mlflow_status(platform, again.run_id) == {"FINISHED"}


def test_a_run_cancelled_in_the_queue_never_starts(platform: Platform) -> None:
    ui, day = platform.ui, platform.days[0]
    busy = [ui.materialize("image_features", partition=day, tags=RECOMPUTE) for _ in range(2)]
    queued = ui.materialize("image_features", partition=day)
    ui.terminate(queued)
    *ended, cancelled = ui.wait(*busy, queued)
    assert cancelled.status == "CANCELED", cancelled
    assert cancelled.steps_started == []
    assert [log.status for log in ended] == ["SUCCESS", "SUCCESS"]


def mlflow_status(platform: Platform, run_id: str) -> set[str]:
    """The states of the MLflow runs that a Dagster run made."""
    from mlflow.tracking import MlflowClient

    settings = platform.project.settings()
    client = MlflowClient(settings.tracking_uri)
    experiment = client.get_experiment_by_name(settings.tracking.experiment)
    runs = client.search_runs([experiment.experiment_id], f"tags.dagster_run_id = '{run_id}'")
    return {run.info.status for run in runs}
