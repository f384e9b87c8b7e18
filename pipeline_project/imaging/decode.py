"""From hostile bytes to upright RGB pixels, or a reason why not. The format is read from the bytes, never from the name."""

import io
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from pipeline_project.imaging.colour import profile_matters, to_rgb
from pipeline_project.imaging.formats import (
    DECODE_SETTINGS,
    SNIFF_BYTES,
    DecodeLimits,
    ImageRejectedError,
    sniff_format,
)
from pipeline_project.imaging.jpeg import JpegLayout, UnusualSamplingError, check_work, decode_strictly, jpeg_scale
from pipeline_project.imaging.opencv import cv2

__all__ = ["DECODE_SETTINGS", "SNIFF_BYTES", "DecodeLimits", "DecodedImage", "ImageRejectedError", "decode_image", "sniff_format"]

_BITS, _PHOTOMETRIC, _TILE_WIDTH, _TILE_HEIGHT = 258, 262, 322, 323  # TIFF tags
_PNG_DEPTH = 24  # where a PNG has its bits a channel

_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
"""by EXIF orientation: OpenCV's flip code (1 left-right, 0 top-bottom, -1 both) after the transposition of 5 and above"""
MAX_CHUNKS = 100_000


@dataclass(frozen=True)
class DecodedImage:
    """An upright RGB image, and what its file said."""

    pixels: NDArray[np.uint8]
    """(H, W, 3); a JPEG far larger than wanted is decoded at 1/2, 1/4 or 1/8 (`jpeg_scale`)"""
    format: str
    mode: str
    """Pillow's name of the colour mode, as stored"""
    width: int
    """of the upright original in pixels, not of the scaled one"""
    height: int
    notes: tuple[str, ...]
    """what was converted or passed over, sorted: see `NOTES`"""


NOTES = {
    "alpha_over_white": "transparent pixels were laid over white",
    "bilevel": "black and white only",
    "cmyk": "converted from printing inks",
    "extra_pictures": "a JPEG with further pictures behind the first (MPO); the first counts",
    "grey": "no colours",
    "lab": "converted from CIELAB",
    "metadata_ignored": "unreadable EXIF; the orientation is taken as upright",
    "odd_structure": "harmless oddities between the parts of a JPEG were passed over",
    "palette": "converted from a palette",
    "profile_converted": "converted from its colour profile to sRGB",
    "profile_ignored": "the colour profile is of no use; colours are taken as sRGB",
    "sixteen_bits": "more than 8 bits a channel; the highest 8 are kept",
    "trailing_bytes": "something follows the image's end",
    "turned": "the EXIF orientation was applied",
    "unusual_sampling": "a JPEG that only Pillow decodes: damage that leaves the file decodable goes unseen",
    "ycbcr": "converted from YCbCr",
}
"""Every note of `DecodedImage.notes`, and what it means."""


def decode_image(data: bytes, limits: DecodeLimits, size: int) -> DecodedImage:
    """Decode every byte, turn upright by the EXIF orientation, convert to 8-bit sRGB (transparency over white).

    Args:
        size: side in pixels of what is made of it; decides only how far the decoder may scale a JPEG down.

    Raises:
        ImageRejectedError: codes empty, too_many_bytes, not_an_image, format, too_many_pixels, too_small, too_much_work, animated,
            mode, corrupt. The detail depends on the bytes alone.
    """
    named = _admitted(data, limits)
    end = _end(data, named)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large images and odd metadata; our own limits decide
        try:
            with Image.open(io.BytesIO(data), formats=[named]) as image:
                return _decoded(data, image, named, end, limits, size)
        except (ImageRejectedError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise ImageRejectedError("too_many_pixels", str(error)) from None
        except UnidentifiedImageError:  # its text names an address in memory, different each time
            raise _unidentified(data, named) from None
        except Exception as error:  # what Pillow raises on damaged files is no family: struct.error, AttributeError, SyntaxError ...
            raise ImageRejectedError("corrupt", f"it starts like a {named}, but cannot be decoded to its end ({error})") from None


def _decoded(data: bytes, image: Image.Image, named: str, end: int, limits: DecodeLimits, size: int) -> DecodedImage:
    _check_header(image, limits)
    mode = image.mode
    notes = {"trailing_bytes"} if end < len(data) else set[str]()
    if named == "JPEG":
        pixels = _jpeg(data, image, limits, size, notes)
    else:
        pixels = _other(image, named, data[_PNG_DEPTH] if named == "PNG" else 8, notes)
    orientation = _orientation(image, notes)
    width, height = image.size if orientation < 5 else image.size[::-1]
    return DecodedImage(_upright(pixels, orientation, notes), named, mode, width, height, tuple(sorted(notes)))


def _admitted(data: bytes, limits: DecodeLimits) -> str:
    """The format, from the bytes; refuses what no decoder needs to see."""
    if not data:
        raise ImageRejectedError("empty", "the file has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageRejectedError("too_many_bytes", f"{len(data)} bytes; at most {limits.max_bytes} are allowed")
    named = sniff_format(data[:SNIFF_BYTES])
    if named is None:
        raise ImageRejectedError("not_an_image", "the first bytes are of no known image format")
    if named not in limits.formats:
        raise ImageRejectedError("format", f"{named} is not accepted; accepted: {', '.join(sorted(limits.formats))}")
    return named


def _check_header(image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageRejectedError("too_many_pixels", f"{width}x{height}; at most {limits.max_pixels} pixels are allowed")
    if min(width, height) < limits.min_side:
        raise ImageRejectedError("too_small", f"{width}x{height}; the shorter side must be at least {limits.min_side}")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tile = [image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_HEIGHT)]
        if tile[0] * tile[1] > limits.max_pixels:  # memory is taken by the tile
            raise ImageRejectedError("too_many_pixels", f"tiles of {tile[0]}x{tile[1]}; at most {limits.max_pixels} pixels are allowed")


def _jpeg(data: bytes, image: Image.Image, limits: DecodeLimits, size: int, notes: set[str]) -> NDArray[np.uint8]:
    layout = JpegLayout.of(data)
    check_work(layout, image.width * image.height, limits.max_pixels)
    if layout.end is not None and layout.end < len(data):
        notes.add("extra_pictures" if "mp" in image.info else "trailing_bytes")
    scale = jpeg_scale(*image.size, size)
    try:
        stored, odd = decode_strictly(data, layout, image.mode, (image.height, image.width), scale)
    except UnusualSamplingError:
        notes.add("unusual_sampling")
        image.load()
        return _converted(image, 8, None, notes)
    if odd:
        notes.add("odd_structure")
    if image.mode == "RGB" and not profile_matters(image.info.get("icc_profile"), "RGB"):
        return stored
    if image.mode == "CMYK":
        layered = Image.fromarray(255 - stored, "CMYK")
    else:
        layered = Image.fromarray(stored if image.mode == "RGB" else stored[..., 0])
    layered.info["icc_profile"] = image.info.get("icc_profile")
    return _converted(layered, 8, None, notes)


def _other(image: Image.Image, named: str, bits: int, notes: set[str]) -> NDArray[np.uint8]:
    if getattr(image, "is_animated", False):
        raise ImageRejectedError("animated", f"{named} with more than one picture; which one is meant is unknown")
    photometric = None
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits, photometric = max(image.tag_v2.get(_BITS, (8,))), image.tag_v2.get(_PHOTOMETRIC)
        if image.tag_v2.get(ExifTags.Base.Orientation, 1) in _FLIPS.keys() | {5}:
            notes.add("turned")  # Pillow turns this format itself while loading
    image.load()
    return _converted(image, bits, photometric, notes)


def _converted(image: Image.Image, bits: int, photometric: int | None, notes: set[str]) -> NDArray[np.uint8]:
    pixels, made = to_rgb(image, bits, photometric)
    notes |= made
    return pixels


def _end(data: bytes, named: str) -> int:
    """The offset behind the image, where the format tells; JPEG is looked at elsewhere."""
    if named == "PNG":
        return _png_end(data)
    return min(len(data), 8 + int.from_bytes(data[4:8], "little")) if named == "WEBP" else len(data)


def _png_end(data: bytes) -> int:
    """The offset behind the last chunk. Pillow checks no sum from the pixels on, so a flipped bit there would pass."""
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 12 > len(data):
            break
        length, name = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageRejectedError("corrupt", f"the checksum of a PNG chunk at byte {position} is wrong")
        if name == b"IEND":
            return end
        position = end
    else:
        raise ImageRejectedError("too_much_work", f"a PNG of more than {MAX_CHUNKS} chunks")
    raise ImageRejectedError("corrupt", "a PNG without its end")


def _orientation(image: Image.Image, notes: set[str]) -> int:
    """1-8; 1 where it is missing or means nothing."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF raises whatever its parser stumbles over; the pixels are fine
        notes.add("metadata_ignored")
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: NDArray[np.uint8], orientation: int, notes: set[str]) -> NDArray[np.uint8]:
    if orientation == 1:
        return pixels
    notes.add("turned")
    if orientation >= 5:
        pixels = np.asarray(cv2.transpose(pixels), dtype=np.uint8)
    return pixels if orientation == 5 else np.asarray(cv2.flip(pixels, _FLIPS[orientation]), dtype=np.uint8)


def _unidentified(data: bytes, named: str) -> ImageRejectedError:
    if named == "JPEG":
        check_work(JpegLayout.of(data), 0, 1)  # Pillow knows no JPEG with more than 8 bits a sample
    if named == "TIFF":  # what Pillow keeps to itself: which of a TIFF's many kinds of pixels this is
        try:
            TiffImagePlugin.TiffImageFile(io.BytesIO(data))
        except SyntaxError as error:
            if "unknown pixel mode" in str(error):
                return ImageRejectedError("mode", "a TIFF with a kind of pixels that cannot be converted faithfully")
        except Exception:  # noqa: S110 damaged in another way
            pass
    return ImageRejectedError("corrupt", f"it starts like a {named}, but what follows is none")
