"""The settings: the specified values, what a user's file may say, and errors that lead to the line."""

from datetime import date
from pathlib import Path

import pytest

from pipeline_project.settings import Settings, SettingsError, load_settings

OWN_PROJECT = """\
extends: sample
name: my-shop
data:
  source: photos
  classes: [mugs, plates, bowls]
  start_date: 2026-10-01
  slice_columns: []
  text_columns: []
training: {epochs: 5}
tuning: {trials: 12}
"""


@pytest.fixture
def product() -> Settings:
    return load_settings("product_images", environment={})


def load_text(folder: Path, text: str, **environment: str) -> Settings:
    path = folder / "settings.yaml"
    path.write_text(text, "utf-8")
    return load_settings(path, environment=environment)


def error_of(folder: Path, text: str, **environment: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_text(folder, text, **environment)
    return str(caught.value)


# --- the specified values -----------------------------------------------------------------------------------------------------


def test_data_and_splits_are_as_specified(product: Settings) -> None:
    assert product.data.source == "s3://company-data/product-images/"
    assert product.data.labels_file == "labels.csv"
    assert product.data.classes == ["electronics", "clothing", "home", "books", "toys"]
    assert (product.dataset.train, product.dataset.validation, product.dataset.test) == (0.7, 0.15, 0.15)
    assert product.image.size == 224
    assert product.image.mean == (0.485, 0.456, 0.406)
    assert product.image.std == (0.229, 0.224, 0.225)
    assert product.store.root == "s3://company-ml/"
    assert {"JPEG", "PNG"} <= set(product.ingest.formats)


def test_augmentation_is_as_specified(product: Settings) -> None:
    assert product.augmentation.horizontal_flip == 0.5
    assert product.augmentation.rotation_degrees == 15
    assert product.augmentation.brightness == 0.2
    assert product.augmentation.contrast == 0.2
    assert product.augmentation.crop_min_scale < 1


def test_model_and_training_are_as_specified(product: Settings) -> None:
    assert product.model.architecture == "resnet50"
    assert product.model.pretrained is True
    assert product.model.dropout == 0.3
    assert product.model.head_hidden == 512
    assert product.training.frozen_epochs > 0
    assert (product.training.batch_size, product.training.learning_rate, product.training.epochs) == (32, 0.001, 50)
    assert product.training.plateau_patience == 5
    assert product.training.early_stopping_patience == 10
    assert product.training.device == "auto"
    assert product.training.schedule.split()[2:4] == ["*", "*"]
    assert product.training.schedule.split()[4] in set("01234567"), "weekly"


def test_search_and_folds_are_as_specified(product: Settings) -> None:
    assert product.tuning.method == "bayesian_optimization"
    assert product.tuning.trials == 50
    assert product.tuning.learning_rate == (1e-4, 1e-2)
    assert product.tuning.batch_size == [16, 32, 64]
    assert product.tuning.dropout == (0.1, 0.5)
    assert product.cross_validation.folds == 5


def test_gates_are_as_specified(product: Settings) -> None:
    gates = product.gates
    assert gates.mode == "point"
    assert gates.accuracy == 0.85
    assert (gates.precision_per_class, gates.recall_per_class, gates.macro_f1) == (0.80, 0.80, 0.80)
    assert (gates.p99_latency_ms, gates.throughput_rps, gates.memory_mb) == (500, 100, 2048)
    assert gates.cost_per_prediction_usd == 0.001


def test_tracking_is_as_specified(product: Settings) -> None:
    assert product.tracking.experiment == "product-image-classification"
    assert product.tracking.uri == ""
    assert product.tracking.model_name == "product-classifier"


def test_serving_is_as_specified(product: Settings) -> None:
    staging, production = product.serving.staging, product.serving.production
    assert (staging.replicas, staging.cpu, staging.memory_gb, staging.gpu) == (1, 2, 4, "optional")
    assert staging.canary_weight == 0.10
    assert (production.replicas, production.cpu, production.memory_gb, production.gpu) == (3, 4, 8, "optional")
    assert (product.serving.host, production.port) == ("0.0.0.0", 8000)
    scaling = product.serving.autoscaling
    assert (scaling.min_replicas, scaling.max_replicas, scaling.cpu_percent, scaling.memory_percent) == (2, 10, 70, 80)
    split = product.serving.ab_test
    assert (split.enabled, split.champion_weight, split.challenger_weight) == (True, 0.8, 0.2)


def test_monitoring_is_as_specified(product: Settings) -> None:
    monitoring = product.monitoring
    assert monitoring.drift_share == 0.1
    assert monitoring.kl_divergence == 0.05
    assert monitoring.critical_accuracy == 0.80
    assert monitoring.warning_p99_latency_ms == 1000
    assert monitoring.warning_drift_score == 0.1
    assert monitoring.channels == ["slack", "email", "pagerduty"]
    assert (monitoring.pre_alert_accuracy, monitoring.pre_alert_p99_latency_ms) == (0.85, 500)
    assert monitoring.min_predictions >= 130
    assert monitoring.schedule.split()[2:] == ["*", "*", "*"], "daily"


def test_ingest_runs_daily(product: Settings) -> None:
    minute, hour, *rest = product.ingest.schedule.split()
    assert minute.isdigit()
    assert hour.isdigit()
    assert rest == ["*", "*", "*"]


def test_sample_profile_is_small_but_whole() -> None:
    sample = load_settings("sample", environment={})
    assert sample.profile == "laptop"
    assert 32 <= sample.image.size <= 64
    assert sample.tuning.trials >= 10
    assert sample.cross_validation.folds == 5
    assert sample.data.classes == ["electronics", "clothing", "home", "books", "toys"]
    assert sample.gates == load_settings("product_images", environment={}).gates, "a laptop must pass the same gates"
    assert sample.serving.host == "127.0.0.1"
    assert "://" not in sample.store_root


# --- a file of one's own ------------------------------------------------------------------------------------------------------


def test_ten_lines_describe_an_own_data_set(tmp_path: Path) -> None:
    assert len(OWN_PROJECT.splitlines()) == 10
    settings = load_text(tmp_path, OWN_PROJECT)
    assert settings.name == "my-shop"
    assert settings.data.classes == ["mugs", "plates", "bowls"]
    assert settings.data.start_date == date(2026, 10, 1)
    assert settings.training.epochs == 5
    assert settings.training.batch_size == 32, "what is not said comes from the extended file"


def test_relative_source_lies_beside_the_file_that_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "parent.yaml").write_text("extends: sample\ndata: {source: photos}\n")
    (tmp_path / "child.yaml").write_text("extends: base/parent.yaml\ntraining: {epochs: 3}\n")
    monkeypatch.chdir("/")
    settings = load_settings(tmp_path / "child.yaml", environment={})
    assert settings.data.source == str(tmp_path / "base" / "photos")
    assert settings.training.epochs == 3


def test_remote_source_stays_as_it_is(tmp_path: Path) -> None:
    assert load_text(tmp_path, "extends: sample\ndata: {source: 's3://bucket/x/'}\n").data.source == "s3://bucket/x/"


def test_config_and_home_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN_PROJECT)
    settings = load_settings(environment={"PIPELINE_CONFIG": str(tmp_path / "own.yaml"), "PIPELINE_HOME": str(tmp_path / "home")})
    assert settings.name == "my-shop"
    assert settings.home == tmp_path / "home"
    assert settings.store_root == str(tmp_path / "home" / "store")
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/home/mlflow.db"


def test_settings_are_immutable(product: Settings) -> None:
    with pytest.raises(ValueError, match="frozen"):
        product.gates.accuracy = 0.1  # type: ignore[misc]


# --- errors -------------------------------------------------------------------------------------------------------------------


def test_unknown_key_names_line_suggestion_and_allowed_keys(tmp_path: Path) -> None:
    message = error_of(tmp_path, "extends: sample\ntraining:\n  epochs: 3\n  learning_rat: 0.1\n")
    assert f"{tmp_path / 'settings.yaml'}:4" in message
    assert "training.learning_rat" in message
    assert "did you mean learning_rate?" in message
    assert all(key in message for key in ("batch_size", "epochs", "seed"))


def test_unknown_section_is_refused_and_home_is_not_offered(tmp_path: Path) -> None:
    message = error_of(tmp_path, "extends: sample\nwibble: 3\n")
    assert "settings.yaml:2: wibble: unknown key" in message
    assert "training" in message
    assert "home" not in message.partition("allowed here")[2]


@pytest.mark.parametrize(
    ("text", "line", "key", "said", "allowed"),
    [
        ("gates: {accuracy: 85}", 2, "gates.accuracy", "85", "less than or equal to 1"),
        ("training:\n  epochs: 0", 3, "training.epochs", "0", "greater than 0"),
        ("training:\n  epochs: many", 3, "training.epochs", "many", "integer"),
        ("model:\n  architecture: vgg", 3, "model.architecture", "vgg", "mobilenet_v3_small"),
        ("name: My Shop", 2, "name", "My Shop", "lower-case letters"),
        ("ingest:\n  schedule: daily", 3, "ingest.schedule", "daily", "five cron fields"),
        ("data:\n  classes: [a, a]", 3, "data.classes", "a", "distinct"),
        ("data:\n  start_date: soon", 3, "data.start_date", "soon", "date"),
        ("tuning:\n  learning_rate: [0.1, 0.001]", 2, "tuning", "0.1", "[low, high]"),
        ("serving:\n  ab_test:\n    champion_weight: 0.9", 3, "serving.ab_test", "0.9", "must be 1"),
        ("dataset:", 2, "dataset", "None", "dictionary"),
    ],
)
def test_bad_value_names_line_value_and_what_is_allowed(tmp_path: Path, text: str, line: int, key: str, said: str, allowed: str) -> None:
    message = error_of(tmp_path, f"extends: sample\n{text}\n")
    assert f"settings.yaml:{line}: {key}: " in message
    assert said in message
    assert allowed in message


def test_every_error_is_told_at_once(tmp_path: Path) -> None:
    message = error_of(tmp_path, "extends: sample\ntraining: {epochs: 0}\ngates: {accuracy: 2}\n")
    assert len(message.splitlines()) == 2


def test_splits_must_sum_to_one(tmp_path: Path) -> None:
    message = error_of(tmp_path, "extends: sample\ndataset:\n  train: 0.8\n")
    assert "settings.yaml:2: dataset: " in message
    assert "they sum to 1.1" in message


def test_empty_split_is_refused(tmp_path: Path) -> None:
    assert "each above 0" in error_of(tmp_path, "extends: sample\ndataset: {train: 0.85, validation: 0.15, test: 0}\n")


def test_missing_keys_lead_to_extends(tmp_path: Path) -> None:
    message = error_of(tmp_path, "name: x\n")
    assert "training: missing" in message
    assert "extends: product_images" in message


def test_duplicate_key_is_refused(tmp_path: Path) -> None:
    message = error_of(tmp_path, "extends: sample\ntraining:\n  epochs: 3\n  epochs: 4\n")
    assert "settings.yaml:4: training.epochs is said twice" in message


@pytest.mark.parametrize("spelling", ["b.yaml", "../{folder}/b.yaml"])
def test_extends_cycle_is_refused(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "a.yaml").write_text(f"extends: {spelling.format(folder=tmp_path.name)}\n")
    (tmp_path / "b.yaml").write_text(f"extends: {spelling.replace('b.yaml', 'a.yaml').format(folder=tmp_path.name)}\n")
    with pytest.raises(SettingsError, match="extends itself"):
        load_settings(tmp_path / "a.yaml", environment={})


def test_missing_file_names_the_shipped_profiles(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml: no such settings file.*product_images, sample"):
        load_settings(tmp_path / "nowhere.yaml", environment={})


@pytest.mark.parametrize("content", [b"a: [1\n", b"a: b: c\n", b"\xff\xfe\x00", b"a: !!python/object/apply:os.getcwd []\n"])
def test_not_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"bad\.yaml: not readable as UTF-8 YAML"):
        load_settings(tmp_path / "bad.yaml", environment={})


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n"])
def test_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "`key: value` lines" in error_of(tmp_path, text)


def test_home_cannot_be_set_in_the_file(tmp_path: Path) -> None:
    message = error_of(tmp_path, "extends: sample\nhome: /somewhere\n")
    assert "settings.yaml:2: home" in message
    assert "PIPELINE_HOME" in message


def test_environment_overrides_the_file(tmp_path: Path) -> None:
    settings = load_text(tmp_path, OWN_PROJECT, PIPELINE__TRAINING__EPOCHS="7", PIPELINE__DATA__CLASSES="[x, y]")
    assert settings.training.epochs == 7
    assert settings.data.classes == ["x", "y"]


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("PIPELINE__TRAINING__EPOCHS", "-1", "greater than 0"),
        ("PIPELINE__TRAINING__EPOCH", "3", "did you mean epochs?"),
        ("PIPELINE__NAME__DEEP", "3", "is a value, not a section"),
        ("PIPELINE__DATA__SOURCE", "[unclosed", "not a YAML value"),
        ("PIPELINE__HOME", "/x", "PIPELINE_HOME"),
    ],
)
def test_wrong_override_names_the_variable(tmp_path: Path, variable: str, value: str, reason: str) -> None:
    message = error_of(tmp_path, OWN_PROJECT, **{variable: value})
    assert f"environment variable {variable}" in message
    assert reason in message
