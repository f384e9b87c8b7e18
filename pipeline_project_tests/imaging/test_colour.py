"""Every way to store a colour, against the colour that is meant."""

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pipeline_project_tests.imaging.files import (
    code_of,
    curve,
    decoded,
    encoded,
    icc,
    matrix_profile,
    photo,
    pixels,
    png,
    png_chunk,
    smooth,
    tiff,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RED = (250, 30, 30)


ADOBE_PRIMARIES = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]  # of Adobe RGB (1998), in D50
SRGB_PRIMARIES = [(0.43607, 0.22250, 0.01393), (0.38507, 0.71688, 0.09710), (0.14308, 0.06062, 0.71417)]
ADOBE_RGB = matrix_profile(2.19921875, ADOBE_PRIMARIES)
SWAPPED = matrix_profile(2.2, SRGB_PRIMARIES[::-1])
"""sRGB's primaries with red and blue swapped"""


def adobe_to_srgb(colour: tuple[int, int, int]) -> NDArray[np.float64]:
    """By the two standards' own formulas."""
    linear = (np.array(colour) / 255) ** 2.19921875
    xyz = np.array(ADOBE_PRIMARIES).T @ linear
    light = np.clip(np.linalg.inv(np.array(SRGB_PRIMARIES).T) @ xyz, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def flat(colour: tuple[int, int, int], mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (16, 16), colour).convert(mode)


def close(result: NDArray[np.uint8], colour: object, within: float) -> bool:
    return bool(np.abs(result.astype(int).mean(axis=(0, 1)) - np.asarray(colour)).max() <= within)


# --- colour profiles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", [(200, 60, 60), (60, 200, 60), (120, 120, 120), (30, 90, 220), (255, 255, 255), (0, 0, 0)])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_adobe_rgb_becomes_srgb(format_: str, colour: tuple[int, int, int]) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {"quality": 98} if format_ == "JPEG" else {}
    result = decoded(encoded(flat(colour), format_, icc_profile=ADOBE_RGB, **options))
    assert result.notes == ("profile_converted",)
    assert close(result.pixels, adobe_to_srgb(colour), 4 if format_ == "JPEG" else 2)


def test_srgb_itself_changes_nothing() -> None:
    for format_ in ("JPEG", "PNG"):
        plain, tagged = encoded(smooth(40, 30), format_), encoded(smooth(40, 30), format_, icc_profile=SRGB)
        assert decoded(tagged).notes == ()
        assert np.array_equal(pixels(plain), pixels(tagged))


def test_a_profile_applies_under_transparency() -> None:
    layered = flat((10, 20, 200)).convert("RGBA")
    layered.paste((0, 0, 0, 0), (0, 0, 8, 16))
    result = decoded(encoded(layered, icc_profile=SWAPPED))
    assert result.notes == ("alpha_over_white", "profile_converted")
    assert result.pixels[4, 4].tolist() == [255, 255, 255]
    assert result.pixels[4, 12].argmax() == 0, "red and blue are swapped"


def test_a_profile_applies_to_a_palette() -> None:
    result = decoded(encoded(flat((10, 20, 200)).quantize(4), icc_profile=SWAPPED))
    assert result.notes == ("palette", "profile_converted")
    assert result.pixels[4, 4].argmax() == 0


@pytest.mark.parametrize("profile", [b"no profile", SRGB[:200], bytes(3000), SRGB[:36] + b"xxxx" + SRGB[40:]])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_broken_profile_is_ignored(format_: str, profile: bytes) -> None:
    result = decoded(encoded(smooth(40, 30), format_, icc_profile=profile))
    assert result.notes == ("profile_ignored",)
    assert np.array_equal(result.pixels, pixels(encoded(smooth(40, 30), format_)))


def test_a_profile_of_another_colour_space_is_ignored() -> None:
    assert decoded(encoded(flat(RED, "L"), icc_profile=SRGB)).notes == ("grey", "profile_ignored")
    assert decoded(encoded(flat(RED, "CMYK"), "JPEG", icc_profile=SRGB)).notes == ("cmyk", "profile_ignored")


# --- inks -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", [RED, (30, 250, 30), (240, 240, 240), (15, 15, 15), (20, 60, 200)])
@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_inks_become_rgb(format_: str, colour: tuple[int, int, int]) -> None:
    options = {"quality": 95} if format_ == "JPEG" else {}
    data = encoded(flat(colour, "CMYK"), format_, **options)
    if format_ == "JPEG":
        assert b"Adobe" in data, "Pillow writes inverted inks and says so, like Adobe"
    result = decoded(data)
    assert (result.mode, result.notes) == ("CMYK", ("cmyk",))
    assert close(result.pixels, colour, 6)


def test_inks_stored_as_ycck_become_rgb() -> None:
    """What Photoshop writes: C, M, Y turned like R, G, B into YCbCr, then inverted K; marked by Adobe's colour code 2."""
    inks = flat((255 - RED[0], 255 - RED[1], 255 - RED[2])).convert("YCbCr").split()
    inverted = [plane.point(lambda value: 255 - value) for plane in inks]  # Pillow inverts what it writes
    data = encoded(Image.merge("CMYK", [*inverted, Image.new("L", (16, 16), 0)]), "JPEG", quality=98)
    place = data.index(b"Adobe") + 11
    data = data[:place] + b"\x02" + data[place + 1 :]
    result = decoded(data)
    assert (result.mode, result.notes) == ("CMYK", ("cmyk",))
    assert close(result.pixels, RED, 6)


# --- greys, palettes, alpha -----------------------------------------------------------------------------------------------------


def test_transparency_lies_over_white() -> None:
    layered = Image.new("RGBA", (16, 16), (255, 0, 0, 255))
    layered.paste((0, 0, 0, 0), (0, 0, 8, 16))
    layered.paste((0, 0, 0, 128), (8, 0, 16, 8))
    for format_ in ("PNG", "TIFF", "WEBP"):
        result = decoded(encoded(layered, format_, **({"lossless": True} if format_ == "WEBP" else {})))
        assert result.notes == ("alpha_over_white",)
        assert result.pixels[4, 4].tolist() == [255, 255, 255]
        assert np.abs(result.pixels[4, 12].astype(int) - 127).max() <= 1
        assert result.pixels[12, 12].tolist() == [255, 0, 0]


def test_alpha_that_hides_nothing_leaves_no_note() -> None:
    assert decoded(encoded(photo().convert("RGBA"))).notes == ()


def test_palette_with_transparency_lies_over_white() -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([0, 0, 0, 0, 200, 0])
    image.paste(1, (8, 0, 16, 16))
    for format_ in ("PNG", "GIF"):
        result = decoded(encoded(image, format_, transparency=0))
        assert result.notes == ("alpha_over_white", "palette")
        assert result.pixels[0, ::15].tolist() == [[255, 255, 255], [0, 200, 0]]
    assert pixels(encoded(image))[0, ::15].tolist() == [[0, 0, 0], [0, 200, 0]]


def test_one_transparent_colour_lies_over_white() -> None:
    image = flat(RED)
    image.paste((1, 2, 3), (0, 0, 8, 16))
    result = decoded(encoded(image, transparency=(1, 2, 3)))
    assert result.notes == ("alpha_over_white",)
    assert result.pixels[0, ::15].tolist() == [[255, 255, 255], list(RED)]


def test_grey_with_alpha_and_grey_and_bilevel() -> None:
    grey = Image.new("LA", (16, 16), (40, 255))
    grey.paste((0, 0), (0, 0, 8, 16))
    assert decoded(encoded(grey)).notes == ("alpha_over_white", "grey")
    assert pixels(encoded(grey))[0, ::15].tolist() == [[255, 255, 255], [40, 40, 40]]
    for format_ in ("PNG", "TIFF", "BMP", "JPEG"):
        result = decoded(encoded(Image.new("L", (16, 16), 77), format_))
        assert (result.mode, result.pixels[0, 0].tolist()) == ("P" if format_ == "GIF" else "L", [77, 77, 77])
        assert result.notes == ("grey",)
    for value in (0, 1):
        result = decoded(encoded(Image.new("1", (16, 16), value)))
        assert (result.notes, result.pixels[0, 0].tolist()) == (("bilevel",), [255 * value] * 3)


def test_greys_of_a_jpeg_are_those_that_pillow_sees() -> None:
    data = encoded(smooth(50, 40).convert("L"), "JPEG")
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_lab() -> None:
    from_srgb = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    for colour in (RED, (128, 128, 128), (20, 60, 200)):
        stored = ImageCms.applyTransform(flat(colour), from_srgb)
        assert stored is not None
        result = decoded(encoded(stored, "TIFF"))
        assert (result.mode, result.notes) == ("LAB", ("lab",))
        assert close(result.pixels, colour, 5)


# --- deeper than 8 bits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bit_greys_are_scaled_not_clipped(format_: str) -> None:
    levels = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    result = decoded(encoded(Image.fromarray(levels), format_))
    assert result.notes == ("grey", "sixteen_bits")
    assert np.array_equal(result.pixels[..., 0], levels >> 8)
    assert np.array_equal(result.pixels[..., 0], result.pixels[..., 2])


def test_eight_bits_stored_as_sixteen_come_back_as_they_were() -> None:
    eight = np.asarray(smooth(20, 12))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in eight.astype(np.uint16) * 257)
    result = decoded(png(20, 12, rows, bits=16, colour=2))
    assert result.notes == ("sixteen_bits",)
    assert np.array_equal(result.pixels, eight)


def test_one_transparent_colour_of_sixteen_bits() -> None:
    rows = (b"\0" + struct.pack(">H", 1000) * 8 + struct.pack(">H", 40_000) * 8) * 16
    result = decoded(png(16, 16, rows, png_chunk(b"tRNS", struct.pack(">H", 1000)), bits=16, colour=0))
    assert result.notes == ("alpha_over_white", "grey", "sixteen_bits")
    assert result.pixels[0, ::15, 0].tolist() == [255, 40_000 >> 8]
    rows = (b"\0" + struct.pack(">HHH", 1000, 2000, 3000) * 8 + struct.pack(">HHH", 40_000, 0, 0) * 8) * 16
    result = decoded(png(16, 16, rows, png_chunk(b"tRNS", struct.pack(">HHH", 1000, 2000, 3000)), bits=16, colour=2))
    assert result.pixels[0, ::15].tolist() == [[255, 255, 255], [40_000 >> 8, 0, 0]]


def test_sixteen_bits_with_alpha() -> None:
    rows = (b"\0" + struct.pack(">HHHH", 0, 0, 0, 0) * 8 + struct.pack(">HHHH", 65535, 0, 0, 65535) * 8) * 16
    result = decoded(png(16, 16, rows, bits=16, colour=6))
    assert result.notes == ("alpha_over_white", "sixteen_bits")
    assert result.pixels[0, ::15].tolist() == [[255, 255, 255], [255, 0, 0]]


def test_greys_counted_from_white() -> None:
    stored = np.full((16, 16), 65535 - 257 * 40, "<u2").tobytes()
    result = decoded(tiff(stored, 16, 16, {258: (3, 16), 262: (3, 0), 277: (3, 1)}))
    assert result.pixels[0, 0].tolist() == [40, 40, 40]


def test_twelve_bits() -> None:
    # Two samples of 12 bits in three bytes: 0x800 is half of the range.
    result = decoded(tiff(bytes.fromhex("800800") * 8 * 16, 16, 16, {258: (3, 12), 262: (3, 1), 277: (3, 1)}))
    assert result.pixels[0, 0].tolist() == [128, 128, 128]


@pytest.mark.parametrize(("kind", "bits"), [("<f4", 32), ("<i4", 32), ("<u4", 32), ("<f8", 64), ("<i2", 16)])
def test_values_without_a_known_range_are_refused(kind: str, bits: int) -> None:
    sample_format = {"f": 3, "i": 2, "u": 1}[kind[1]]
    data = tiff(np.ones((16, 16), kind).tobytes(), 16, 16, {258: (3, bits), 262: (3, 1), 277: (3, 1), 339: (3, sample_format)})
    assert code_of(data) == "mode"


def test_a_grey_profile_applies() -> None:
    """A grey of gamma 1 is far brighter than its number says."""
    profile = icc(b"GRAY", [(b"kTRC", curve(1.0))])
    for format_ in ("JPEG", "PNG"):
        result = decoded(encoded(Image.new("L", (16, 16), 55), format_, icc_profile=profile))
        assert result.notes == ("grey", "profile_converted")
        assert close(result.pixels, [128] * 3, 3)


def test_profiles_in_png_are_compressed() -> None:
    chunk = png_chunk(b"iCCP", b"name\0\0" + zlib.compress(ADOBE_RGB))
    data = encoded(flat((200, 60, 60)))
    assert decoded(data[:33] + chunk + data[33:]).notes == ("profile_converted",)
