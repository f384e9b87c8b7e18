"""From stored images to the network's input: as they are for evaluation, randomly changed for training (R28, D4).

A whole batch is flipped, turned and cropped in one resampling: transforms per image take longer than a small network's training step.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional

from pipeline_project.settings.tree import AugmentationSettings, ImageSettings

_ASPECT = (3 / 4, 4 / 3)  # of a random crop, as is usual for random resized crops
_GREY = (0.299, 0.587, 0.114)  # luminance weights (ITU-R BT.601)


def to_input(batch: Tensor, settings: ImageSettings) -> Tensor:
    """The evaluation path: no augmentation.

    Args:
        batch: uint8 (N, H, W, 3), RGB.

    Returns:
        float32 (N, 3, H, W), normalised.
    """
    return normalise(_to_unit_range(batch), settings)


def normalise(batch: Tensor, settings: ImageSettings) -> Tensor:
    """Subtract the mean and divide by the deviation of each channel; float (N, 3, H, W), from the range 0-1."""
    mean = torch.tensor(settings.mean, dtype=batch.dtype, device=batch.device).view(1, 3, 1, 1)
    std = torch.tensor(settings.std, dtype=batch.dtype, device=batch.device).view(1, 3, 1, 1)
    return (batch - mean) / std


def augment(batch: Tensor, settings: AugmentationSettings, generator: Generator) -> Tensor:
    """Change each image at random: flip, rotation, crop, brightness, contrast.

    Args:
        batch: uint8 (N, H, W, 3), RGB.
        settings: what is switched off leaves pixels exactly as they are.
        generator: on the CPU; the only source of randomness. It advances equally whatever is switched on.

    Returns:
        float32 (N, 3, H, W), 0-1, not yet normalised.
    """
    draws = torch.rand((8, batch.shape[0]), generator=generator).to(batch.device)
    images = _to_unit_range(batch)
    flipped = draws[0] < settings.horizontal_flip
    if settings.rotation_degrees > 0 or settings.crop_min_scale < 1:
        images = _resample(images, flipped, draws[1:6], settings)
    elif settings.horizontal_flip > 0:
        images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)
    if settings.brightness > 0:
        images = (images * _factor(draws[6], settings.brightness)).clamp_(0, 1)
    if settings.contrast > 0:
        grey = torch.tensor(_GREY, device=images.device)
        middle = (images.mean(dim=(2, 3)) @ grey).view(-1, 1, 1, 1)
        images = ((images - middle) * _factor(draws[7], settings.contrast) + middle).clamp_(0, 1)
    return images


def _to_unit_range(batch: Tensor) -> Tensor:
    if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
        raise ValueError(f"images: {batch.dtype} {tuple(batch.shape)}; expected uint8 (N, H, W, 3). Read them from the image pack.")
    return batch.permute(0, 3, 1, 2).to(torch.float32) / 255  # a view in channels-last order, which convolutions prefer


def _factor(draw: Tensor, strength: float) -> Tensor:
    """Factors from 1 - strength to 1 + strength, (N, 1, 1, 1)."""
    return (1 + (2 * draw - 1) * strength).view(-1, 1, 1, 1)


def _resample(images: Tensor, flipped: Tensor, draws: Tensor, settings: AugmentationSettings) -> Tensor:
    """Flip, rotate and crop in one bilinear resampling; what a rotation brings in from outside is mirrored."""
    angle = torch.deg2rad((2 * draws[0] - 1) * settings.rotation_degrees)
    area = settings.crop_min_scale + (1 - settings.crop_min_scale) * draws[1]
    stretch = torch.ones_like(area)
    if settings.crop_min_scale < 1:
        low, high = torch.tensor(_ASPECT).log().tolist()
        stretch = torch.exp((low + (high - low) * draws[2]) / 2)
        # The crop must lie within the image: where it would be too wide or too high, the aspect gives way and the area stays.
        stretch = torch.minimum(torch.maximum(stretch, area.sqrt()), 1 / area.sqrt())
    width, height = area.sqrt() * stretch, area.sqrt() / stretch
    x = (2 * draws[3] - 1) * (1 - width)
    y = (2 * draws[4] - 1) * (1 - height)
    mirror = torch.where(flipped, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack([cos * width * mirror, -sin * height, x, sin * width * mirror, cos * height, y], dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
