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
from PIL import Image

from pipeline_project.imaging import DecodeLimits, ImageRejectedError, decode_image, sniff_format
from pipeline_project.imaging.decode import NOTES
from pipeline_project.settings import load_settings
from pipeline_project_tests.imaging.files import (
    ANY,
    CODES,
    LIMITS,
    ORIENTATION,
    code_of,
    decoded,
    encoded,
    photo,
    pixels,
    png,
    png_chunk,
    smooth,
    tiff,
)

# --- what is accepted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", sorted(ANY))
def test_every_format_is_decoded_by_its_bytes(format_: str) -> None:
    source = photo()
    options = {"quality": 95} if format_ == "JPEG" else {"lossless": True} if format_ == "WEBP" else {}
    data = encoded(source, format_, **options)
    assert sniff_format(data) == format_
    result = decoded(data)
    assert (result.format, result.width, result.height) == (format_, 24, 16)
    assert (result.pixels.shape, result.pixels.dtype) == ((16, 24, 3), np.uint8)
    assert result.notes == (("palette",) if format_ == "GIF" else ())
    exact = format_ in ("PNG", "WEBP", "BMP", "TIFF")
    assert np.abs(result.pixels.astype(int) - np.asarray(source, int)).mean() <= (0 if exact else 25)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(format_: str, orientation: int) -> None:
    upright = np.asarray(photo())
    stored = {  # how a camera stores the upright scene under each orientation
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright, 1), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"quality": 98, "subsampling": 0} if format_ == "JPEG" else {"lossless": True} if format_ == "WEBP" else {}
    result = decoded(encoded(Image.fromarray(np.ascontiguousarray(stored)), format_, exif=exif, **options))
    assert (result.width, result.height) == (24, 16), "of the upright original"
    assert result.pixels.shape == (16, 24, 3)
    assert result.pixels.flags.c_contiguous
    assert np.abs(result.pixels.astype(int) - upright.astype(int)).mean() < (12 if format_ == "JPEG" else 0.01)
    assert ("turned" in result.notes) == (orientation != 1)


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
        assert decoded(encoded(photo(), format_, exif=exif)).pixels.shape == (24, 16, 3)


@pytest.mark.parametrize("format_", ["JPEG", "WEBP"])
def test_damaged_metadata_does_not_spoil_a_photo(format_: str) -> None:
    result = decoded(encoded(photo(), format_, exif=b"Exif\0\0no metadata at all"))
    assert set(result.notes) <= {"metadata_ignored"}, "Pillow reads a JPEG's metadata with more patience"
    assert result.pixels.shape == (16, 24, 3)


@pytest.mark.parametrize(("width", "height"), [(8, 4000), (4000, 8)])
def test_extreme_aspects(width: int, height: int) -> None:
    for format_ in ("JPEG", "PNG"):
        result = decoded(encoded(smooth(width, height), format_), size=32)
        assert (result.width, result.height, result.pixels.shape) == (width, height, (height, width, 3))


def test_what_follows_an_image_is_noted_and_left_alone() -> None:
    for format_ in ("JPEG", "PNG", "WEBP"):
        clean = encoded(smooth(40, 30), format_)
        for tail in (b"PK\x03\x04 an archive", b"<html><script>alert(1)</script></html>", bytes(100), clean):
            result = decoded(clean + tail)
            assert result.notes == ("trailing_bytes",)
            assert np.array_equal(result.pixels, decoded(clean).pixels)
        assert decoded(clean).notes == ()


def test_a_jpeg_with_further_pictures_counts_as_its_first() -> None:
    first, second = smooth(40, 30), Image.new("RGB", (40, 30), "red")
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    result = decoded(buffer.getvalue())
    assert result.notes == ("extra_pictures",)
    assert np.abs(result.pixels.astype(int) - np.asarray(first, int)).mean() < 4


def test_every_note_is_explained() -> None:
    assert all(meaning for meaning in NOTES.values())
    assert list(NOTES) == sorted(NOTES)


# --- what is refused ----------------------------------------------------------------------------------------------------------


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
    assert decoded(encoded(photo()), exact).width == 24


def test_wrong_name_of_the_format_inside_is_refused() -> None:
    gif_named_png = b"\x89PNG\r\n\x1a\n" + encoded(photo(), "GIF")
    assert code_of(gif_named_png) == "corrupt"


def test_limits_come_from_settings() -> None:
    limits = DecodeLimits.from_settings(load_settings("product_images", environment={}).ingest)
    assert limits.formats == {"JPEG", "PNG", "WEBP"}
    assert (limits.max_bytes, limits.max_pixels, limits.min_side) == (20_000_000, 50_000_000, 16)
    assert code_of(encoded(photo(), "GIF"), limits) == "format"


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF"])
def test_more_than_one_picture_is_refused(format_: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    assert code_of(encoded(frames[0], format_, save_all=True, append_images=frames[1:])) == "animated"
    assert pixels(encoded(frames[0], format_, save_all=True, append_images=[]))[0, 0].argmax() == 0


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
    assert time.process_time() - started < 0.5
    assert peak < 2_000_000


@pytest.mark.parametrize("chunk", [b"zTXt", b"iCCP"])
def test_bombs_beside_the_pixels_do_not_unpack(chunk: bytes) -> None:
    bomb = png_chunk(chunk, b"comment\0\0" + zlib.compress(bytes(50_000_000), 9))
    data = encoded(photo())
    tracemalloc.start()
    try:
        assert code_of(data[:33] + bomb + data[33:]) == "corrupt"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


def test_tiles_larger_than_any_image_are_refused() -> None:
    tiled = {322: (4, 60_000), 323: (4, 60_000), 324: (4, 8), 325: (4, 256)}
    assert code_of(tiff(bytes(256), 16, 16, {258: (3, 8), 262: (3, 1), 277: (3, 1), **tiled})) == "too_many_pixels"


def test_png_checksums_count_from_the_first_pixel_to_the_last() -> None:
    """Pillow alone lets a flipped bit among the pixels pass."""
    data = encoded(photo(), compress_level=0)
    place = data.index(b"IDAT") + 30
    flipped = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
    assert code_of(flipped) == "corrupt"
    assert code_of(data[:-12]) == "corrupt"


def test_a_png_of_countless_chunks_is_too_much_work() -> None:
    data = encoded(photo())
    countless = data[:33] + png_chunk(b"teSt", b"") * 100_001 + data[33:]
    assert code_of(countless) == "too_much_work"


# --- hostile bytes ------------------------------------------------------------------------------------------------------------

_EXIF = Image.Exif()
_EXIF[ORIENTATION], _EXIF[0x010F], _EXIF[0x011A] = 6, "maker", 72.5
REAL = {
    "JPEG": encoded(photo(), "JPEG", exif=_EXIF),
    "PNG": encoded(photo(), "PNG", exif=_EXIF),
    "WEBP": encoded(photo(), "WEBP", exif=_EXIF),
    "GIF": encoded(photo(), "GIF"),
    "BMP": encoded(photo(), "BMP"),
    "TIFF": encoded(photo(), "TIFF", compression="tiff_lzw", exif=_EXIF),
}


def only_a_reason(data: bytes) -> None:
    try:
        result = decode_image(data, LIMITS, 8)
    except ImageRejectedError as error:
        assert error.code in CODES
        assert " at 0x" not in error.detail, "an address in memory: different each time"
        return
    assert result.pixels.ndim == 3
    assert result.pixels.shape[2] == 3
    assert result.pixels.dtype == np.uint8
    assert result.pixels.size > 0
    assert set(result.notes) <= set(NOTES)
    assert list(result.notes) == sorted(result.notes)


@settings(max_examples=80, deadline=None)
@given(
    head=st.sampled_from([b"", *(data[:16] for data in REAL.values()), b"GIF89a", b"BM", b"II*\0", b"MM\0*"]), tail=st.binary(max_size=200)
)
def test_random_bytes_give_only_a_reason(head: bytes, tail: bytes) -> None:
    only_a_reason(head + tail)


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(sorted(REAL)), share=st.floats(0, 1))
def test_truncations_give_only_a_reason(name: str, share: float) -> None:
    only_a_reason(REAL[name][: int(share * len(REAL[name]))])


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(REAL)),
    flips=st.lists(st.tuples(st.integers(12, 160), st.integers(0, 7)) | st.tuples(st.integers(12, 10_000), st.integers(0, 7)), max_size=6),
)
def test_flipped_bits_give_only_a_reason(name: str, flips: list[tuple[int, int]]) -> None:
    data = bytearray(REAL[name])
    for position, bit in flips:
        data[position % len(data)] ^= 1 << bit
    only_a_reason(bytes(data))
