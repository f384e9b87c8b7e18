"""Every colour mode becomes 8-bit sRGB, and each conversion leaves a note."""

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pipeline_project.imaging.formats import ImageRejectedError

_NOTES = {
    "1": "bilevel", "L": "grey", "LA": "grey", "La": "grey", "P": "palette", "PA": "palette",
    "CMYK": "cmyk", "LAB": "lab", "YCbCr": "ycbcr", "RGB": None, "RGBA": None, "RGBX": None, "RGBa": None,
}  # fmt: skip
_ALPHA = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_PROFILED = frozenset({"L", "RGB", "CMYK"})
_SAME = 2  # grey levels: a profile that moves no colour further is sRGB under another name
_GRID = 9
_WHITE_IS_ZERO = 0


def to_rgb(image: Image.Image, bits: int, photometric: int | None = None) -> tuple[NDArray[np.uint8], set[str]]:
    """Convert to sRGB: transparency over white, colour profiles applied.

    Args:
        image: loaded.
        bits: bits a channel as stored; more than 8 are cut to their highest 8 (65535 becomes 255, 257 times n becomes n).
        photometric: TIFF's photometric interpretation, where 16-bit greys may count from white.

    Returns:
        (H, W, 3) uint8, and the notes of what was converted.

    Raises:
        ImageRejectedError: `mode`: values without a known range (floating point, 32 bits), or a mode that is not known.
    """
    notes = set()
    profile = image.info.get("icc_profile")
    if bits > 8:
        notes.add("sixteen_bits")
    if image.mode.startswith("I;16"):
        notes.add("grey")
        image = _eight_bits(image, bits, photometric)
    elif image.mode in _NOTES:
        note = _NOTES[image.mode]
        if note:
            notes.add(note)
        image = _eight_bit_transparency(image) if bits > 8 else image
    else:
        raise ImageRejectedError("mode", f"pixels of mode {image.mode} have no range that fits 8 bits a channel")
    if image.mode == "LAB":
        return np.asarray(_transformed(image, _from_lab()), dtype=np.uint8), notes
    alpha = None
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        opacity = image.getchannel("A")
        if np.asarray(opacity).min() < 255:
            alpha = opacity
            notes.add("alpha_over_white")
    rgb, note = _profiled(image if image.mode in _PROFILED else image.convert("L" if image.mode == "1" else "RGB"), profile)
    if note:
        notes.add(note)
    if alpha is not None:
        white = Image.new("RGB", rgb.size, (255, 255, 255))
        white.paste(rgb, mask=alpha)
        rgb = white
    return np.asarray(rgb, dtype=np.uint8), notes


def profile_matters(profile: bytes | None, mode: str) -> bool:
    """Whether colours would change, or the profile must be noted as unusable; without one, or with sRGB, they would not."""
    return bool(profile) and _transform(bytes(profile or b""), mode) != "same"


def _profiled(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    if profile:
        transform = _transform(bytes(profile), image.mode)
        if isinstance(transform, ImageCms.ImageCmsTransform):
            return _transformed(image, transform), "profile_converted"
        return image.convert("RGB"), None if transform == "same" else "profile_ignored"
    return image.convert("RGB"), None


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # only a conversion in place gives None
    return converted


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> "ImageCms.ImageCmsTransform | str":
    """To sRGB; "same" where the profile is sRGB already, "broken" where it is of no use."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL)
        if mode == "CMYK":
            return transform
        probe = _probe(mode)
        moved = np.asarray(_transformed(probe, transform), int) - np.asarray(probe.convert("RGB"), int)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "broken"
    return "same" if np.abs(moved).max() <= _SAME else transform


def _probe(mode: str) -> Image.Image:
    """Colours all over the cube, or all greys."""
    levels = np.linspace(0, 255, _GRID if mode == "RGB" else 256).astype(np.uint8)
    if mode != "RGB":
        return Image.fromarray(levels[None])
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3))


@lru_cache(maxsize=1)
def _from_lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def _eight_bits(image: Image.Image, bits: int, photometric: int | None) -> Image.Image:
    """16-bit greys (or 12-bit ones, which TIFF packs) to L, or to LA where one value stands for transparent."""
    values = np.asarray(image).astype(np.uint16)
    greys = (values >> (max(bits, 9) - 8)).astype(np.uint8)
    grey = Image.fromarray(255 - greys if photometric == _WHITE_IS_ZERO else greys)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        return Image.merge("LA", (grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))))
    return grey


def _eight_bit_transparency(image: Image.Image) -> Image.Image:
    """Pillow has cut the pixels to 8 bits, but not the colour that stands for transparent."""
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    return image
