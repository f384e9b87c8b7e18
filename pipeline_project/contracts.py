"""The records that stages hand to each other: frozen, versioned, validated when read.

A field is added with a new `version`; readers accept every version they know and refuse others, so old artefacts stay readable.
Digests are 64 hexadecimal digits of SHA-256. Ratios are 0-1. Times are UTC.
"""

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Split = Literal["train", "validation", "test"]
Environment = Literal["staging", "production"]
Resample = Literal["supersampled", "bilinear"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
PROBE_PREFIX = "probe-"  # request ids of our own checks: logged like any other, left out of monitoring


class Record(BaseModel):
    """Immutable; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- ingest -----------------------------------------------------------------------------------------------------------------


class LabelRow(Record):
    """One row of labels.csv. `image` is the object's key in the source; `attributes` are the other columns, as text."""

    image: str
    label: str | None
    attributes: dict[str, str]


class ManifestRow(Record):
    """One accepted image. `image_id` is the SHA-256 of its bytes; `perceptual_hash` is 64 bits in hexadecimal.

    `notes` are the codes of what was converted on the way to RGB pixels (and "repaired"), sorted; `faces` is how many were found, None
    where nobody looked.
    """

    image_id: Digest
    key: str
    label: str
    width: int
    height: int
    mode: str
    format: str
    size: int
    perceptual_hash: str
    attributes: dict[str, str]
    notes: list[str] = []
    faces: int | None = None


class Reject(Record):
    """One image or label row that was not accepted, and why. `code` is stable."""

    key: str
    code: str
    detail: str
    label: str | None
    image_id: Digest | None


class DayVerdict(Record):
    """Whether a day may be used for training."""

    version: Literal[1] = 1
    day: date
    passed: bool
    objects: int
    accepted: int
    rejected: int
    reject_rate: float
    reasons: list[str]


# --- dataset ----------------------------------------------------------------------------------------------------------------


class SplitRow(Record):
    """Where one image went: its row in its day's pack, its class's index, its group of duplicates."""

    image_id: Digest
    day: date
    pack_row: int
    class_index: int
    group: str
    split: Split


class DatasetVersion(Record):
    """What a training set is made of; its lineage of record. `days`, `packs`, `features`: each day's manifest, pack, measurements.

    `left_out_days` was filled in version 1; since version 2 the days left out stand in the artefact's info.
    """

    version: Literal[1, 2] = 2
    days: dict[str, Digest]
    packs: dict[str, Digest]
    features: dict[str, Digest]
    left_out_days: dict[str, str] = {}
    left_out_images: dict[str, str]
    parent: Digest | None
    classes: list[str]
    counts: dict[Split, dict[str, int]]
    largest_group: int


# --- training and packaging -------------------------------------------------------------------------------------------------


class Hyperparameters(Record):
    """What tuning chooses (R89)."""

    learning_rate: float
    batch_size: int
    dropout: float


class PackageManifest(Record):
    """`package.json`: what a package holds and how it is to be used. Its bytes are what is signed.

    The served graph takes `pixels` (N, size, size, 3) uint8 and gives `logits` (N, C), `features` (N, D) and `feature_map`
    (N, D, h, w), float32. Probabilities are softmax(logits / temperature).
    """

    version: Literal[1] = 1
    architecture: str
    classes: list[str]
    image_size: int
    resample: Resample
    """how originals become `image_size` pixels (`imaging.to_pixels`); packages of before "supersampled" have "bilinear"."""
    temperature: float = Field(gt=0)
    variant: Literal["int8", "fp32"]
    graph: str
    validation_accuracy: dict[str, float]
    training_class_shares: list[float]
    dataset_version: Digest
    weights: Digest
    files: dict[str, Digest]


# --- evaluation -------------------------------------------------------------------------------------------------------------


class Measurement(Record):
    """One number held against its threshold. `lower_bound` and `needed` (sample size) are given where they can be computed (D13).

    `note` says what else decided, or what to do.
    """

    name: str
    value: float
    threshold: float
    comparison: Literal[">=", "<="]
    passed: bool
    lower_bound: float | None = None
    needed: int | None = None
    note: str | None = None

    def __str__(self) -> str:
        word = "meets" if self.passed else "misses"
        return f"{self.name} = {self.value:.4g} {word} {self.comparison} {self.threshold:g}" + (f" ({self.note})" if self.note else "")


class GateResult(Record):
    """One quality gate (R197): its measurements and the artefact they come from."""

    gate: str
    passed: bool
    evidence: str
    measurements: list[Measurement]


class GateVerdict(Record):
    """Whether a package may be released; bound to the exact package, data, evidence and settings."""

    version: Literal[1] = 1
    passed: bool
    package: Digest
    dataset: Digest
    evaluation: Digest
    load_test: Digest
    gate_settings: Digest
    gates: list[GateResult]

    def misses(self) -> list[str]:
        """Each missed number in words."""
        return [f"{gate.gate}: {m}" for gate in self.gates for m in gate.measurements if not m.passed]


# --- release and serving ----------------------------------------------------------------------------------------------------


class Route(Record):
    """A share of an environment's traffic for one package. `package` is the digest of the model_package artefact."""

    name: Literal["champion", "canary", "challenger"]
    package: Digest
    weight: float = Field(ge=0, le=1)


class DesiredState(Record):
    """The numbered document that says what an environment serves. Created once, never overwritten."""

    version: Literal[1] = 1
    environment: Environment
    number: int = Field(ge=1)
    routes: list[Route] = Field(min_length=1)
    reason: str
    author: str
    created: datetime

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> "DesiredState":
        if abs(sum(route.weight for route in self.routes) - 1) > 1e-6:
            raise ValueError("the routes' weights must sum to 1")
        if len({route.name for route in self.routes}) != len(self.routes):
            raise ValueError("a route's name may occur once")
        return self


class ReplicaReport(Record):
    """What one worker process serves at the moment. `refused` says for each package why it was not loaded.

    `document` is the document it serves (0 for none), `newest` the newest one it has considered: they differ when that is refused.
    """

    version: Literal[1] = 1
    environment: Environment
    replica: str
    process: int
    document: int
    newest: int
    packages: list[Digest]
    refused: dict[str, str]
    ready: bool
    reported: datetime


class PredictionRecord(Record):
    """One answered request. `sequence` counts up by one from 1 for each `worker` (unique for ever), so a gap is a lost record."""

    version: Literal[1] = 1
    request_id: str
    time: datetime
    environment: Environment
    worker: str
    sequence: int
    document: int
    route: str
    package: Digest
    image_id: Digest | None
    status: int
    predicted_class: str | None
    confidence: float | None
    probabilities: list[float] | None
    latency_ms: float
    measurements: dict[str, float] | None
    features: list[float] | None
    thumbnail: str | None = None


class TruthRecord(Record):
    """The true label of an answered request (R180)."""

    version: Literal[1] = 1
    request_id: str
    label: str
    source: str
    received: datetime
