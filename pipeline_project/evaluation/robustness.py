"""How accuracy holds when images are slightly worse than usual, and when someone changes them on purpose (R110)."""

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipeline_project.settings.tree import ImageSettings

if TYPE_CHECKING:
    from torch import nn

Pixels = NDArray[np.uint8]
Predict = Callable[[Pixels], NDArray[np.float64]]
"""From (N, S, S, 3) uint8 to probabilities (N, C)."""

MAX_CORRUPTED_IMAGES = 2000
MAX_ATTACKED_IMAGES = 256
_BATCH = 32
_SEED = 20_263


def brighter(image: Pixels, _index: int) -> Pixels:
    """All channels times 1.2."""
    return _clipped(image.astype(np.float32) * 1.2)


def darker(image: Pixels, _index: int) -> Pixels:
    """All channels times 0.8."""
    return _clipped(image.astype(np.float32) * 0.8)


def low_contrast(image: Pixels, _index: int) -> Pixels:
    """Distances from the image's mean times 0.7."""
    values = image.astype(np.float32)
    return _clipped((values - values.mean()) * 0.7 + values.mean())


def gaussian_noise(image: Pixels, index: int) -> Pixels:
    """Noise with a standard deviation of 8 of 255, the same for the same row."""
    return _clipped(image + np.random.default_rng((_SEED, index)).normal(0, 8, image.shape))


def blur(image: Pixels, _index: int) -> Pixels:
    """A Gaussian of radius 1/150 of the side (1.5 pixels of 224), at least half a pixel."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(max(0.5, image.shape[0] / 150))))


def jpeg(image: Pixels, _index: int) -> Pixels:
    """Saved at JPEG quality 40 and read back."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=40)
    return np.asarray(Image.open(buffer))


def rotation(image: Pixels, index: int) -> Pixels:
    """Turned by 8 degrees, every other row the other way; what comes in from outside is mirrored."""
    side = image.shape[0]
    margin = side // 4
    wide = Image.fromarray(np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect"))
    turned = np.asarray(wide.rotate(8 if index % 2 else -8, Image.Resampling.BILINEAR))
    return turned[margin : margin + side, margin : margin + side]


CORRUPTIONS: Mapping[str, Callable[[Pixels, int], Pixels]] = {
    function.__name__: function for function in (brighter, darker, low_contrast, gaussian_noise, blur, jpeg, rotation)
}


def corruption_report(predict: Predict, images: Pixels, true: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy under mild corruptions, absolute and relative to that of the same images uncorrupted.

    Args:
        predict: the package.
        images: (N, S, S, 3) uint8; of more than 2000, evenly spaced ones are used.
        true: (N,) class indices.

    Returns:
        {images, clean_accuracy, corruptions: {name: {accuracy, relative}}}; relative is 0 when the clean accuracy is 0.
    """
    rows = evenly_spaced(len(images), MAX_CORRUPTED_IMAGES)
    truth = true[rows]
    clean = _accuracy(predict, images, rows, truth, lambda image, _: image)
    found = {name: _accuracy(predict, images, rows, truth, corrupt) for name, corrupt in CORRUPTIONS.items()}
    return {
        "images": len(rows),
        "clean_accuracy": clean,
        "corruptions": {name: {"accuracy": value, "relative": value / clean if clean else 0.0} for name, value in found.items()},
    }


def adversarial_report(
    predict: Predict, network: "nn.Module", images: Pixels, true: NDArray[np.int64], *, epsilon: float, image_settings: ImageSettings
) -> dict[str, Any]:
    """Accuracy after the fast gradient sign attack (Goodfellow et al. 2015) through the trained network.

    The attacker knows the trained network but not the package's quantised graph, so the package's figure is that of a transferred
    attack; the network's own, weaker position is given beside it.

    Args:
        predict: the package.
        network: the trained network in evaluation mode, giving logits first.
        images: (N, S, S, 3) uint8; of more than 256, evenly spaced ones are used.
        true: (N,) class indices.
        epsilon: largest change of a channel, of 1; whole grey levels are used, at least one.
        image_settings: of the network's normalisation.

    Returns:
        {images, epsilon_levels, clean_accuracy, accuracy, relative, network_accuracy}.
    """
    rows = evenly_spaced(len(images), MAX_ATTACKED_IMAGES)
    chosen, truth = np.ascontiguousarray(images[rows]), true[rows]
    levels = max(1, round(epsilon * 255))
    attacked, network_right = _fast_gradient_sign(network, chosen, truth, levels, image_settings)
    clean = float((_batched(predict, chosen).argmax(axis=1) == truth).mean())
    accuracy = float((_batched(predict, attacked).argmax(axis=1) == truth).mean())
    return {
        "images": len(rows),
        "epsilon_levels": levels,
        "clean_accuracy": clean,
        "accuracy": accuracy,
        "relative": accuracy / clean if clean else 0.0,
        "network_accuracy": float(network_right.mean()),
    }


def evenly_spaced(count: int, most: int) -> NDArray[np.intp]:
    """At most `most` indices of 0 .. count - 1, evenly spaced."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(np.intp)


def _fast_gradient_sign(
    network: "nn.Module", images: Pixels, true: NDArray[np.int64], levels: int, image_settings: ImageSettings
) -> tuple[Pixels, NDArray[np.bool_]]:
    """The attacked images, and whether the network itself still gets them right."""
    import torch
    from torch.nn import functional

    from pipeline_project.training.augmentation import to_input

    attacked, right = [], []
    device = next(network.parameters()).device
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        targets = torch.from_numpy(true[start : start + _BATCH]).to(device)
        inputs = to_input(torch.from_numpy(batch), image_settings).to(device).requires_grad_()
        loss = functional.cross_entropy(network(inputs)[0], targets, reduction="sum")
        # Normalising divides by a positive number, so the sign of the gradient is that with respect to the pixels.
        (gradient,) = torch.autograd.grad(loss, inputs)
        step = levels * gradient.sign().permute(0, 2, 3, 1).to("cpu", torch.int16).numpy()
        changed = np.clip(batch + step, 0, 255).astype(np.uint8)
        with torch.inference_mode():
            answers = network(to_input(torch.from_numpy(changed), image_settings).to(device))[0].argmax(dim=1)
        attacked.append(changed)
        right.append((answers == targets).cpu().numpy())
    return np.concatenate(attacked), np.concatenate(right)


def _accuracy(
    predict: Predict, images: Pixels, rows: NDArray[np.intp], truth: NDArray[np.int64], change: Callable[[Pixels, int], Pixels]
) -> float:
    right = 0
    for start in range(0, len(rows), _BATCH):
        chunk = rows[start : start + _BATCH]
        batch = np.stack([change(np.asarray(images[row]), int(row)) for row in chunk])
        right += int((predict(batch).argmax(axis=1) == truth[start : start + _BATCH]).sum())
    return right / len(rows)


def _batched(predict: Predict, images: Pixels) -> NDArray[np.float64]:
    return np.concatenate([predict(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)])


def _clipped(values: NDArray[np.floating]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
