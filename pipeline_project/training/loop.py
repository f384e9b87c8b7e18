"""The fit: Adam, cross-entropy, plateau schedule, early stopping, best weights (R82-R87, D2, D3); and prediction in batches.

The same plan, data and number of threads give byte-identical weights, and nothing of torch's global state is left changed.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

from pipeline_project.settings.tree import AugmentationSettings, ImageSettings, ModelSettings, TrainingSettings
from pipeline_project.training.augmentation import augment, normalise, to_input
from pipeline_project.training.models import ClassifierNetwork, build_model, load_backbone_weights, set_backbone_frozen

StoppedBecause = Literal["epochs completed", "early stopping", "pruned"]

_SEED_STEP = 1_000_003  # keeps the streams of neighbouring seeds apart


@dataclass(frozen=True)
class FitPlan:
    """All that decides a fit, apart from the data. The tuned values take the place of those in `model` and `training`."""

    model: ModelSettings
    training: TrainingSettings
    augmentation: AugmentationSettings
    image: ImageSettings
    num_classes: int
    learning_rate: float
    batch_size: int
    dropout: float
    epochs: int
    seed: int


@dataclass(frozen=True)
class ArrayDataset:
    """Labelled images; a memory map stays one, and batches are gathered from it by index."""

    images: NDArray[np.uint8]
    """(N, H, W, 3), RGB"""
    labels: NDArray[np.int64]
    """(N,) positions in data.classes"""

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] != 3:
            raise ValueError(f"dataset: images are {self.images.dtype} {self.images.shape}; expected uint8 (N, H, W, 3).")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"dataset: labels are {self.labels.dtype} {self.labels.shape}; expected int64, one for each image.")
        if not len(self.labels):
            raise ValueError("dataset: no images. Check the split's shares, and how many images were ingested.")


@dataclass(frozen=True)
class EpochReport:
    """One line of the learning curve. Accuracies are 0-1; losses are mean cross-entropies."""

    epoch: int
    """1 for the first"""
    train_loss: float
    """over augmented images, with dropout"""
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class FitResult:
    """The learning curve and the best epoch's weights (CPU tensors, `ClassifierNetwork` key names)."""

    history: list[EpochReport]
    best_epoch: int
    best_state: dict[str, Tensor]
    stopped_because: StoppedBecause


@dataclass(frozen=True)
class Prediction:
    """Scores and pooled features, a row per image."""

    logits: NDArray[np.float32]
    """(N, C)"""
    features: NDArray[np.float32]
    """(N, D)"""


def fit(
    plan: FitPlan,
    train: ArrayDataset,
    validation: ArrayDataset,
    *,
    on_epoch: Callable[[EpochReport], bool] | None = None,
) -> FitResult:
    """Train a network and keep the weights of its best epoch: highest validation accuracy, then lowest validation loss.

    With pretrained weights the backbone is frozen for `training.frozen_epochs`; after that everything is trained, at a learning rate
    lower by `training.fine_tune_factor`. Both phases count towards `plan.epochs`. Early stopping counts from the start of a phase and
    does not act while the backbone is frozen: an early plateau of the head says nothing about fine-tuning.

    Args:
        plan: settings and tuned values.
        train: shuffled and augmented.
        validation: neither.
        on_epoch: called after each epoch; True stops the fit (pruning).

    Raises:
        ValueError: labels out of range, no such device, weights that do not fit, or a loss that is no longer finite.
    """
    for name, data in (("train", train), ("validation", validation)):
        if data.labels.min() < 0 or data.labels.max() >= plan.num_classes:
            raise ValueError(
                f"{name} data: labels {data.labels.min()}..{data.labels.max()} are not all within 0..{plan.num_classes - 1}. "
                "Rebuild the split from data.classes."
            )
    if plan.epochs < 1 or plan.batch_size < 1 or not plan.learning_rate > 0:
        raise ValueError(
            f"fit: epochs={plan.epochs}, batch_size={plan.batch_size}, learning_rate={plan.learning_rate:g} must all be above 0. "
            "Check the sections training and tuning."
        )
    device = _device(plan.training.device)
    with _reproducible(plan.seed, plan.training.threads, device):
        return _fit(plan, train, validation, device, on_epoch)


def predict(network: ClassifierNetwork, images: NDArray[np.uint8], image_settings: ImageSettings, batch_size: int = 256) -> Prediction:
    """Score images without augmentation, on the network's device; the network's mode is left as it was.

    Args:
        images: uint8 (N, H, W, 3), RGB; a memory map is read a batch at a time.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    logits, features = [], []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
            output = network(to_input(batch, image_settings))
            logits.append(output.logits.float().cpu().numpy())
            features.append(output.features.float().cpu().numpy())
    network.train(was_training)
    if not logits:
        raise ValueError("predict: no images. Check the split that was asked for.")
    return Prediction(np.concatenate(logits), np.concatenate(features))


def _fit(
    plan: FitPlan, train: ArrayDataset, validation: ArrayDataset, device: torch.device, on_epoch: Callable[[EpochReport], bool] | None
) -> FitResult:
    network = build_model(plan.model, plan.num_classes, dropout=plan.dropout)
    load_backbone_weights(network, plan.model)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    frozen_epochs = plan.training.frozen_epochs if plan.model.pretrained else 0
    phases = [(True, min(frozen_epochs, plan.epochs), plan.learning_rate)] if frozen_epochs else []
    fine_tuning_rate = plan.learning_rate * (plan.training.fine_tune_factor if frozen_epochs else 1)
    phases.append((False, plan.epochs - min(frozen_epochs, plan.epochs), fine_tuning_rate))
    randomness = Generator().manual_seed(plan.seed * _SEED_STEP + 1)
    history: list[EpochReport] = []
    best: EpochReport | None = None
    best_state: dict[str, Tensor] = {}
    stopped: StoppedBecause = "epochs completed"
    for frozen, epochs, learning_rate in phases:
        set_backbone_frozen(network, frozen)
        optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=learning_rate)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="min", patience=plan.training.plateau_patience, factor=plan.training.plateau_factor
        )
        phase_best, since_best = -1.0, 0
        for _ in range(epochs):
            report = _run_epoch(plan, network, optimizer, train, validation, randomness, len(history) + 1, device)
            schedule.step(report.val_loss)
            history.append(report)
            if best is None or (report.val_accuracy, -report.val_loss) > (best.val_accuracy, -best.val_loss):
                best = report
                best_state = {key: value.detach().cpu().clone().contiguous() for key, value in network.state_dict().items()}
            since_best = 0 if report.val_accuracy > phase_best else since_best + 1
            phase_best = max(phase_best, report.val_accuracy)
            if on_epoch is not None and on_epoch(report):
                stopped = "pruned"
            elif not frozen and since_best >= plan.training.early_stopping_patience:
                stopped = "early stopping"
            if stopped != "epochs completed":
                break
        if stopped != "epochs completed":
            break
    assert best is not None  # at least one epoch was run
    return FitResult(history, best.epoch, best_state, stopped)


def _run_epoch(
    plan: FitPlan,
    network: ClassifierNetwork,
    optimizer: torch.optim.Optimizer,
    train: ArrayDataset,
    validation: ArrayDataset,
    randomness: Generator,
    epoch: int,
    device: torch.device,
) -> EpochReport:
    started = time.perf_counter()
    learning_rate = float(optimizer.param_groups[0]["lr"])
    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    network.train()
    for chosen in _batches(torch.randperm(len(train.labels), generator=randomness), plan.batch_size):
        indices = chosen.numpy()
        images = torch.from_numpy(np.asarray(train.images[indices])).to(device)
        labels = torch.from_numpy(train.labels[indices]).to(device)
        batch = normalise(augment(images, plan.augmentation, randomness), plan.image)
        logits = network(batch.contiguous(memory_format=torch.channels_last)).logits
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss_sum += loss.detach() * len(indices)
        correct += (logits.detach().argmax(dim=1) == labels).sum()
    logits = torch.from_numpy(predict(network, validation.images, plan.image).logits)
    val_labels = torch.from_numpy(validation.labels)
    report = EpochReport(
        epoch=epoch,
        train_loss=float(loss_sum) / len(train.labels),
        train_accuracy=float(correct) / len(train.labels),
        val_loss=float(functional.cross_entropy(logits, val_labels)),
        val_accuracy=float((logits.argmax(dim=1) == val_labels).float().mean()),
        learning_rate=learning_rate,
        seconds=time.perf_counter() - started,
    )
    if not (math.isfinite(report.train_loss) and math.isfinite(report.val_loss)):
        raise ValueError(
            f"fit: the loss is no longer finite at epoch {epoch} (train {report.train_loss}, validation {report.val_loss}). "
            f"Lower the learning rate, now {learning_rate:g} (training.learning_rate, or the range tuning.learning_rate)."
        )
    return report


def _batches(order: Tensor, size: int) -> list[Tensor]:
    batches = list(torch.split(order, size))
    if len(batches) > 1 and len(batches[-1]) == 1:  # batch norm cannot train on one value per channel
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("training.device=cuda: torch finds no CUDA device. Set training.device to auto or cpu, or check the driver.")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def _reproducible(seed: int, threads: int, device: torch.device) -> Iterator[None]:
    """Fixes whatever decides torch's arithmetic; on leaving, threads, flags and random state are as before."""
    settings: Any = torch.utils.deterministic  # its one attribute is not in torch's types
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    filled, benchmark = settings.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses deterministic mode without it
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else []):
        try:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(True)
            settings.fill_uninitialized_memory = False  # a debugging aid that costs a pass over every new tensor
            torch.backends.cudnn.benchmark = False
            torch.manual_seed(seed)
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1], warn_only=before[2])
            settings.fill_uninitialized_memory = filled
            torch.backends.cudnn.benchmark = benchmark
