"""The chain of evidence behind a served package: every artefact that led to it, found again and its digest computed again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from pipeline_project.contracts import DatasetVersion, GateVerdict, Record
from pipeline_project.governance import ledger
from pipeline_project.monitoring.evidence import all_versions, find_verdict
from pipeline_project.packaging.package import LoadedPackage, PackageError, load_package
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact, ArtifactStore
from pipeline_project.trust.approvals import SignedApproval, find_approval

_T = TypeVar("_T")

PACKAGE, APPROVAL, VERDICT = "package, signed", "approval of the deployment", "verdict of the gates"
EVALUATION, LOAD_TEST = "evaluation report", "load test report"
DATASET, TRAINED, TUNED = "dataset version", "trained model", "hyperparameters"


def manifest_of(day: str) -> str:
    """The name of the link to a day's manifest."""
    return f"manifest of {day}"


def inventory_of(day: str) -> str:
    """The name of the link to a day's inventory."""
    return f"inventory of {day}"


class Link(Record):
    """One link. `digest` is what it points to ("" where there is nothing); `problem` is empty when it holds."""

    name: str
    digest: str
    problem: str

    @property
    def holds(self) -> bool:
        """Whether the link is intact."""
        return not self.problem


@dataclass
class Chain:
    """The links in the order of the chain, and what was found on the way (None where a link is broken).

    `artifacts`: {name of a link: the artefact it points to}, also of one whose bytes were changed.
    """

    links: list[Link] = field(default_factory=list)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    package: LoadedPackage | None = None
    package_artifact: Artifact | None = None
    approval: SignedApproval | None = None
    verdict: GateVerdict | None = None
    evaluation: Artifact | None = None
    load_test: Artifact | None = None
    dataset: DatasetVersion | None = None
    trained: Artifact | None = None
    hyperparameters: dict[str, Any] | None = None

    @property
    def first_broken(self) -> Link | None:
        """The first link that does not hold."""
        return next((link for link in self.links if not link.holds), None)


def walk_chain(context: StageContext, package: str, *, since: ledger.LedgerState | None = None, production: bool = True) -> Chain:
    """Follow and verify every link of a package: signature, approval, verdict and its evidence, data, model, ledger.

    Nothing raises: a link that cannot be followed is a broken link with the reason. Reads every byte of the package, the model, the
    reports and the manifests; the packed images stand behind the manifests' hashes.

    Args:
        package: digest of the model_package artefact.
        since: a state of the ledger recorded earlier, which it must still contain.
        production: whether the package serves there, which needs an approval.
    """
    chain = Chain()
    _package(context, chain, package)
    _release(context, chain, package, production)
    _data(context, chain)
    _model(context, chain)
    state = ledger.verify(context.artifacts.bytes, since)
    chain.links.append(Link(name="audit ledger", digest=state.head, problem=state.reason))
    return chain


def find_registration(context: StageContext, package: str) -> Artifact | None:
    """The newest registered_model entry of a package, or None. Raises `ValueError` at a record that was changed."""
    found = [artifact for artifact in all_versions(context.artifacts, "registered_model") if artifact.info.get("package") == package]
    return found[-1] if found else None


def _package(context: StageContext, chain: Chain, digest: str) -> None:
    artifacts, settings = context.artifacts, context.settings

    def load() -> LoadedPackage:
        chain.artifacts[PACKAGE] = artifacts.version("model_package", digest)
        return load_package(artifacts, digest, settings.trusted_signers)

    chain.package = _follow(chain, PACKAGE, digest, load)
    if chain.package is not None:
        chain.package_artifact = chain.artifacts[PACKAGE]


def _release(context: StageContext, chain: Chain, package: str, production: bool) -> None:
    artifacts = context.artifacts

    def approval() -> SignedApproval:
        found = find_approval(artifacts.bytes, context.settings.trusted_approvers, "production_deployment", package)
        if found is None:
            raise ValueError("no valid approval of its deployment to production")
        return found

    def verdict() -> GateVerdict:
        found = find_verdict(artifacts, package)
        if found is None:
            raise ValueError("no release_gate verdict is about this package")
        _intact(chain, VERDICT, found[0])
        if not found[1].passed:
            raise ValueError(f"its verdict is no: {'; '.join(found[1].misses()) or 'see the gates'}")
        return found[1]

    def report(link: str, name: str, digest: str) -> Artifact:
        artifact = _intact(chain, link, artifacts.version(name, digest))
        if artifact.info.get("package") != package:
            raise ValueError(f"it is about package {str(artifact.info.get('package'))[:12]}")
        return artifact

    if production:
        chain.approval = _follow(chain, APPROVAL, package, approval)
    chain.verdict = _follow(chain, VERDICT, package, verdict)
    if chain.verdict is not None:
        evaluation, load_test = chain.verdict.evaluation, chain.verdict.load_test
        chain.evaluation = _follow(chain, EVALUATION, evaluation, lambda: report(EVALUATION, "evaluation_report", evaluation))
        chain.load_test = _follow(chain, LOAD_TEST, load_test, lambda: report(LOAD_TEST, "load_test_report", load_test))


def _data(context: StageContext, chain: Chain) -> None:
    if chain.package is None:
        return
    artifacts, digest = context.artifacts, chain.package.manifest.dataset_version

    def dataset() -> DatasetVersion:
        return DatasetVersion.model_validate(_intact(chain, DATASET, artifacts.version("dataset_splits", digest)).json("dataset.json"))

    chain.dataset = _follow(chain, DATASET, digest, dataset)
    if chain.verdict is not None and chain.verdict.dataset != digest:
        judged = chain.verdict.dataset
        link = "dataset version of the evaluation"
        _follow(chain, link, judged, lambda: _intact(chain, link, artifacts.version("dataset_splits", judged)))
    for day, manifest in sorted(chain.dataset.days.items()) if chain.dataset else ():
        link = manifest_of(day)
        found = _follow(chain, link, manifest, partial(_stored, chain, link, artifacts, "validated_manifest", manifest, day))
        inventory = str(found.info.get("inventory", "")) if found else ""
        if inventory:
            link = inventory_of(day)
            _follow(chain, link, inventory, partial(_stored, chain, link, artifacts, "raw_images", inventory, day))


def _model(context: StageContext, chain: Chain) -> None:
    if chain.package is None or chain.package_artifact is None:
        return
    artifacts, weights = context.artifacts, chain.package.manifest.weights
    digest = str(chain.package_artifact.info.get("trained_model", ""))

    def trained() -> Artifact:
        if not digest:
            raise ValueError("the package does not name its trained_model")
        artifact = _intact(chain, TRAINED, artifacts.version("trained_model", digest))
        if weights not in artifact.files.values():
            raise ValueError(f"its weights are not the {weights[:12]} that the package was made of")
        return artifact

    chain.trained = _follow(chain, TRAINED, digest, trained)
    tuned = str(chain.trained.info.get("tuned_hyperparameters", "")) if chain.trained else ""
    if tuned:

        def hyperparameters() -> dict[str, Any]:
            return dict(_intact(chain, TUNED, artifacts.version("tuned_hyperparameters", tuned)).json("hyperparameters.json"))

        chain.hyperparameters = _follow(chain, TUNED, tuned, hyperparameters)


def _follow(chain: Chain, name: str, digest: str, find: Callable[[], _T]) -> _T | None:
    """Add a link; its problem is what `find` raises."""
    try:
        found = find()
    except (ValueError, OSError, KeyError, TypeError, PackageError) as error:
        reason = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        chain.links.append(Link(name=name, digest=digest, problem=reason or type(error).__name__))
        return None
    chain.links.append(Link(name=name, digest=digest, problem=""))
    return found


def _stored(chain: Chain, link: str, artifacts: ArtifactStore, name: str, digest: str, day: str) -> Artifact:
    return _intact(chain, link, artifacts.version(name, digest, day))


def _intact(chain: Chain, link: str, artifact: Artifact) -> Artifact:
    """The artefact, kept under its link, every payload file read and its digest compared. Raises `ValueError` or `FileNotFoundError`."""
    chain.artifacts[link] = artifact
    artifact.verify()
    return artifact
