"""The audit dossier (R196): for the model in production, everything that an auditor asks, in one place, every link verified."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from pipeline_project.contracts import DesiredState
from pipeline_project.digests import canonical_json
from pipeline_project.governance import ledger
from pipeline_project.governance.chain import Chain, Link, find_registration, walk_chain
from pipeline_project.governance.dossier_text import render
from pipeline_project.serving.documents import history
from pipeline_project.stage import Markdown, StageContext, StepResult, Table
from pipeline_project.storage import Artifact
from pipeline_project.trust.approvals import KINDS, PREFIX, SignedApproval, find_approval

_APPROVALS = f"{PREFIX}/"


def build_dossier(context: StageContext) -> StepResult:
    """Collect and verify the evidence behind the champion of production's newest document (asset audit_dossier).

    A broken link does not stop it: the dossier says what is broken, and the check chain_intact fails.

    Payload: dossier.json {document, package, verdict, evaluation, load_test, dataset, model, registration, approvals, history, ledger,
    links: [{name, digest, problem}]} and dossier.md, the same for people. It is the same bytes as long as nothing in it changes.

    Raises:
        ValueError: production has no document yet.
    """
    documents = history(context.artifacts.bytes, "production")
    if not documents:
        raise ValueError("Production has no document yet, so there is no model to account for. Materialize deployed_endpoint first.")
    document = documents[-1]
    package = champion_of(document)
    chain = walk_chain(context, package)
    state = ledger.verify(context.artifacts.bytes)
    dossier: dict[str, Any] = {
        "version": 1,
        "document": document.model_dump(mode="json"),
        "package": _package(chain, package),
        "verdict": chain.verdict.model_dump(mode="json") if chain.verdict else None,
        "evaluation": _evaluation(chain.evaluation),
        "load_test": {"digest": chain.load_test.digest, "measurements": chain.load_test.info.get("measurements")}
        if chain.load_test
        else None,
        "dataset": _dataset(context, chain),
        "model": _model(chain),
        "registration": _registration(context, package),
        "approvals": _approvals(context),
        "history": [d.model_dump(mode="json") for d in documents],
        "ledger": state.model_dump(mode="json"),
        "links": [link.model_dump(mode="json") for link in chain.links],
    }
    text = render(dossier)
    broken = chain.first_broken
    artifact = context.artifacts.publish(
        "audit_dossier",
        {"dossier.json": canonical_json(dossier), "dossier.md": text.encode()},
        info={"package": package, "document": document.number, "intact": broken is None},
    )
    return StepResult(
        artifact,
        {
            "package": package,
            "document": document.number,
            "chain_intact": broken is None,
            "first_broken_link": "none" if broken is None else f"{broken.name}: {broken.problem}",
            "links": Table([_link_row(chain, link) for link in chain.links]),
            "ledger_entries": state.entries,
            "dossier": Markdown(text),
        },
    )


def champion_of(document: DesiredState) -> str:
    """The digest of a document's champion package; of the route with most weight where none is called champion."""
    champion = next((route for route in document.routes if route.name == "champion"), None)
    return (champion or max(document.routes, key=lambda route: route.weight)).package


def _link_row(chain: Chain, link: Link) -> dict[str, Any]:
    """For the UI: with the digest of the artefact itself and the run that made it, to look for in the other assets' materializations."""
    artifact = chain.artifacts.get(link.name)
    digest, run = (artifact.digest, artifact.run or "") if artifact else (link.digest, "")
    return {"link": link.name, "digest": digest, "run": run, "holds": link.holds, "problem": link.problem}


def _package(chain: Chain, digest: str) -> dict[str, Any]:
    found: dict[str, Any] = {"digest": digest, "signer": None, "manifest": None, "git_commit": None}
    if chain.package is not None and chain.package_artifact is not None:
        info = chain.package_artifact.info
        found |= {"signer": chain.package.signer, "manifest": chain.package.manifest.model_dump(mode="json")}
        found |= {"git_commit": info.get("git_commit"), "parity": info.get("parity"), "created": chain.package_artifact.created}
    return found


def _dataset(context: StageContext, chain: Chain) -> dict[str, Any] | None:
    """The dataset version without its single images; days left out stand in the artefact's info since version 2."""
    if chain.dataset is None or chain.package is None:
        return None
    info = context.artifacts.version("dataset_splits", chain.package.manifest.dataset_version).info
    record = chain.dataset.model_dump(mode="json", exclude={"left_out_images"})
    return record | {"left_out_days": record["left_out_days"] | info.get("left_out_days", {})}


def _evaluation(artifact: Artifact | None) -> dict[str, Any] | None:
    """The summary of an evaluation report: scores with intervals, without curves and single images."""
    if artifact is None:
        return None
    report = artifact.json("evaluation.json")
    performance: Mapping[str, Any] = report.get("performance", {})
    kept = ("accuracy", "macro_f1", "roc_auc_macro", "expected_calibration_error", "log_loss", "classes", "confusion_matrix")
    explanations: Mapping[str, Any] = report.get("explanations", {})
    return {
        "digest": artifact.digest,
        "images": report.get("images"),
        "dataset": report.get("dataset"),
        "performance": {key: performance[key] for key in kept if key in performance},
        "explanations": {key: value for key, value in explanations.items() if key != "each"},
    }


def _model(chain: Chain) -> dict[str, Any] | None:
    if chain.trained is None:
        return None
    info = chain.trained.info
    return {
        "digest": chain.trained.digest,
        "created": chain.trained.created,
        "git_commit": info.get("git_commit"),
        "mlflow_run_id": info.get("mlflow_run_id"),
        "hyperparameters": chain.hyperparameters,
        "tuned_hyperparameters": info.get("tuned_hyperparameters"),
    }


def _registration(context: StageContext, package: str) -> dict[str, Any] | None:
    """The registry entry of the package: what registered_model kept in its info, newest first found."""
    try:
        found = find_registration(context, package)
    except (ValueError, OSError):
        return None
    return {"digest": found.digest, **found.info} if found else None


def _approvals(context: StageContext) -> list[dict[str, Any]]:
    """Every subject that was approved, with its oldest valid approval, in the order of time; forged records are not approvals."""
    store, approvers = context.artifacts.bytes, context.settings.trusted_approvers
    subjects = sorted({tuple(key.removeprefix(_APPROVALS).split("/")[:2]) for key in store.list(_APPROVALS)})
    found: list[SignedApproval] = []
    for kind in KINDS:
        for subject in (name[1] for name in subjects if name[0] == kind and len(name) == 2):
            approval = find_approval(store, approvers, kind, subject)
            if approval is not None:
                found.append(approval)
    ordered: Sequence[SignedApproval] = sorted(found, key=lambda signed: (signed.approval.created, signed.approval.subject))
    return [{**signed.approval.model_dump(mode="json"), "key_id": signed.signature.key_id} for signed in ordered]


def read_ledger_state(dossier: Mapping[str, Any]) -> ledger.LedgerState | None:
    """The ledger's state that a dossier recorded, or None where it recorded a broken one."""
    try:
        state = ledger.LedgerState.model_validate(dossier["ledger"])
    except (KeyError, ValidationError):
        return None
    return state if state.intact else None
