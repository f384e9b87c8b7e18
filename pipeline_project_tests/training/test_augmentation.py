"""Augmentation changes training images only as far as it is switched on, and evaluation images never."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from pipeline_project.settings import load_settings
from pipeline_project.settings.tree import AugmentationSettings
from pipeline_project.training.augmentation import augment, normalise, to_input

SAMPLE = load_settings("sample", environment={})
OFF: dict[str, Any] = {"horizontal_flip": 0, "rotation_degrees": 0, "crop_min_scale": 1, "brightness": 0, "contrast": 0}


def augmentation(**changes: Any) -> AugmentationSettings:
    return AugmentationSettings.model_validate({**OFF, **changes})


def images(count: int = 6, side: int = 16, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def plain(batch: Tensor) -> Tensor:
    return batch.permute(0, 3, 1, 2).float() / 255


def test_everything_off_changes_no_pixel() -> None:
    assert torch.equal(augment(images(), augmentation(), generator()), plain(images()))


def test_flip_alone_is_an_exact_flip() -> None:
    assert torch.equal(augment(images(), augmentation(horizontal_flip=1), generator()), plain(images()).flip(3))


def test_half_of_the_images_are_flipped() -> None:
    batch = images(400, 4)
    flipped = (augment(batch, augmentation(horizontal_flip=0.5), generator()) == plain(batch).flip(3)).flatten(1).all(dim=1)
    assert 160 < int(flipped.sum()) < 240


def test_resampling_without_a_visible_turn_is_the_image_itself_or_its_mirror() -> None:
    """The one-pass affine route and the exact route agree."""
    barely = {"rotation_degrees": 1e-6}
    torch.testing.assert_close(augment(images(), augmentation(**barely), generator()), plain(images()), atol=1e-4, rtol=0)
    mirrored = augment(images(), augmentation(**barely, horizontal_flip=1), generator())
    torch.testing.assert_close(mirrored, plain(images()).flip(3), atol=1e-4, rtol=0)


def test_rotation_keeps_the_middle_and_moves_the_rim() -> None:
    batch = torch.zeros((32, 17, 17, 3), dtype=torch.uint8)
    batch[:, 8, 8], batch[:, 8, 15] = 255, 255
    turned = augment(batch, augmentation(rotation_degrees=45), generator())
    torch.testing.assert_close(turned[:, :, 8, 8], torch.ones(32, 3), atol=1e-4, rtol=0)
    assert (turned[:, 0, 8, 15] < 0.9).any()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 1), st.integers(0, 2**31))
def test_a_crop_lies_within_the_image_and_has_the_wanted_area(smallest: float, seed: int) -> None:
    """On ramps that hold each pixel's own position, a crop's corners tell where it was taken."""
    ramp = torch.arange(64, dtype=torch.uint8) * 4
    batch = torch.stack([ramp.expand(64, 64), ramp.view(-1, 1).expand(64, 64), ramp.expand(64, 64)], dim=2).expand(8, 64, 64, 3)
    cropped = augment(batch, augmentation(crop_min_scale=smallest), generator(seed)) * 255 / 4
    width = (cropped[:, 0, 0, -1] - cropped[:, 0, 0, 0]) / 63
    height = (cropped[:, 1, -1, 0] - cropped[:, 1, 0, 0]) / 63
    area = width * height
    assert bool((area > smallest - 0.05).all()) and bool((area < 1.05).all())
    assert bool((torch.diff(cropped[:, 0], dim=2) > -1e-3).all()), "nothing from beyond the rim is mirrored in"


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_light_stays_within_range_and_shape(brightness: float, contrast: float, seed: int) -> None:
    result = augment(images(), augmentation(brightness=brightness, contrast=contrast), generator(seed))
    assert result.shape == (6, 3, 16, 16) and result.dtype == torch.float32
    assert float(result.min()) >= 0 and float(result.max()) <= 1


def test_brightness_scales_each_image_by_one_factor() -> None:
    batch = torch.full((200, 4, 4, 3), 100, dtype=torch.uint8)
    factors = augment(batch, augmentation(brightness=0.2), generator()) / (100 / 255)
    assert bool(torch.isclose(factors, factors[:, :1, :1, :1]).all())
    assert 0.8 <= float(factors.min()) < 0.82 and 1.18 < float(factors.max()) <= 1.2001


def test_contrast_leaves_an_even_image_alone() -> None:
    batch = torch.full((8, 4, 4, 3), 90, dtype=torch.uint8)
    torch.testing.assert_close(augment(batch, augmentation(contrast=0.5), generator()), plain(batch))


def test_the_generator_alone_decides() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again = (augment(images(), SAMPLE.augmentation, generator(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(images(), SAMPLE.augmentation, generator(4)))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_stream_advances_equally_whatever_is_on() -> None:
    one, other = generator(5), generator(5)
    augment(images(), augmentation(), one)
    augment(images(), SAMPLE.augmentation, other)
    assert torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=other))


def test_evaluation_input_is_only_scaled_and_normalised() -> None:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (SAMPLE.image.mean, SAMPLE.image.std))
    torch.testing.assert_close(to_input(images(), SAMPLE.image), (plain(images()) - mean) / std)
    torch.testing.assert_close(normalise(plain(images()), SAMPLE.image), to_input(images(), SAMPLE.image))


@pytest.mark.parametrize(("shape", "dtype"), [((2, 8, 8, 3), torch.float32), ((2, 3, 8, 8), torch.uint8), ((8, 8, 3), torch.uint8)])
def test_other_layouts_are_refused(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(N, H, W, 3\)"):
        to_input(torch.zeros(shape, dtype=dtype), SAMPLE.image)
