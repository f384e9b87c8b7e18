"""The settings tree: every value the platform can be told, with its type, unit and range.

Values have no defaults here: `config/product_images.yaml` holds every one of them, so a reader finds a value in exactly one place.
Ratios and accuracies are 0-1 (decision D1). Nothing in this module touches the disk or the network.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pipeline_project.settings.data import (
    DatasetSettings,
    DataSettings,
    ImageSettings,
    IngestSettings,
    PrivacySettings,
    StoreSettings,
    TableSettings,
)
from pipeline_project.settings.values import Architecture, Cron, Name, NonNegativeInt, Port, PositiveFloat, Ratio, Section

__all__ = ["DataSettings", "DatasetSettings", "ImageSettings", "IngestSettings", "PrivacySettings", "StoreSettings", "TableSettings"]


class TrustSettings(Section):
    """Whose signatures count. Paths are relative to the runtime home; in production they are mounted secrets."""

    signing_key: str = Field(description="private key that signs packages; made on first use on a laptop")
    signers: str = Field(description="folder of public keys whose packages may be served")
    approvers: str = Field(description="folder of public keys whose approvals count")


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
