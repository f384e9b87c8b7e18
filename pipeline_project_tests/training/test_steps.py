"""The training and packaging steps on a small real project: determinism, resumption, refusals, parity."""

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline_project.ingest.features import measure_images
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.sample import generate_catalogue
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project.storage import ArtifactMissingError
from pipeline_project.trust.approvals import ApprovalRequiredError, record_approval
from pipeline_project.trust.signing import load_or_create_key

pytestmark = pytest.mark.slow
DAYS = [date(2026, 11, 1) + timedelta(days=n) for n in range(2)]


class NoTracker:
    """Stands where MLflow would: the steps' payloads do not depend on it (the real one runs in the end-to-end test)."""

    run_id = "none"

    def __init__(self) -> None:
        self.metrics: list[tuple[dict[str, float], int]] = []

    def __enter__(self) -> "NoTracker":
        return self

    def __exit__(self, *_: object) -> None: ...

    def log_params(self, params: dict[str, Any]) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int = 0) -> None:
        self.metrics.append((dict(metrics), step))

    def set_tags(self, tags: dict[str, str]) -> None: ...

    def log_file(self, name: str, data: bytes) -> None: ...


def open_project(folder: Path, home: str, **changes: Any) -> StageContext:
    values: dict[str, Any] = {
        "extends": "sample",
        "name": "small",
        "data": {"source": "photos", "start_date": DAYS[0]},
        "image": {"size": 32},
        "training": {"epochs": 3, "learning_rate": 0.001, "threads": 1},
        "tuning": {"trials": 3, "workers": 2, "epochs": 2, "batch_size": [16]},
        "cross_validation": {"folds": 2, "epochs": 1},
        **changes,
    }
    config = folder / f"{home}.yaml"
    config.write_text(yaml.safe_dump(values))
    return StageContext.open(load_settings(config, environment={"PIPELINE_HOME": str(folder / home)}))


def prepare(context: StageContext) -> None:
    from pipeline_project.dataset.versions import make_dataset_version

    for day in DAYS:
        take_inventory(context, day)
        validate_images(context, day)
        pack_images(context, day)
        measure_images(context, day)
    make_dataset_version(context)


def tune(context: StageContext) -> dict[str, Any]:
    from pipeline_project.training.tuning import conclude_study, run_trials

    for worker in range(context.settings.tuning.workers):
        run_trials(context, worker)
    conclude_study(context)
    study: dict[str, Any] = context.artifacts.latest("tuned_hyperparameters").json("study.json")
    return study


def train(context: StageContext) -> str:
    from pipeline_project.training.final import train_model

    return train_model(context, NoTracker).artifact.digest  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("steps")
    generate_catalogue(made / "photos", seed=5, days=DAYS, images_per_day=60)
    return made


@pytest.fixture(scope="module")
def trained(folder: Path) -> Iterator[StageContext]:
    context = open_project(folder, "first")
    prepare(context)
    tune(context)
    train(context)
    yield context


def test_the_same_inputs_give_the_same_payloads_in_another_home(folder: Path, trained: StageContext) -> None:
    again = open_project(folder, "second")
    prepare(again)
    tune(again)
    train(again)
    for name in ("dataset_splits", "tuned_hyperparameters", "trained_model"):
        assert again.artifacts.latest(name).digest == trained.artifacts.latest(name).digest, name


def test_every_trial_is_kept_and_a_finished_study_runs_no_more(trained: StageContext) -> None:
    from pipeline_project.training.tuning import run_trials

    study = trained.artifacts.latest("tuned_hyperparameters").json("study.json")
    assert len(study["trials"]) == trained.settings.tuning.trials
    assert {row["worker"] for row in study["trials"]} == {0, 1}
    assert run_trials(trained, 0) == run_trials(trained, 1) == 0


def test_a_killed_worker_leaves_no_trial_running(folder: Path) -> None:
    from optuna.trial import TrialState

    from pipeline_project.training.studies import open_study
    from pipeline_project.training.tuning import run_trials, study_name

    context = open_project(folder, "killed")
    prepare(context)
    study = open_study(context.settings, study_name(context))
    trial = study.ask()  # what a SIGKILL in the middle of a trial leaves behind
    trial.set_user_attr("worker", 0)
    assert run_trials(context, 0) == 2
    states = [t.state for t in study.get_trials() if t.user_attrs.get("worker") == 0]
    assert TrialState.RUNNING not in states
    assert states.count(TrialState.FAIL) == 1


def test_a_study_is_not_concluded_without_the_trials_of_a_worker_that_never_ran(folder: Path, trained: StageContext) -> None:
    """What a run leaves that was killed while it planned its workers: its repetition has no step for the second one."""
    from pipeline_project.training.tuning import conclude_study, finish_study, run_trials

    context = open_project(folder, "half")
    prepare(context)
    run_trials(context, 0)
    with pytest.raises(ValueError, match="2 of the 3 trials .* were run. Materialize tuned_hyperparameters again"):
        conclude_study(context)
    assert finish_study(context).artifact.digest == trained.artifacts.latest("tuned_hyperparameters").digest


def test_folds_that_no_step_has_trained_are_trained_before_they_are_gathered(folder: Path, trained: StageContext) -> None:
    from pipeline_project.training.cross_validation import conclude_folds, finish_folds, run_fold

    with pytest.raises(ArtifactMissingError, match="cross_validation_fold of fold-0"):
        conclude_folds(trained)
    run_fold(trained, 0)
    assert len(finish_folds(trained).artifact.json("report.json")["folds"]) == trained.settings.cross_validation.folds


def test_the_best_epochs_weights_are_kept(trained: StageContext) -> None:
    record = trained.artifacts.latest("trained_model").json("training.json")
    best = record["history"][record["best_epoch"] - 1]
    assert best["val_accuracy"] == max(epoch["val_accuracy"] for epoch in record["history"])
    assert record["metrics"]["accuracy"] == pytest.approx(best["val_accuracy"], abs=1e-6)


def test_a_changed_architecture_waits_for_an_approval(folder: Path, trained: StageContext) -> None:
    from pipeline_project.training.final import train_model

    changed = open_project(folder, "first", model={"head_hidden": 32})
    with pytest.raises(ApprovalRequiredError, match="head_hidden from 64 to 32") as refusal:
        train_model(changed, NoTracker)  # type: ignore[arg-type]
    key = load_or_create_key(changed.settings.home / "keys" / "ada.pem", changed.settings.trusted_approvers)
    record_approval(changed.artifacts.bytes, key, refusal.value.kind, refusal.value.subject, approver="ada", reason="smaller head")
    before = trained.artifacts.latest("trained_model").digest
    assert train_model(changed, NoTracker).artifact.digest != before  # type: ignore[arg-type]
    trained.artifacts.bytes.delete("artifacts/approvals/baselines/model_architecture_changes.json")
    train(trained)


def test_folds_partition_the_images_and_keep_duplicates_together(trained: StageContext) -> None:
    from pipeline_project.training.cross_validation import _fold_of, _pool, conclude_folds, run_fold

    dataset = trained.artifacts.latest("dataset_splits")
    images, labels, groups = _pool(trained, dataset)
    folds = _fold_of(labels, groups, 5, 0)
    assert set(folds) == set(range(5))
    for group in set(groups):
        assert len(set(folds[groups == group])) == 1
    for fold in range(2):
        run_fold(trained, fold)
    report = conclude_folds(trained).artifact.json("report.json")
    assert sum(fold["images"] for fold in report["folds"]) == len(images)


def test_more_folds_than_images_of_a_class_is_said_clearly() -> None:
    from pipeline_project.training.cross_validation import _fold_of

    with pytest.raises(ValueError, match=r"cross_validation\.folds"):
        _fold_of(np.array([0, 0, 0, 1, 1, 1]), np.array(list("abcdef")), 5, 0)


def test_the_package_answers_like_the_trained_model_and_is_reproducible(trained: StageContext) -> None:
    from pipeline_project.packaging.build import build_package
    from pipeline_project.packaging.checks import check_package
    from pipeline_project.packaging.package import load_package

    first = build_package(trained).artifact
    assert build_package(trained).artifact.digest == first.digest
    outcomes = {outcome.name: outcome for outcome in check_package(trained)}
    assert outcomes["transform_parity"].passed, outcomes["transform_parity"].detail
    assert first.info["parity"]["fp32_max_logit_difference"] <= 1e-3
    package = load_package(trained.artifacts, first.digest, trained.settings.trusted_signers)
    assert package.manifest.classes == trained.settings.data.classes
    assert str(trained.settings.home) not in json.dumps(package.manifest.model_dump(mode="json"))
    for file in first.files:
        assert b"site-packages" not in first.read(file)


def test_temperature_never_makes_a_perfect_validation_certain() -> None:
    from pipeline_project.packaging.build import _temperature

    logits = np.eye(5, dtype=np.float32)[np.arange(200) % 5] * 8
    temperature = _temperature(logits, np.arange(200) % 5)
    scaled = np.exp(logits[0] / temperature)
    assert 0.98 < scaled.max() / scaled.sum() < 0.999
