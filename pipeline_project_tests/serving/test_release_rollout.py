"""Releases end to end on a real server: approval, canary, steps, full; and how a release is stopped. (Here for the server fixtures.)"""

import threading
import time
from collections.abc import Callable

import pytest

from pipeline_project.contracts import GateResult, GateVerdict, Route
from pipeline_project.digests import canonical_json
from pipeline_project.evaluation.gates import GATES
from pipeline_project.release.rollout import deploy_to_production, deploy_to_staging
from pipeline_project.serving.documents import DeploymentError, history, newest, write_next
from pipeline_project.stage import StageContext
from pipeline_project.trust.approvals import ApprovalRequiredError, find_approval

pytestmark = pytest.mark.slow


def judged(context: StageContext, package: str, *, passed: bool = True) -> None:
    """What release_gate and registered_model leave behind for a package."""
    digest = "0" * 64
    gates = [GateResult(gate=name, passed=passed, evidence="test", measurements=[]) for name in GATES]
    verdict = GateVerdict(
        passed=passed, package=package, dataset=digest, evaluation=digest, load_test=digest, gate_settings=digest, gates=gates
    )
    context.artifacts.publish("release_gate", {"verdict.json": canonical_json(verdict.model_dump(mode="json"))})
    context.artifacts.publish("registered_model", {"registration.json": canonical_json({"package": package})}, info={"package": package})


def with_steps(context: StageContext, seconds: float) -> StageContext:
    production = context.settings.serving.production.model_copy(update={"canary_steps": [0.5], "step_seconds": seconds})
    serving = context.settings.serving.model_copy(update={"production": production})
    return StageContext(context.settings.model_copy(update={"serving": serving}), context.artifacts, print)


def weights(context: StageContext) -> list[dict[str, float]]:
    return [{route.name: route.weight for route in document.routes} for document in history(context.artifacts.bytes, "production")]


def test_a_release_needs_a_yes_an_approval_and_a_server_and_goes_by_canary(project, serve: Callable[..., object]) -> None:  # type: ignore[no-untyped-def]
    context = with_steps(StageContext.open(project.settings), 0.2)
    first, second = (project.publish(seed).digest for seed in (1, 2))
    judged(context, first, passed=False)
    with pytest.raises(ValueError, match="may not be released"):
        deploy_to_production(context)
    judged(context, first)
    with pytest.raises(ApprovalRequiredError, match="pipeline approve production_deployment"):
        deploy_to_production(context)
    assert weights(context) == []
    project.approve(first)
    serve("production")
    announced: list[str] = []
    shown = deploy_to_production(context, announced.append).metadata
    assert announced == [first]
    assert weights(context) == [{"champion": 1.0}]
    given = find_approval(context.artifacts.bytes, context.settings.trusted_approvers, "production_deployment", first)
    assert given is not None
    assert (shown["approved_by"], shown["approval_reason"]) == (given.approval.approver, given.approval.reason)
    assert shown["approval_key_id"] == given.signature.key_id
    assert shown["approved_at"] == given.approval.created.isoformat(timespec="seconds")
    for name, asset in (("verdict", "release_gate"), ("registration", "registered_model")):
        assert shown[name] == context.artifacts.latest(asset).digest
    before = context.artifacts.latest("deployed_endpoint")
    assert shown["changed"] is True
    assert deploy_to_production(context, announced.append).metadata["changed"] is False  # the same package again changes nothing
    assert len(weights(context)) == 1
    assert announced == [first]
    assert context.artifacts.latest("deployed_endpoint") == before
    judged(context, second)
    project.approve(second)
    deploy_to_production(context)
    assert weights(context)[1:] == [
        {"champion": pytest.approx(0.9), "canary": 0.1},
        {"champion": 0.5, "canary": 0.5},
        {"champion": 1.0},
    ]
    document = newest(context.artifacts.bytes, "production")
    assert document is not None
    assert document.routes == [Route(name="champion", package=second, weight=1)]


def test_a_verdict_about_another_package_releases_nothing(project) -> None:  # type: ignore[no-untyped-def]
    context = StageContext.open(project.settings)
    first, second = (project.publish(seed).digest for seed in (1, 2))
    judged(context, first)
    context.artifacts.publish("registered_model", {"registration.json": b"{}"}, info={"package": second})
    for deploy in (deploy_to_staging, deploy_to_production):
        with pytest.raises(ValueError, match="not " + second[:12]):
            deploy(context)
    assert newest(context.artifacts.bytes, "staging") is None


def test_a_canary_that_the_guard_took_out_is_not_rolled_out(project, serve: Callable[..., object]) -> None:  # type: ignore[no-untyped-def]
    context = with_steps(StageContext.open(project.settings), 5)
    first, second = (project.publish(seed).digest for seed in (1, 2))
    for digest in (first, second):
        project.approve(digest)
    serve("production")
    judged(context, first)
    deploy_to_production(context)
    judged(context, second)

    def guard() -> None:
        store = context.artifacts.bytes
        while (document := newest(store, "production")) is None or document.number < 2:
            time.sleep(0.1)
        time.sleep(1.5)
        write_next(store, "production", [Route(name="champion", package=first, weight=1)], "error rate 0.5", "guard")

    thread = threading.Thread(target=guard)
    thread.start()
    with pytest.raises(DeploymentError, match="guard: error rate"):
        deploy_to_production(context)
    thread.join()
    document = newest(context.artifacts.bytes, "production")
    assert document is not None
    assert [route.package for route in document.routes] == [first]


def test_staging_without_a_server_says_how_to_start_it(project) -> None:  # type: ignore[no-untyped-def]
    context = StageContext.open(project.settings)
    judged(context, project.publish(1).digest)
    with pytest.raises(DeploymentError, match="pipeline serve staging"):
        deploy_to_staging(context)
