"""The fit on a tiny learnable task: reproducible, best weights kept, stopped when it should be."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline_project.settings import load_settings
from pipeline_project.training.loop import ArrayDataset, EpochReport, FitPlan, FitResult, fit, predict
from pipeline_project.training.models import ClassifierNetwork, build_model

SAMPLE = load_settings("sample", environment={})


def dataset(count: int, seed: int, *, learnable: bool = True) -> ArrayDataset:
    """Noise of 16 x 16 pixels; class 1 has a bright square in the middle."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (count, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % 2
    if learnable:
        images[labels == 1, 4:12, 4:12] += np.uint8(110)
    return ArrayDataset(images, labels)


TRAIN, VALIDATION = dataset(41, 1), dataset(20, 2)


def plan(training: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **changes: Any) -> FitPlan:
    values: dict[str, Any] = {
        "model": SAMPLE.model.model_copy(update=model or {}),
        "training": SAMPLE.training.model_copy(update={"threads": 1, **(training or {})}),
        "augmentation": SAMPLE.augmentation,
        "image": SAMPLE.image,
        "num_classes": 2,
        "learning_rate": 0.003,
        "batch_size": 8,
        "dropout": 0.1,
        "epochs": 4,
        "seed": 5,
    }
    return FitPlan(**{**values, **changes})


def curve(result: FitResult) -> list[EpochReport]:
    return [dataclasses.replace(report, seconds=0) for report in result.history]


def network_of(result: FitResult) -> ClassifierNetwork:
    network = build_model(SAMPLE.model, 2)
    network.load_state_dict(result.best_state)
    return network


def test_it_learns() -> None:
    result = fit(plan(epochs=8), TRAIN, VALIDATION)
    assert max(report.val_accuracy for report in result.history) >= 0.9
    assert result.stopped_because == "epochs completed"
    assert [report.epoch for report in result.history] == list(range(1, 9))


def test_the_same_plan_gives_byte_identical_weights() -> None:
    torch.manual_seed(1)
    first = fit(plan(), TRAIN, VALIDATION)
    torch.manual_seed(2)
    second = fit(plan(), TRAIN, VALIDATION)
    assert curve(first) == curve(second)
    assert first.best_state.keys() == second.best_state.keys()
    assert all(first.best_state[key].numpy().tobytes() == second.best_state[key].numpy().tobytes() for key in first.best_state)
    assert curve(fit(plan(seed=6), TRAIN, VALIDATION)) != curve(first)


def test_global_state_is_left_as_it_was() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        fit(plan(), TRAIN, VALIDATION, on_epoch=lambda report: 1 // 0 > 0)
    fit(plan(epochs=1), TRAIN, VALIDATION)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_the_returned_weights_are_the_best_epochs() -> None:
    result = fit(plan(epochs=6, learning_rate=0.02), TRAIN, VALIDATION)
    best = result.history[result.best_epoch - 1]
    assert (best.val_accuracy, -best.val_loss) == max((report.val_accuracy, -report.val_loss) for report in result.history)
    logits = predict(network_of(result), VALIDATION.images, SAMPLE.image).logits
    assert (logits.argmax(axis=1) == VALIDATION.labels).mean() == pytest.approx(best.val_accuracy)
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(VALIDATION.labels))
    assert float(loss) == pytest.approx(best.val_loss, abs=1e-5)


def test_early_stopping_waits_for_its_patience() -> None:
    hopeless = dataset(20, 3, learnable=False)
    result = fit(plan({"early_stopping_patience": 2}, epochs=30, learning_rate=1e-7), TRAIN, hopeless)
    accuracies = [report.val_accuracy for report in result.history]
    assert result.stopped_because == "early stopping" and len(accuracies) < 30
    assert max(accuracies[:-2]) >= max(accuracies[-2:])


def test_a_plateau_lowers_the_learning_rate() -> None:
    hopeless = dataset(20, 3, learnable=False)
    result = fit(plan({"plateau_patience": 1, "plateau_factor": 0.1}, epochs=8), TRAIN, hopeless)
    rates = [report.learning_rate for report in result.history]
    assert rates[0] == 0.003 and min(rates) <= 0.0003 * 1.001
    assert rates == sorted(rates, reverse=True)


def test_a_callback_prunes() -> None:
    seen: list[int] = []

    def prune(report: EpochReport) -> bool:
        seen.append(report.epoch)
        return report.epoch == 2

    result = fit(plan(epochs=6), TRAIN, VALIDATION, on_epoch=prune)
    assert (seen, len(result.history), result.stopped_because) == ([1, 2], 2, "pruned")


def test_frozen_phase_then_fine_tuning(tmp_path: Path) -> None:
    backbone = build_model(SAMPLE.model, 2).backbone.state_dict()
    save_file(backbone, tmp_path / "w.safetensors")
    pretrained = {"pretrained": True, "weights_uri": str(tmp_path / "w.safetensors")}
    frozen = fit(plan({"frozen_epochs": 2}, pretrained, epochs=2), TRAIN, VALIDATION)
    assert all(torch.equal(frozen.best_state[f"backbone.{key}"], value) for key, value in backbone.items())
    both = fit(plan({"frozen_epochs": 2, "fine_tune_factor": 0.1}, pretrained, epochs=4), TRAIN, VALIDATION)
    assert [report.learning_rate for report in both.history] == pytest.approx([0.003, 0.003, 0.0003, 0.0003])
    assert curve(both)[:2] == curve(frozen)


def test_without_loaded_weights_nothing_is_frozen() -> None:
    result = fit(plan({"frozen_epochs": 2}, epochs=2), TRAIN, VALIDATION)
    assert [report.learning_rate for report in result.history] == [0.003, 0.003]


def test_validation_is_not_augmented() -> None:
    wild = SAMPLE.augmentation.model_copy(update={"rotation_degrees": 180.0, "brightness": 1.0})
    result = fit(plan(augmentation=wild, epochs=1), TRAIN, VALIDATION)
    accuracy = (predict(network_of(result), VALIDATION.images, SAMPLE.image).logits.argmax(axis=1) == VALIDATION.labels).mean()
    assert accuracy == pytest.approx(result.history[0].val_accuracy)


def test_a_memory_map_trains_like_the_array(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", TRAIN.images)
    mapped = ArrayDataset(np.load(tmp_path / "images.npy", mmap_mode="r"), TRAIN.labels)
    assert curve(fit(plan(epochs=2), mapped, VALIDATION)) == curve(fit(plan(epochs=2), TRAIN, VALIDATION))


def test_a_diverging_fit_says_where_and_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"no longer finite at epoch \d+.*[Ll]ower the learning rate"):
        fit(plan(learning_rate=1e30), TRAIN, VALIDATION)


def test_prediction_does_not_depend_on_batches_and_keeps_the_mode() -> None:
    network = build_model(SAMPLE.model, 2).train()
    whole, parts = (predict(network, VALIDATION.images, SAMPLE.image, batch_size=size) for size in (64, 7))
    assert whole.logits.shape == (20, 2) and whole.features.shape == (20, 128)
    np.testing.assert_allclose(whole.logits, parts.logits, atol=1e-5)
    assert network.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 1}, "labels 0..1"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"learning_rate": 0.0}, "learning_rate=0"),
    ],
)
def test_senseless_plans_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(plan(**change), TRAIN, VALIDATION)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named() -> None:
    with pytest.raises(ValueError, match=r"training\.device"):
        fit(plan({"device": "cuda"}), TRAIN, VALIDATION)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2, np.int64)),
        (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2, np.int64)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, np.int64)),
        (np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0, np.int64)),
    ],
)
def test_misshapen_data_is_refused(images: Any, labels: Any) -> None:
    with pytest.raises(ValueError, match="dataset:"):
        ArrayDataset(images, labels)
