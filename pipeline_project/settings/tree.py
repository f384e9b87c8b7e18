"""The settings tree: every value the platform can be told, with its type, unit and range.

Values have no defaults here: `config/product_images.yaml` holds every one of them, so a reader finds a value in exactly one place.
Ratios and accuracies are 0-1 (decision D1). Nothing in this module touches the disk or the network.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

Ratio = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=1, le=65535)]
Cron = Annotated[str, Field(pattern=r"^\S+ \S+ \S+ \S+ \S+$", description="five cron fields, UTC")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,47}$", description="lower-case letters, digits and dashes, at most 48")]
Architecture = Literal["resnet50", "resnet18", "mobilenet_v3_small", "small_cnn"]


class Section(BaseModel):
    """A branch of the tree: immutable, and an unknown key is an error rather than a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TableSettings(Section):
    """How to read a source that is a table of images (R49): a row an image, with its label beside it."""

    location_column: str = Field(description="path or URL of the image")
    day_column: str = Field(description="the image's day, YYYY-MM-DD; empty: the day it was first seen")
    query: str = Field(description="what to select from a database source; empty for files")
    hosts: list[str] = Field(description="hosts that image URLs may name; others are refused")


class DataSettings(Section):
    """Where images and labels come from (R20-R22)."""

    source: str | dict[Name, str] = Field(
        min_length=1,
        description="a folder; s3://, gs:// or az://bucket/prefix/; a table of images (.csv, .parquet, or the name of an environment "
        "variable with a database URL as env:NAME); or several of them as {name: address}",
    )
    table: TableSettings
    labels_file: str
    image_column: str
    label_column: str
    classes: list[str] = Field(min_length=2, description="the label domain, in the order of the model's outputs")
    slice_columns: list[str] = Field(description="columns of labels.csv to compare accuracy over (D12)")
    text_columns: list[str] = Field(description="columns of free text, searched for personal data (R190)")
    start_date: date = Field(description="the first day partition; an earlier object is an error")

    @property
    def folder(self) -> Path | None:
        """The source, where it is one folder of this machine."""
        if not isinstance(self.source, str) or "://" in self.source or self.source.startswith("env:"):
            return None
        path = Path(self.source)
        return None if path.suffix in (".csv", ".parquet") else path

    @property
    def shown_source(self) -> str:
        """The source for people and records."""
        return self.source if isinstance(self.source, str) else ", ".join(f"{name}: {place}" for name, place in self.source.items())

    @field_validator("classes")
    @classmethod
    def _classes_are_distinct(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) != len(classes) or any(not name.strip() for name in classes):
            raise ValueError("class names must be distinct and not blank")
        return classes


class StoreSettings(Section):
    """The artefact store with its three zones processed-data/, features/ and artifacts/ (R32)."""

    root: str = Field(min_length=1, description="s3://bucket/prefix, or a folder (relative to the runtime home)")
    endpoint_url: str | None = Field(description="an S3-compatible endpoint other than AWS")
    encryption: Literal["none", "AES256", "aws:kms"] = Field(description="server-side encryption at rest (R191)")


class TrustSettings(Section):
    """Whose signatures count. Paths are relative to the runtime home; in production they are mounted secrets."""

    signing_key: str = Field(description="private key that signs packages; made on first use on a laptop")
    signers: str = Field(description="folder of public keys whose packages may be served")
    approvers: str = Field(description="folder of public keys whose approvals count")


class ImageSettings(Section):
    """The one transform of training and serving (R25, R26)."""

    size: int = Field(ge=16, le=1024, description="side of the square model input, pixels")
    mean: tuple[Ratio, Ratio, Ratio]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class IngestSettings(Section):
    """What makes an image or a day acceptable (R33, R40-R45)."""

    formats: list[Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]] = Field(min_length=1)
    max_pixels: PositiveInt = Field(description="a larger image is quarantined before it is decoded")
    max_bytes: PositiveInt
    min_side: PositiveInt = Field(description="pixels")
    max_reject_rate: Ratio = Field(description="share of a day's images that may be quarantined")
    max_missing_label_rate: Ratio = Field(description="share of a day's images that may lack a label")
    max_day_drift: PositiveFloat = Field(description="PSI of a feature against the days before, above which the day is flagged")
    workers: PositiveInt = Field(description="processes that decode; does not change results")
    decode_seconds: PositiveFloat = Field(description="a worker that takes longer for one image is killed, the image quarantined")
    decode_memory_mb: PositiveInt = Field(description="a worker may not use more memory")
    settle_minutes: float = Field(ge=0, description="a day is asked for once its newest object is this old: uploads have settled")
    marker: str = Field(
        description="name of an object that says a day's folder is complete, such as _SUCCESS; empty: settle_minutes decides"
    )
    scan_keys: PositiveInt = Field(description="keys that one tick of the sensor may list; the next goes on from there")
    scan_seconds: float = Field(gt=0, le=20, description="seconds that one tick of the sensor may take")
    notifications: str = Field(description="URL of an SQS queue with the bucket's event notifications; empty: the source is listed")
    schedule: Cron


class PrivacySettings(Section):
    """Personal data in pictures and text (R190)."""

    faces: Literal["mask", "report", "off"] = Field(description="mask: pixels of faces are blurred in everything downstream")
    faces_model_uri: str = Field(description="a face detector in ONNX (YuNet), a path or s3:// address; empty: the bundled cascade")
    phone_regions: list[str] = Field(description="countries whose telephone numbers are looked for beside international ones, ISO 3166")

    @field_validator("faces", mode="before")
    @classmethod
    def _yaml_reads_off_as_false(cls, value: object) -> object:
        return "off" if value is False else value


class DatasetSettings(Section):
    """How images are split (R23, R24)."""

    train: Ratio
    validation: Ratio
    test: Ratio
    near_duplicate_distance: int = Field(ge=0, le=16, description="bits of 64 in which two perceptual hashes may differ")

    @model_validator(mode="after")
    def _ratios_sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6 or min(self.train, self.validation, self.test) <= 0:
            raise ValueError(f"train + validation + test must be 1, each above 0; they sum to {total:g}")
        return self


class AugmentationSettings(Section):
    """Random changes of training images only (R28, D4)."""

    horizontal_flip: Ratio
    rotation_degrees: float = Field(ge=0, le=180)
    crop_min_scale: float = Field(gt=0, le=1, description="smallest area of a random resized crop; 1 switches it off")
    brightness: Ratio
    contrast: Ratio


class ModelSettings(Section):
    """The network (R80, R81)."""

    architecture: Architecture
    pretrained: bool = Field(description="start from ImageNet weights (downloaded unless weights_uri is set)")
    weights_uri: str | None = Field(description="a .safetensors file of backbone weights: a path or s3:// address")
    head_hidden: PositiveInt
    dropout: float = Field(ge=0, lt=1)


class TrainingSettings(Section):
    """The final fit (R82-R87, D2, D3)."""

    batch_size: PositiveInt
    learning_rate: PositiveFloat
    epochs: PositiveInt
    frozen_epochs: NonNegativeInt = Field(description="epochs with the backbone frozen; only with loaded weights")
    fine_tune_factor: float = Field(gt=0, le=1, description="learning rate after unfreezing, relative to before")
    plateau_patience: PositiveInt
    plateau_factor: float = Field(gt=0, lt=1)
    early_stopping_patience: PositiveInt
    device: Literal["auto", "cpu", "cuda"]
    threads: PositiveInt = Field(description="CPU threads; results are reproducible at a fixed number")
    seed: NonNegativeInt
    schedule: Cron


class TuningSettings(Section):
    """The search for hyperparameters (R88, R89)."""

    method: Literal["bayesian_optimization", "random"]
    trials: PositiveInt
    workers: PositiveInt = Field(description="dynamic steps that share the trials")
    storage: str = Field(description="Optuna storage URL that all workers reach; empty: a journal file in the runtime home")
    epochs: PositiveInt = Field(description="epochs of a trial that is not pruned")
    learning_rate: tuple[PositiveFloat, PositiveFloat]
    batch_size: list[PositiveInt] = Field(min_length=1)
    dropout: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        for name in ("learning_rate", "dropout"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be [low, high]; {low:g} is above {high:g}")
        return self


class CrossValidationSettings(Section):
    """Stratified folds (R91)."""

    folds: int = Field(ge=2, le=20)
    epochs: PositiveInt
    max_spread: Ratio = Field(description="standard deviation of the folds' accuracy above which a check warns")


class TrackingSettings(Section):
    """MLflow (R120, R128)."""

    experiment: str
    uri: str = Field(description="tracking server; empty: a database in the runtime home")
    model_name: str


class PackagingSettings(Section):
    """Which exported variant is served, and how close it must be to the trained model."""

    preference: list[Literal["int8", "fp32"]] = Field(min_length=1, description="the first variant within max_accuracy_drop is served")
    calibration_images: PositiveInt
    max_accuracy_drop: Ratio = Field(description="allowed loss of validation accuracy against the trained weights")
    max_logit_difference: PositiveFloat = Field(description="fp32 export against the trained model")


class GateSettings(Section):
    """The thresholds of release (R100-R108, R197, D13)."""

    mode: Literal["point", "lower_bound"]
    accuracy: Ratio
    precision_per_class: Ratio
    recall_per_class: Ratio
    macro_f1: Ratio
    p99_latency_ms: PositiveFloat
    throughput_rps: PositiveFloat
    memory_mb: PositiveFloat
    cost_per_prediction_usd: PositiveFloat
    max_slice_gap: Ratio = Field(description="largest allowed difference of accuracy between slices of one column")
    min_slice_size: PositiveInt
    max_expected_calibration_error: Ratio
    min_corruption_accuracy: Ratio = Field(description="accuracy under mild corruptions, relative to clean accuracy")


class EvaluationSettings(Section):
    """How the evidence is measured."""

    confidence: float = Field(gt=0.5, lt=1)
    adversarial_epsilon: Ratio = Field(description="largest change of a pixel, of 1")
    explained_images: PositiveInt
    load_test_s: float = Field(gt=0, le=600)
    load_test_connections: PositiveInt
    vcpu_hour_usd: PositiveFloat = Field(description="price of one virtual core for an hour")


class EnvironmentSettings(Section):
    """One serving environment (R150-R152)."""

    port: Port
    url: str = Field(description="where clients reach it; empty: this machine at `port`")
    workers: PositiveInt = Field(description="worker processes of the local supervisor")
    replicas: PositiveInt
    cpu: PositiveFloat
    memory_gb: PositiveFloat
    gpu: Literal["none", "optional"]
    canary_weight: float = Field(gt=0, lt=1, description="share of traffic that a new package gets first")
    canary_steps: list[Ratio] = Field(description="weights between the canary and the full rollout")
    step_seconds: float = Field(ge=0, description="how long each canary step is watched")

    @property
    def address(self) -> str:
        """The URL that clients use."""
        return self.url.rstrip("/") or f"http://127.0.0.1:{self.port}"


class AutoscalingSettings(Section):
    """HPA of production (R153)."""

    min_replicas: PositiveInt
    max_replicas: PositiveInt
    cpu_percent: int = Field(ge=1, le=100)
    memory_percent: int = Field(ge=1, le=100)


class ABTestSettings(Section):
    """Champion against challenger (R157)."""

    enabled: bool
    champion_weight: Ratio
    challenger_weight: Ratio

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Self:
        if abs(self.champion_weight + self.challenger_weight - 1) > 1e-6:
            raise ValueError("champion_weight + challenger_weight must be 1")
        return self


class GuardSettings(Section):
    """When the supervisor takes a canary out on its own."""

    min_requests: PositiveInt
    max_error_rate: Ratio
    max_p99_ms: PositiveFloat


class ServingSettings(Section):
    """The server (R144, R150-R160)."""

    host: str
    max_upload_bytes: PositiveInt
    poll_seconds: PositiveFloat = Field(description="how often workers look for a new desired-state document")
    thumbnail_share: Ratio = Field(description="share of requests whose thumbnail is logged, for the drift gallery")
    staging: EnvironmentSettings
    production: EnvironmentSettings
    autoscaling: AutoscalingSettings
    ab_test: ABTestSettings
    guard: GuardSettings


class MonitoringSettings(Section):
    """Drift, performance and alerts (R170-R179, D10, D11)."""

    schedule: Cron
    drift_share: Ratio = Field(description="PSI per feature, and share of drifted features, that count as drift (R171)")
    kl_divergence: PositiveFloat = Field(description="predicted classes against the training distribution (R172)")
    min_predictions: PositiveInt = Field(description="no drift verdict below this many predictions (D11)")
    significance: float = Field(gt=0, lt=0.5)
    critical_accuracy: Ratio
    warning_p99_latency_ms: PositiveFloat
    warning_drift_score: Ratio
    warning_roc_auc: Ratio = Field(description="macro ROC-AUC of labelled predictions (R182); the specification names no value")
    pre_alert_accuracy: Ratio
    pre_alert_p99_latency_ms: PositiveFloat
    late_truth_days: PositiveInt
    channels: list[Literal["slack", "email", "pagerduty"]]


class AutomationSettings(Section):
    """What runs without being asked (R40, R41, R95, R183)."""

    default: Literal["running", "stopped"] = Field(description="of schedules and sensors that start runs; the UI can switch each")
    max_days_a_tick: PositiveInt = Field(description="days that one tick of a sensor may ask for")
    max_attempts: PositiveInt = Field(description="runs for one state of a day before a person must look")
    retry_minutes: PositiveFloat = Field(description="wait before a failed day is asked for again; doubles each time")


class RetentionSettings(Section):
    """What `pipeline gc` keeps beside what is live."""

    days: NonNegativeInt = Field(description="nothing younger is removed")
    models: PositiveInt = Field(description="newest trained models that are kept with all they need, live or not")
    documents: PositiveInt = Field(description="newest deployment documents of each environment whose packages are kept for rolling back")
    run_days: NonNegativeInt = Field(description="Dagster runs younger than this stay in the event log")


class LocalSettings(Section):
    """Ports of the user interfaces on a laptop; all listen on 127.0.0.1."""

    dagster_port: Port
    audit_port: Port = Field(description="the same UI, read-only, for auditors")
    mlflow_port: Port
    demo_requests: PositiveInt = Field(description="how many predictions `make demo` asks for")


class Settings(Section):
    """The whole tree. `home` is where every runtime file of one project lives; it is set by the loader, never by YAML."""

    name: Name
    profile: Literal["laptop", "ci", "production"]
    data: DataSettings
    store: StoreSettings
    trust: TrustSettings
    image: ImageSettings
    ingest: IngestSettings
    privacy: PrivacySettings
    dataset: DatasetSettings
    augmentation: AugmentationSettings
    model: ModelSettings
    training: TrainingSettings
    tuning: TuningSettings
    cross_validation: CrossValidationSettings
    tracking: TrackingSettings
    packaging: PackagingSettings
    gates: GateSettings
    evaluation: EvaluationSettings
    serving: ServingSettings
    monitoring: MonitoringSettings
    automation: AutomationSettings
    retention: RetentionSettings
    local: LocalSettings
    home: Path

    @property
    def store_root(self) -> str:
        """The artefact store's address: an s3:// URI, or an absolute folder."""
        return self.store.root if "://" in self.store.root else str(self.home / self.store.root)

    @property
    def signing_key(self) -> Path:
        """The private key that signs packages."""
        return self.home / self.trust.signing_key

    @property
    def trusted_signers(self) -> Path:
        """The folder of public keys whose packages may be served."""
        return self.home / self.trust.signers

    @property
    def trusted_approvers(self) -> Path:
        """The folder of public keys whose approvals count."""
        return self.home / self.trust.approvers

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI; a SQLite database in the runtime home unless one is configured (R120)."""
        return self.tracking.uri or f"sqlite:///{self.home}/mlflow.db"
