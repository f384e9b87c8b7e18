"""Decoding: every legitimate kind of photo becomes upright RGB, and nothing hostile does anything but raise a reason."""

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline_project.imaging import DecodeLimits, ImageRejectedError, decode_image, sniff_format
from pipeline_project.settings import load_settings

ANY = frozenset({"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"})
LIMITS = DecodeLimits(formats=ANY, max_bytes=2_000_000, max_pixels=1_000_000, min_side=8)
ORIENTATION = 0x0112


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def pixels(data: bytes, limits: DecodeLimits = LIMITS) -> NDArray[np.uint8]:
    return np.asarray(decode_image(data, limits).image)


def photo(width: int = 24, height: int = 16) -> Image.Image:
    """No symmetry: every orientation looks different."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, (x + y) % 2 * 40], axis=2).astype(np.uint8))


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND", b"")


# --- what is accepted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", sorted(ANY))
def test_every_format_is_decoded_by_its_bytes(format_: str) -> None:
    source = photo()
    options = {"quality": 95} if format_ == "JPEG" else {"lossless": True} if format_ == "WEBP" else {}
    data = encoded(source, format_, **options)
    assert sniff_format(data) == format_
    decoded = decode_image(data, LIMITS)
    assert (decoded.format, decoded.width, decoded.height, decoded.image.mode) == (format_, 24, 16, "RGB")
    exact = format_ in ("PNG", "WEBP", "BMP", "TIFF")
    assert np.abs(np.asarray(decoded.image, int) - np.asarray(source, int)).mean() <= (0 if exact else 25)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_is_undone(format_: str, orientation: int) -> None:
    upright = np.asarray(photo())
    stored = {  # how a camera stores the upright scene under each orientation
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright, 1), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"quality": 98, "subsampling": 0} if format_ == "JPEG" else {"lossless": True} if format_ == "WEBP" else {}
    decoded = decode_image(encoded(Image.fromarray(np.ascontiguousarray(stored)), format_, exif=exif, **options), LIMITS)
    assert decoded.image.size == (24, 16)
    assert (decoded.width, decoded.height) == (stored.shape[1], stored.shape[0]), "as stored"
    assert np.abs(np.asarray(decoded.image, int) - upright.astype(int)).mean() < (12 if format_ == "JPEG" else 0.01)


@pytest.mark.parametrize("value", [0, 9, 60000])
def test_orientation_that_means_nothing_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    assert np.array_equal(pixels(encoded(photo(), exif=exif)), np.asarray(photo()))


def test_odd_metadata_beside_an_orientation_does_not_spoil_a_photo() -> None:
    # Orientation 6, and a Make (text) stored as a rational: seen in the wild, and Pillow cannot write it anew.
    entries = struct.pack(">HHIHH", ORIENTATION, 3, 1, 6, 0) + struct.pack(">HHII", 0x010F, 5, 1, 38)
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 2) + entries + struct.pack(">I", 0) + struct.pack(">II", 1, 3)
    for format_ in ("JPEG", "WEBP"):
        assert decode_image(encoded(photo(), format_, exif=exif), LIMITS).image.size == (16, 24)


def test_cmyk_becomes_rgb() -> None:
    colour = Image.new("RGB", (16, 16), (250, 30, 30))
    decoded = decode_image(encoded(colour.convert("CMYK"), "JPEG", quality=95), LIMITS)
    assert decoded.mode == "CMYK"
    assert np.abs(np.asarray(decoded.image, int).mean(axis=(0, 1)) - [250, 30, 30]).max() < 12


def test_transparency_lies_over_white() -> None:
    layered = Image.new("RGBA", (16, 16), (255, 0, 0, 255))
    layered.paste((0, 0, 0, 0), (0, 0, 8, 16))
    layered.paste((0, 0, 0, 128), (8, 0, 16, 8))
    result = pixels(encoded(layered))
    assert result[4, 4].tolist() == [255, 255, 255]
    assert np.abs(result[4, 12].astype(int) - 127).max() <= 1
    assert result[12, 12].tolist() == [255, 0, 0]


def test_palette_with_transparency_lies_over_white() -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([0, 0, 0, 0, 200, 0])
    image.paste(1, (8, 0, 16, 16))
    assert pixels(encoded(image, transparency=0))[0, ::15].tolist() == [[255, 255, 255], [0, 200, 0]]
    assert pixels(encoded(image))[0, ::15].tolist() == [[0, 0, 0], [0, 200, 0]]
    assert pixels(encoded(image, "GIF", transparency=0))[0, ::15].tolist() == [[255, 255, 255], [0, 200, 0]]


def test_grey_with_alpha_and_grey_and_bilevel() -> None:
    grey = Image.new("LA", (16, 16), (40, 255))
    grey.paste((0, 0), (0, 0, 8, 16))
    assert pixels(encoded(grey))[0, ::15].tolist() == [[255, 255, 255], [40, 40, 40]]
    assert pixels(encoded(Image.new("L", (16, 16), 77)))[0, 0].tolist() == [77, 77, 77]
    assert pixels(encoded(Image.new("1", (16, 16), 1)))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(format_: str) -> None:
    levels = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    result = pixels(encoded(Image.fromarray(levels), format_))
    assert np.array_equal(result[..., 0], levels >> 8)
    assert np.array_equal(result[..., 0], result[..., 2])


def test_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]


# --- what is refused ----------------------------------------------------------------------------------------------------------


def code_of(data: bytes, limits: DecodeLimits = LIMITS) -> str:
    with pytest.raises(ImageRejectedError) as caught:
        decode_image(data, limits)
    assert str(caught.value) == f"{caught.value.code}: {caught.value.detail}"
    return caught.value.code


def test_reject_codes() -> None:
    jpeg = encoded(photo(), "JPEG")
    strict = DecodeLimits(formats=frozenset({"PNG"}), max_bytes=2_000_000, max_pixels=1_000_000, min_side=8)
    assert code_of(b"") == "empty"
    assert code_of(jpeg + bytes(2_000_000)) == "too_many_bytes"
    assert code_of(b"404 Not Found: the photo has moved\n") == "not_an_image"
    assert code_of(jpeg, strict) == "format"
    assert code_of(encoded(Image.new("L", (1001, 1000)))) == "too_many_pixels"
    assert code_of(encoded(photo(24, 7))) == "too_small"
    assert code_of(jpeg[: len(jpeg) // 2]) == "corrupt"
    assert code_of(b"\xff\xd8\xff\xe0 and nothing more") == "corrupt"


def test_limits_are_inclusive() -> None:
    exact = DecodeLimits(formats=ANY, max_bytes=len(encoded(photo())), max_pixels=24 * 16, min_side=16)
    assert decode_image(encoded(photo()), exact).width == 24


def test_wrong_name_of_the_format_inside_is_refused() -> None:
    gif_named_png = b"\x89PNG\r\n\x1a\n" + encoded(photo(), "GIF")
    assert code_of(gif_named_png) == "corrupt"


def test_limits_come_from_settings() -> None:
    limits = DecodeLimits.from_settings(load_settings("product_images", environment={}).ingest)
    assert limits.formats == {"JPEG", "PNG", "WEBP"}
    assert (limits.max_bytes, limits.max_pixels, limits.min_side) == (20_000_000, 50_000_000, 16)
    assert code_of(encoded(photo(), "GIF"), limits) == "format"


@pytest.mark.parametrize(("width", "height"), [(2_000, 2_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)])
def test_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    bomb = png(width, height, bytes(4_000_000))  # 4 MB of zeros in 4 kB
    assert len(bomb) < 10_000
    tracemalloc.start()
    started = time.process_time()
    try:
        assert code_of(bomb) == "too_many_pixels"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 0.25
    assert peak < 2_000_000


def test_text_bomb_does_not_unpack() -> None:
    text = png_chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(50_000_000), 9))
    data = encoded(photo())
    tracemalloc.start()
    try:
        assert code_of(data[:33] + text + data[33:]) == "corrupt"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


# --- hostile bytes ------------------------------------------------------------------------------------------------------------

_EXIF = Image.Exif()
_EXIF[ORIENTATION], _EXIF[0x010F], _EXIF[0x011A] = 6, "maker", 72.5
REAL = {
    "JPEG": encoded(photo(), "JPEG", exif=_EXIF),
    "PNG": encoded(photo(), "PNG", exif=_EXIF),
    "WEBP": encoded(photo(), "WEBP", exif=_EXIF),
}


def only_a_reason(data: bytes) -> None:
    try:
        decoded = decode_image(data, LIMITS)
    except ImageRejectedError:
        return
    assert decoded.image.mode == "RGB"
    assert np.asarray(decoded.image).size > 0


@settings(max_examples=60, deadline=None)
@given(
    head=st.sampled_from([b"", *(data[:16] for data in REAL.values()), b"GIF89a", b"BM", b"II*\0", b"MM\0*"]), tail=st.binary(max_size=200)
)
def test_random_bytes_give_only_a_reason(head: bytes, tail: bytes) -> None:
    only_a_reason(head + tail)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(REAL)), share=st.floats(0, 1))
def test_truncations_give_only_a_reason(name: str, share: float) -> None:
    only_a_reason(REAL[name][: int(share * len(REAL[name]))])


@settings(max_examples=250, deadline=None)
@given(
    name=st.sampled_from(sorted(REAL)),
    flips=st.lists(st.tuples(st.integers(12, 160), st.integers(0, 7)) | st.tuples(st.integers(12, 10_000), st.integers(0, 7)), max_size=6),
)
def test_flipped_bits_give_only_a_reason(name: str, flips: list[tuple[int, int]]) -> None:
    data = bytearray(REAL[name])
    for position, bit in flips:
        data[position % len(data)] ^= 1 << bit
    only_a_reason(bytes(data))
