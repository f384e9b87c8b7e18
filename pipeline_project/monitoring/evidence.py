"""What was found out about a package before its release: the verdict of the gates, and the accuracy on the test split."""

from dataclasses import dataclass

from pipeline_project.contracts import GateVerdict
from pipeline_project.storage import Artifact, ArtifactStore
from pipeline_project.storage.artifacts import ZONES


@dataclass(frozen=True)
class TestScore:
    """Accuracy of a package on its test split: `correct` of `images`."""

    __test__ = False  # no test class, whatever its name says

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.correct / self.images


def all_versions(artifacts: ArtifactStore, name: str) -> list[Artifact]:
    """Every stored version of an asset without partitions, oldest first. Raises `ValueError` at a record that was changed."""
    prefix = f"{ZONES.get(name, 'artifacts')}/{name}/all/"
    keys = [key for key in artifacts.bytes.list(prefix) if key.endswith("/artifact.json")]
    found = [artifacts.version(name, key.split("/")[-2]) for key in keys]
    return sorted(found, key=lambda artifact: (artifact.created, artifact.digest))


def find_verdict(artifacts: ArtifactStore, package: str) -> tuple[Artifact, GateVerdict] | None:
    """The newest verdict that lets a package pass, or where none does the newest on it; None where nobody judged it."""
    found = []
    for artifact in all_versions(artifacts, "release_gate"):
        verdict = GateVerdict.model_validate(artifact.json("verdict.json"))
        if verdict.package == package:
            found.append((artifact, verdict))
    return max(found, key=lambda item: (item[1].passed, item[0].created), default=None)


def find_evaluation(artifacts: ArtifactStore, package: str) -> Artifact | None:
    """The newest evaluation_report of a package, or None."""
    found = [artifact for artifact in all_versions(artifacts, "evaluation_report") if artifact.info.get("package") == package]
    return found[-1] if found else None


def score_on_test(artifacts: ArtifactStore, package: str) -> TestScore | None:
    """How the package did on its test split, or None where it was not evaluated."""
    artifact = find_evaluation(artifacts, package)
    if artifact is None:
        return None
    report = artifact.json("evaluation.json")
    accuracy = report["performance"]["accuracy"]
    images = int(accuracy.get("size") or report["images"])
    return TestScore(round(float(accuracy["value"]) * images), images)
