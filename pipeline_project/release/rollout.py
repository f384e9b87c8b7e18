"""staging_endpoint and deployed_endpoint: a release is a sequence of documents, each waited for until every replica serves it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from pipeline_project.contracts import Environment, Route
from pipeline_project.digests import canonical_json
from pipeline_project.evaluation.gates import require_passed
from pipeline_project.release.registry import set_alias
from pipeline_project.serving.documents import DeploymentError, newest, replica_reports, wait_until_served, write_next
from pipeline_project.settings.tree import EnvironmentSettings
from pipeline_project.stage import Metadata, StageContext, StepResult, Table
from pipeline_project.training.tracking import TrackingError
from pipeline_project.trust.approvals import ApprovalRequiredError, SignedApproval, find_approval

_TIMEOUT_S = 60.0


Announce = Callable[[str], object]
"""Told the package of every rollout before it is published, and never of a materialization that changes nothing."""


def deploy_to_staging(context: StageContext, announce: Announce = lambda _: None) -> StepResult:
    """Serve the registered package in staging; automatic once the gate said yes (R129).

    Payload: deployment.json (environment, package, verdict).

    Raises:
        ValueError: the verdict is no or about another package; no replica serves staging.
    """
    package = _released_package(context)
    documents = _roll_out(context, "staging", package)
    _follow(context, "staging", package)
    return _result(context, "staging_endpoint", "staging", package, documents, announce)


def deploy_to_production(context: StageContext, announce: Announce = lambda _: None) -> StepResult:
    """Serve the registered package in production: canary, steps, full; only with a recorded approval (R130).

    Payload: deployment.json (environment, package, verdict).

    Raises:
        ApprovalRequiredError: nobody approved this package.
        ValueError: the verdict is no or about another package; a replica refuses it; the guard took the canary out.
    """
    package = _released_package(context)
    settings = context.settings
    approval = find_approval(context.artifacts.bytes, settings.trusted_approvers, "production_deployment", package)
    if approval is None:
        raise ApprovalRequiredError("production_deployment", package, f"Package {package[:12]} is ready for production.")
    before = newest(context.artifacts.bytes, "production")
    former = next((r.package for r in before.routes if r.name == "champion"), None) if before else None
    documents = _roll_out(context, "production", package)
    _follow(context, "champion", package)
    if former is not None and former != package:
        _follow(context, "previous", former)
    return _result(context, "deployed_endpoint", "production", package, documents, announce, _approval_metadata(approval))


def _follow(context: StageContext, alias: str, package: str) -> None:
    """The registry's alias follows what is served; MLflow out of reach does not undo a release."""
    try:
        set_alias(context.settings, alias, package)
    except TrackingError as error:
        context.log(f"warning: the alias {alias} still names what it named: {error}")


def _released_package(context: StageContext) -> str:
    """The registered package, its verdict read again: a blocking check blocks only within its own run."""
    package: str = context.artifacts.latest("registered_model").info["package"]
    require_passed(context.artifacts, package)
    return package


def _roll_out(context: StageContext, environment: Environment, package: str) -> list[int]:
    """Write and await the documents that lead to `package` alone. Returns their numbers, or the current one's when nothing changes."""
    store, wanted = context.artifacts.bytes, _environment(context, environment)
    current = newest(store, environment)
    if not replica_reports(store, environment):
        wait_until_served(store, environment, current.number, 15, context.settings) if current else _require_replica(context, environment)
    champion = next((r.package for r in current.routes if r.name == "champion"), None) if current else None
    if current is not None and [(r.name, r.package) for r in current.routes] == [("champion", package)]:
        wait_until_served(store, environment, current.number, _TIMEOUT_S, context.settings)
        return [current.number]
    weights = [wanted.canary_weight, *wanted.canary_steps] if champion is not None and champion != package else []
    numbers = []
    for weight in weights:
        assert champion is not None
        routes = [Route(name="champion", package=champion, weight=1 - weight), Route(name="canary", package=package, weight=weight)]
        numbers.append(_serve(context, environment, routes, f"canary at {weight:.0%}"))
        _watch(context, environment, numbers[-1], wanted.step_seconds)
    numbers.append(_serve(context, environment, [Route(name="champion", package=package, weight=1)], "full rollout"))
    return numbers


def _serve(context: StageContext, environment: Environment, routes: list[Route], reason: str) -> int:
    store = context.artifacts.bytes
    current = newest(store, environment)
    document = write_next(store, environment, routes, reason, "pipeline", after=current.number if current else 0)
    reports = wait_until_served(store, environment, document.number, _TIMEOUT_S, context.settings)
    context.log(f"{environment}: document {document.number} ({reason}) served by {len(reports)} replicas")
    return document.number


def _watch(context: StageContext, environment: Environment, number: int, seconds: float) -> None:
    """Give the guard its time; a document that it wrote ends the rollout."""
    deadline = time.monotonic() + seconds
    while True:
        document = newest(context.artifacts.bytes, environment)
        if document is not None and document.number != number:
            raise DeploymentError(f"The rollout was ended by {document.author}: {document.reason}. The package before keeps serving.")
        if time.monotonic() >= deadline:
            return
        time.sleep(0.5)


def _require_replica(context: StageContext, environment: Environment) -> None:
    """Before a first document: somebody must be there to serve it."""
    deadline = time.monotonic() + 15
    while not replica_reports(context.artifacts.bytes, environment):
        if time.monotonic() >= deadline:
            raise DeploymentError(
                f"No replica of {environment} reports to {context.artifacts.bytes.uri}. "
                f"Start it with `pipeline serve {environment}` (or `make dev`), then materialize this asset again."
            )
        time.sleep(0.3)


def _environment(context: StageContext, environment: Environment) -> EnvironmentSettings:
    serving = context.settings.serving
    return serving.staging if environment == "staging" else serving.production


def _approval_metadata(signed: SignedApproval) -> Metadata:
    approval = signed.approval
    return {
        "approved_by": approval.approver,
        "approved_at": approval.created.isoformat(timespec="seconds"),
        "approval_reason": approval.reason,
        "approval_key_id": signed.signature.key_id,
    }


def _result(
    context: StageContext,
    name: str,
    environment: Environment,
    package: str,
    documents: list[int],
    announce: Announce,
    more: Metadata | None = None,
) -> StepResult:
    verdict, registration = context.artifacts.latest("release_gate"), context.artifacts.latest("registered_model")
    record = {"version": 1, "environment": environment, "package": package, "verdict": verdict.digest}
    payload = {"deployment.json": canonical_json(record)}
    artifact = context.artifacts.find(name)
    served_before = artifact is not None and set(documents) <= set(artifact.info["documents"])
    if artifact is None or not served_before or artifact.json("deployment.json") != record:
        if artifact is not None and served_before:  # judged anew, served by the same documents
            documents = artifact.info["documents"]
        else:
            announce(package)
        deployed = datetime.now(UTC).isoformat(timespec="seconds")
        artifact = context.artifacts.publish(name, payload, info={"documents": documents, "package": package, "deployed": deployed})
    reports = replica_reports(context.artifacts.bytes, environment)
    return StepResult(
        artifact,
        {
            "environment": environment,
            "package": package,
            "verdict": verdict.digest,
            "registration": registration.digest,
            "model_version": str(registration.info.get("model_version", "")),
            "documents": documents,
            "changed": not served_before,
            **(more or {}),
            "url": _environment(context, environment).address,
            "replicas": Table([{"replica": r.replica, "document": r.document, "ready": r.ready} for r in reports]),
        },
    )
