"""A step that waits for a person stops with the command to approve it, and goes on after the UI's job `approve` (R130, R198)."""

import pytest

from pipeline_project_tests.graph.conftest import Platform, asked_approval

pytestmark = pytest.mark.slow


def test_a_release_waits_for_the_approve_job_and_goes_on_from_there(platform: Platform) -> None:
    refused, approved, deployed = (platform.first[name][0] for name in ("refused", "approved", "deployed"))
    package = asked_approval(refused, "production_deployment")
    assert package == platform.context.artifacts.latest("registered_model").info["package"]
    assert refused.materialized[-1] == "staging_endpoint"  # what needs no approval went through
    assert approved.status == "SUCCESS"
    assert deployed.materialized == ["deployed_endpoint"]
    assert deployed.checks["deployed_endpoint.approval"] is True


def test_an_approval_of_something_that_nobody_asked_for_is_refused(platform: Platform) -> None:
    log = platform.approve("production_deployment", "0" * 64)
    assert log.status == "FAILURE", log
    assert "000000000000" in log.why


def test_an_unknown_approver_is_refused(platform: Platform) -> None:
    package = platform.context.artifacts.latest("registered_model").info["package"]
    log = platform.approve("production_deployment", package, approver="nobody")
    assert log.status == "FAILURE", log
    assert "pipeline keys create nobody" in log.why


def test_a_changed_source_and_a_changed_architecture_stop_where_they_act(platform: Platform) -> None:
    ui, day = platform.ui, platform.days[0]
    before = platform.digest("raw_images", day), platform.digest("trained_model")
    platform.write(data={"classes": ["toys", "books", "home", "clothing", "electronics"]}, model={"head_hidden": 32})
    try:
        source, architecture = ui.wait(ui.materialize("raw_images", partition=day), ui.materialize("trained_model"))
    finally:
        platform.write()
    asked_approval(source, "data_source_modifications")
    asked_approval(architecture, "model_architecture_changes")
    assert "head_hidden" in architecture.why
    assert source.materialized == architecture.materialized == []
    assert (platform.digest("raw_images", day), platform.digest("trained_model")) == before
