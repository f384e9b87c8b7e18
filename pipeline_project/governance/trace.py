"""The audit walk (R196): from the id of an answered request back to the photo, and every approval, artefact and run on the way."""

from datetime import date, datetime
from typing import Literal

from pipeline_project.contracts import DesiredState, Digest, Environment, Record
from pipeline_project.digests import digest_of, sha256_bytes
from pipeline_project.governance import ledger
from pipeline_project.governance.chain import Chain, find_registration, inventory_of, walk_chain
from pipeline_project.governance.trace_image import ImageOrigin, find_image
from pipeline_project.governance.trace_log import Answer, LogPlace, TruthFound, find_answers, find_truth
from pipeline_project.monitoring.evidence import all_versions
from pipeline_project.serving.documents import read_document
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact
from pipeline_project.training.artifact import architecture_of
from pipeline_project.trust.approvals import ApprovalKind, SignedApproval, find_acceptance, find_approval


class Hop(Record):
    """One artefact on the way. `run` is the Dagster run that made it, None where none did or it is older than that record."""

    name: str
    digest: str
    made: str | None
    run: str | None
    problem: str


class Deployment(Record):
    """The document that sent the request to its package, and the run that wrote it."""

    environment: Environment
    number: int
    digest: str
    created: datetime | None
    author: str
    reason: str
    weight: float | None
    run: str | None
    problem: str


class Registration(Record):
    """The model version in the registry."""

    model_name: str
    model_version: str
    mlflow_run_id: str
    digest: str
    made: str
    run: str | None
    problem: str


class Consent(Record):
    """Why a release, or a setting behind it, was allowed.

    `state`: a person approved it; it is the first value, which needs nobody; nothing that counts now allows it; or it is not known
    which settings an older artefact was made with.
    """

    kind: ApprovalKind
    state: Literal["approved", "first value", "missing", "not recorded"]
    subject: str
    asked_by: str
    approver: str | None = None
    created: datetime | None = None
    reason: str | None = None
    key_id: str | None = None


class LedgerNote(Record):
    """What the audit ledger says about the package."""

    number: int
    time: datetime
    actor: str
    action: str
    run: str | None


class Trace(Record):
    """Everything between an answer and the photos behind it. `answers`: the newest first, where a client used its id again."""

    version: Literal[1] = 1
    request_id: str
    found: LogPlace
    answers: list[Answer]
    truth: TruthFound | None
    deployment: Deployment
    registration: Registration | None
    package: Digest
    mlflow_run_id: str | None
    git_commit: str | None
    consents: list[Consent]
    image: ImageOrigin
    hops: list[Hop]
    ledger: list[LedgerNote]
    notes: list[str]

    def problems(self) -> list[str]:
        """Everything that does not hold, in words."""
        named = [(hop.name, hop.problem) for hop in self.hops]
        named.append((f"document {self.deployment.number} of {self.deployment.environment}", self.deployment.problem))
        if self.registration is not None:
            named.append(("registered model", self.registration.problem))
        named.append(("image", self.image.problem))
        named += [(c.kind, "no approval that counts now") for c in self.consents if c.state == "missing"]
        return [f"{name}: {problem}" for name, problem in named if problem]


def trace_request(context: StageContext, request_id: str, *, day: date | None = None) -> Trace:
    """Walk back from an answered request, verifying every artefact on the way.

    Reads the prediction log from the newest day backwards until it meets the id (one column of each day's table, and the segments of
    days that are not compacted yet), the truth from that day on, every byte of the package and of what stands behind it, the manifests
    and inventories of the dataset's days, and of the image packs only the list of rows. No image is read, nothing is written.

    Args:
        day: look for the request on this UTC day only.

    Raises:
        ValueError: this is no request id.
        UnknownRequestError: the log does not have it; the message says where was searched.
    """
    found, answers, notes = find_answers(context, request_id, day)
    newest = answers[0]
    package = newest.package
    chain = walk_chain(context, package, production=newest.environment == "production")
    truth, more_notes = find_truth(context, request_id, newest.time.date())
    info = chain.package_artifact.info if chain.package_artifact else {}
    consents = _consents(context, chain, package, newest.environment)
    registration = _registration(context, package)
    return Trace(
        request_id=request_id,
        found=found,
        answers=answers,
        truth=truth,
        deployment=_deployment(context, newest),
        registration=registration,
        package=package,
        mlflow_run_id=info.get("mlflow_run_id"),
        git_commit=info.get("git_commit"),
        consents=consents,
        image=find_image(context, newest.image_id, chain),
        hops=_hops(chain),
        ledger=_ledger(context, package, notes),
        notes=[*notes, *more_notes],
    )


def _hops(chain: Chain) -> list[Hop]:
    hops = []
    for link in chain.links:
        artifact = chain.artifacts.get(link.name)
        digest, made, run = (artifact.digest, artifact.created, artifact.run) if artifact else (link.digest, None, None)
        hops.append(Hop(name=link.name, digest=digest, made=made, run=run, problem=link.problem))
    return hops


def _deployment(context: StageContext, answer: Answer) -> Deployment:
    environment, number = answer.environment, answer.document
    document, data, problem = None, b"", ""
    try:
        document = read_document(context.artifacts.bytes, environment, number)
        data = context.artifacts.bytes.read(f"artifacts/deployments/{environment}/documents/{number:08d}.json") if document else b""
    except (ValueError, OSError) as error:
        problem = str(error)
    weight = _weight(document, answer) if document else None
    if not problem and document is None:
        problem = "there is no such document"
    elif not problem and weight is None:
        problem = f"it has no route {answer.route} to package {answer.package[:12]}"
    return Deployment(
        environment=environment,
        number=number,
        digest=sha256_bytes(data) if document else "",
        created=document.created if document else None,
        author=document.author if document else "",
        reason=document.reason if document else "",
        weight=weight,
        run=_deploying_run(context, answer),
        problem=problem,
    )


def _weight(document: DesiredState, answer: Answer) -> float | None:
    return next((r.weight for r in document.routes if (r.name, r.package) == (answer.route, answer.package)), None)


def _deploying_run(context: StageContext, answer: Answer) -> str | None:
    """The run whose endpoint artefact names the document; a document that the guard or a person wrote has none."""
    name = "deployed_endpoint" if answer.environment == "production" else "staging_endpoint"
    try:
        endpoints = all_versions(context.artifacts, name)
    except (ValueError, OSError):
        return None
    return next((artifact.run for artifact in reversed(endpoints) if answer.document in artifact.info.get("documents", ())), None)


def _registration(context: StageContext, package: str) -> Registration | None:
    try:
        artifact = find_registration(context, package)
    except (ValueError, OSError) as error:
        return _registered(None, str(error))
    if artifact is None:
        return None
    try:
        artifact.verify()
        return _registered(artifact, "")
    except (ValueError, OSError) as error:
        return _registered(artifact, str(error))


def _registered(artifact: Artifact | None, problem: str) -> Registration:
    info = artifact.info if artifact else {}
    return Registration(
        model_name=str(info.get("model_name", "")),
        model_version=str(info.get("model_version", "")),
        mlflow_run_id=str(info.get("mlflow_run_id", "")),
        digest=artifact.digest if artifact else "",
        made=artifact.created if artifact else "",
        run=artifact.run if artifact else None,
        problem=problem,
    )


def _consents(context: StageContext, chain: Chain, package: str, environment: Environment) -> list[Consent]:
    store, trusted = context.artifacts.bytes, context.settings.trusted_approvers
    given = find_approval(store, trusted, "production_deployment", package)
    consents = []
    if given is not None or environment == "production":
        consents.append(_consent("production_deployment", package, "deployed_endpoint", given, first=False))
    for kind, subjects, asked_by in _settings_behind(chain):
        for subject in subjects:
            accepted = find_acceptance(store, trusted, kind, subject)
            first = accepted is not None and accepted.approval is None
            consents.append(_consent(kind, subject, asked_by, accepted.approval if accepted else None, first=first))
        if not subjects:
            consents.append(Consent(kind=kind, state="not recorded", subject="", asked_by=asked_by))
    return consents


def _settings_behind(chain: Chain) -> list[tuple[ApprovalKind, list[str], str]]:
    """The settings that each place of R198 looked at, as digests; none where a link is broken or an artefact is older than the record."""
    gates = [chain.verdict.gate_settings] if chain.verdict else []
    architectures = []
    if chain.trained is not None and "training.json" in chain.trained.files:
        record = chain.trained.json("training.json")
        if "model" in record and "classes" in record:
            architectures.append(digest_of(architecture_of(record["model"], len(record["classes"]))))
    inventories = [chain.artifacts.get(inventory_of(day)) for day in (chain.dataset.days if chain.dataset else ())]
    sources = sorted({str(artifact.info["source"]) for artifact in inventories if artifact is not None and artifact.info.get("source")})
    return [
        ("compliance_configuration_changes", gates, "release_gate"),
        ("model_architecture_changes", architectures, "trained_model"),
        ("data_source_modifications", sources, "raw_images"),
    ]


def _consent(kind: ApprovalKind, subject: str, asked_by: str, signed: SignedApproval | None, *, first: bool) -> Consent:
    if signed is None:
        return Consent(kind=kind, state="first value" if first else "missing", subject=subject, asked_by=asked_by)
    approval = signed.approval
    return Consent(
        kind=kind,
        state="approved",
        subject=subject,
        asked_by=asked_by,
        approver=approval.approver,
        created=approval.created,
        reason=approval.reason,
        key_id=signed.signature.key_id,
    )


def _ledger(context: StageContext, package: str, notes: list[str]) -> list[LedgerNote]:
    found = []
    try:
        for entry in ledger.entries(context.artifacts.bytes):
            if entry.subject == package:
                run = entry.details.get("dagster_run_id")
                found.append(
                    LedgerNote(number=entry.number, time=entry.time, actor=entry.actor, action=entry.action, run=str(run) if run else None)
                )
    except (ValueError, OSError) as error:
        notes.append(f"the audit ledger could be read only in part: {error}")
    return found
