"""Is the sample catalogue as hard as it should be? Linear models must fail on it, and the sample recipe must pass every quality gate.

Run `python benchmarks/sample_difficulty.py --seeds 10`: a line per seed, and one JSON object last. Exit status 1 if a bar is missed.
"""

import argparse
import csv
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, precision_score, recall_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from pipeline_project.sample import generate_catalogue
from pipeline_project.settings import Settings, load_settings
from pipeline_project.training.loop import ArrayDataset, FitPlan, fit, predict
from pipeline_project.training.models import build_model

LINEAR_BAR = 0.75  # accuracy that no linear pixel model may reach
NETWORK_BAR = 0.95  # accuracy that the sample recipe must reach
LINEAR_SIDES = (48, 16)  # pixels
LINEAR_GRID = (1e-4, 1e-3, 1e-2, 1e-1)  # C, chosen by validation accuracy


@dataclass(frozen=True)
class SeedResult:
    """What one catalogue seed gave; ratios are 0-1."""

    seed: int
    images: int
    linear: dict[str, float]
    network: float
    macro_f1: float
    precision_min: float
    recall_min: float
    gates_passed: bool
    best_epoch: int
    epochs: int
    fit_seconds: float


def decode_catalogue(seed: int, days: int, images_per_day: int, settings: Settings) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, S, S, 3) and labels of a fresh catalogue; damaged files and copies are left out, as ingest and the split do."""
    images, labels = [], []
    with tempfile.TemporaryDirectory() as folder:
        listed = [settings.data.start_date + timedelta(days=index) for index in range(days)]
        summary = generate_catalogue(Path(folder), seed=seed, days=listed, images_per_day=images_per_day)
        left_out = {*summary.damaged, *summary.exact_duplicates, *summary.near_duplicates}
        for day in listed:
            for row in _labels(Path(folder), day):
                name = f"{day.isoformat()}/{row['image']}"
                if name not in left_out:
                    images.append(_decode(Path(folder) / name, settings.image.size))
                    labels.append(settings.data.classes.index(row["label"]))
    return np.stack(images), np.array(labels, dtype=np.int64)


def measure(seed: int, days: int, images_per_day: int, threads: int, settings: Settings) -> SeedResult:
    """Draw one catalogue, split it, and score the linear models and the network on its test part."""
    images, labels = decode_catalogue(seed, days, images_per_day, settings)
    share = settings.dataset
    rest, test = train_test_split(np.arange(len(labels)), test_size=share.test, stratify=labels, random_state=seed)
    train, validation = train_test_split(
        rest, test_size=share.validation / (share.train + share.validation), stratify=labels[rest], random_state=seed
    )
    linear = {f"{side}x{side}": linear_accuracy(images, labels, (train, validation, test), side) for side in LINEAR_SIDES}

    training = settings.training.model_copy(update={"threads": threads})
    plan = FitPlan(
        settings.model,
        training,
        settings.augmentation,
        settings.image,
        len(settings.data.classes),
        training.learning_rate,
        training.batch_size,
        settings.model.dropout,
        training.epochs,
        seed,
    )
    started = time.perf_counter()
    result = fit(plan, ArrayDataset(images[train], labels[train]), ArrayDataset(images[validation], labels[validation]))
    seconds = time.perf_counter() - started
    network = build_model(settings.model, plan.num_classes)
    network.load_state_dict(result.best_state)
    predicted, truth = predict(network, images[test], settings.image).logits.argmax(axis=1), labels[test]

    accuracy = float((predicted == truth).mean())
    macro_f1 = float(f1_score(truth, predicted, average="macro"))
    precision = float(np.min(precision_score(truth, predicted, average=None, zero_division=0)))
    recall = float(np.min(recall_score(truth, predicted, average=None, zero_division=0)))
    gates = settings.gates
    passed = (
        accuracy >= gates.accuracy
        and macro_f1 >= gates.macro_f1
        and precision >= gates.precision_per_class
        and recall >= gates.recall_per_class
    )
    return SeedResult(
        seed, len(labels), linear, accuracy, macro_f1, precision, recall, passed, result.best_epoch, len(result.history), round(seconds, 1)
    )


def linear_accuracy(images: NDArray[np.uint8], labels: NDArray[np.int64], parts: tuple[NDArray[np.int64], ...], side: int) -> float:
    """Test accuracy of logistic regression on standardised pixels, C chosen on the validation part.

    The pixels are first rotated onto the span of the training images. The regression is the same (its penalty does not see rotations,
    and its weights lie in that span), but has as many columns as images instead of thousands.
    """
    train, validation, test = parts
    resized = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)) for image in images]
    pixels = np.stack(resized).reshape(len(images), -1) / 255
    pixels = StandardScaler().fit(pixels[train]).transform(pixels)
    span = np.linalg.svd(pixels[train], full_matrices=False)[2]
    columns = pixels @ span.T
    models = [LogisticRegression(C=strength, max_iter=2000).fit(columns[train], labels[train]) for strength in LINEAR_GRID]
    best = max(models, key=lambda model: model.score(columns[validation], labels[validation]))
    return float(best.score(columns[test], labels[test]))


def _labels(folder: Path, day: date) -> list[dict[str, str]]:
    with (folder / day.isoformat() / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _decode(path: Path, size: int) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def main() -> int:
    """Measure each seed, print as it goes, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many, from --first-seed on")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the network's training")
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--images-per-day", type=int, default=240)
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error("--seeds must be at least 1")
    settings = load_settings("sample")
    results: list[SeedResult] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        result = measure(seed, arguments.days, arguments.images_per_day, arguments.threads, settings)
        results.append(result)
        linear = ", ".join(f"{name} {accuracy:.3f}" for name, accuracy in result.linear.items())
        print(
            f"[{len(results)}/{arguments.seeds}] seed {seed}: linear {linear}; network {result.network:.3f}, "
            f"macro F1 {result.macro_f1:.3f}, best epoch {result.best_epoch} of {result.epochs}, {result.fit_seconds:.1f} s",
            flush=True,
        )
    linear_max = max(max(result.linear.values()) for result in results)
    network_min = min(result.network for result in results)
    summary = {
        "seeds": len(results),
        "linear_max": linear_max,
        "network_min": network_min,
        "network_mean": float(np.mean([result.network for result in results])),
        "gates_passed": sum(result.gates_passed for result in results),
        "per_seed": [asdict(result) for result in results],
    }
    print(json.dumps(summary))
    reached = linear_max < LINEAR_BAR and network_min >= NETWORK_BAR and all(result.gates_passed for result in results)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
