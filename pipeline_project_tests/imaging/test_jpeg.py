"""JPEG: what libjpeg warns of is refused where it means damage and passed over where it does not; scaling in the decoder is exact."""

import io
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline_project.imaging import DecodeLimits, decode_image
from pipeline_project.imaging.jpeg import MAX_SCANS, JpegLayout, jpeg_scale
from pipeline_project_tests.imaging.files import ANY, LIMITS, ORIENTATION, after_soi, code_of, decoded, encoded, pixels, segment, smooth

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"
JPEG = encoded(smooth(120, 90), "JPEG", quality=90)
PROGRESSIVE = encoded(smooth(120, 90), "JPEG", quality=90, progressive=True)


def by_pillow(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def first(data: bytes, marker: int) -> int:
    """Offset of the first segment with a marker."""
    return next(part.start for part in JpegLayout.of(data).segments if part.marker == marker)


# --- the same pixels as everyone else's -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_are_pillows(subsampling: str, progressive: bool) -> None:
    for width, height in [(64, 48), (61, 37), (8, 9)]:
        data = encoded(smooth(width, height), "JPEG", subsampling=subsampling, progressive=progressive)
        assert np.array_equal(pixels(data), by_pillow(data))
        assert decoded(data).notes == ()


def test_restart_markers_change_nothing() -> None:
    data = encoded(smooth(120, 90), "JPEG", quality=90, restart_marker_rows=1)
    assert b"\xff\xd1" in data
    assert np.array_equal(pixels(data), pixels(JPEG))


@pytest.mark.skipif(not CLOTHING.is_dir(), reason="needs the photographs of ../shared/data/clothing")
def test_pixels_of_real_photographs_are_pillows() -> None:
    photographs = sorted(CLOTHING.rglob("*.jpg"))[::170]
    assert photographs
    for path in photographs:
        data = path.read_bytes()
        assert np.array_equal(decode_image(data, DecodeLimits(ANY, 10**7, 10**7, 16), 10**4).pixels, by_pillow(data)), path.name


# --- scaling in the decoder -----------------------------------------------------------------------------------------------------


@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000), size=st.integers(16, 512))
def test_the_shorter_side_keeps_twice_the_size(width: int, height: int, size: int) -> None:
    scale = jpeg_scale(width, height, size)
    assert scale in (1, 2, 4, 8)
    kept = -(-min(width, height) // scale)
    assert scale == 1 or kept >= 2 * size
    assert scale == 8 or -(-min(width, height) // (scale * 2)) < 2 * size


@pytest.mark.parametrize(("size", "scale"), [(200, 1), (101, 1), (100, 2), (51, 2), (50, 4), (25, 8), (8, 8)])
def test_large_jpegs_are_decoded_smaller(size: int, scale: int) -> None:
    data = encoded(smooth(501, 400), "JPEG", quality=95)
    result = decoded(data, size=size)
    assert (result.width, result.height) == (501, 400), "of the original"
    assert result.pixels.shape == (-(-400 // scale), -(-501 // scale), 3)
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (501 // scale, 400 // scale))
    assert np.array_equal(result.pixels, np.asarray(image)), "libjpeg's own scaling, as Pillow asks for it"
    assert decoded(data).pixels.shape == (400, 501, 3)


@pytest.mark.parametrize("orientation", [1, 6])
def test_scaled_and_turned(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    for mode in ("RGB", "L", "CMYK"):
        result = decoded(encoded(smooth(500, 400).convert(mode), "JPEG", exif=exif), size=50)
        upright = (400, 500) if orientation == 6 else (500, 400)
        assert (result.width, result.height) == upright
        assert result.pixels.shape == (upright[1] // 4, upright[0] // 4, 3)


def test_damage_is_found_when_scaled() -> None:
    data = encoded(smooth(800, 640), "JPEG", quality=95)
    assert code_of(data[: int(len(data) * 0.95)]) == "corrupt"
    middle = len(data) // 2
    assert code_of(data[:middle] + data[middle + 40 :]) == "corrupt"


def test_other_formats_are_not_scaled() -> None:
    assert decoded(encoded(smooth(500, 400)), size=16).pixels.shape == (400, 500, 3)


# --- damage ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE], ids=["baseline", "progressive"])
def test_cut_files_are_corrupt_wherever_they_are_cut(data: bytes) -> None:
    for end in range(4, len(data), max(1, len(data) // 60)):
        assert code_of(data[:end]) == "corrupt"


def test_lost_or_foreign_bytes_among_the_pixels_are_corrupt_though_pillow_sees_nothing() -> None:
    passed = 0
    scan = first(JPEG, 0xDA) + 20
    for start in range(scan, len(JPEG) - 60, 97):
        damaged = JPEG[:start] + JPEG[start + 40 :]
        assert code_of(damaged) == "corrupt"
        try:
            by_pillow(damaged)
            passed += 1
        except OSError:
            pass
    assert passed > 5, "Pillow decodes most of them without a word"


def test_most_flipped_bits_that_break_the_code_are_found() -> None:
    """What still decodes to the right number of blocks cannot be told: JPEG has no checksum."""
    rng, scan, found = np.random.default_rng(0), first(JPEG, 0xDA) + 20, 0
    for _ in range(100):
        data = bytearray(JPEG)
        for place in rng.integers(scan, len(JPEG) - 2, 6):
            data[place] ^= 1 << int(rng.integers(8))
        try:
            decoded(bytes(data))
        except ValueError:
            found += 1
    assert found > 30


# --- what libjpeg warns of, and nobody need mind ---------------------------------------------------------------------------------


def oddities() -> dict[str, bytes]:
    scan = first(JPEG, 0xDA)
    jfif, tables = JPEG.index(b"JFIF\0"), first(JPEG, 0xDB)
    parameters = scan + 2 + int.from_bytes(JPEG[scan + 2 : scan + 4], "big") - 3
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\x09")
    without_jfif = JPEG[:2] + JPEG[first(JPEG, 0xE0) + 18 :]
    return {
        "bytes between segments": JPEG[:tables] + b"\0\0\x17" + JPEG[tables:],
        "zeros behind the scan": JPEG[:-2] + bytes(7) + JPEG[-2:],
        "unknown JFIF revision": JPEG[: jfif + 5] + b"\x09" + JPEG[jfif + 6 :],
        "unknown Adobe colour code": after_soi(without_jfif, adobe),
        "spectral range in a sequential scan": JPEG[:parameters] + b"\0\0\0" + JPEG[parameters + 3 :],
    }


@pytest.mark.parametrize("name", sorted(oddities()))
def test_harmless_oddities_are_passed_over_and_noted(name: str) -> None:
    data = oddities()[name]
    with pytest.raises(ValueError, match=r"."):
        simplejpeg.decode_jpeg(data, "RGB", strict=True)
    result = decoded(data)
    assert result.notes == ("odd_structure",)
    assert np.array_equal(result.pixels, by_pillow(JPEG))


def test_an_oddity_does_not_hide_damage() -> None:
    for data in oddities().values():
        middle = len(data) * 2 // 3
        assert code_of(data[:middle] + data[middle + 40 :]) == "corrupt"


def test_bytes_left_over_behind_the_scan_are_damage_unless_they_are_zeros() -> None:
    assert code_of(JPEG[:-2] + b"\x5a\x13\x77" * 8 + JPEG[-2:]) == "corrupt"


def test_fill_bytes_before_markers_are_part_of_the_standard() -> None:
    scan = first(JPEG, 0xDA)
    assert decoded(JPEG[:scan] + b"\xff\xff" + JPEG[scan:]).notes == ()


def unusually_sampled() -> bytes:
    """Cr at half the size of Y and Cb, which TurboJPEG has no name for: three grey JPEGs as the scans of one."""
    greys = [encoded(plane.resize(size), "JPEG") for plane, size in zip(smooth(64, 48).convert("YCbCr").split(), SIZES, strict=True)]
    parts = {part.marker: greys[0][part.start : part.end] for part in JpegLayout.of(greys[0]).segments}
    tables = b"".join(greys[0][part.start : part.end] for part in JpegLayout.of(greys[0]).segments if part.marker in (0xDB, 0xC4))
    frame = parts[0xC0][4:9] + b"\x03" + b"\x01\x22\x00\x02\x22\x00\x03\x11\x00"
    scans = b""
    for number, grey in enumerate(greys, start=1):
        data = grey[JpegLayout.of(grey).segments[-2].end : -2]  # entropy-coded: between the scan's header and the end
        scans += segment(0xDA, b"\x01" + bytes([number]) + b"\x00\x00\x3f\x00") + data
    return b"\xff\xd8" + tables + segment(0xC0, frame) + scans + b"\xff\xd9"


SIZES = [(64, 48), (64, 48), (32, 24)]


def test_chroma_layouts_that_only_pillow_knows() -> None:
    data = unusually_sampled()
    result = decoded(data)
    assert result.notes == ("unusual_sampling",)
    assert np.array_equal(result.pixels, by_pillow(data))
    assert np.abs(result.pixels.astype(int) - np.asarray(smooth(64, 48), int)).mean() < 6
    assert code_of(data[:-200]) == "corrupt"


# --- work -----------------------------------------------------------------------------------------------------------------------


def test_scans_are_counted() -> None:
    assert JpegLayout.of(JPEG).scans == 1
    assert JpegLayout.of(PROGRESSIVE).scans == PROGRESSIVE.count(b"\xff\xda")
    assert JpegLayout.of(PROGRESSIVE).scans > 3
    thumbnail = after_soi(JPEG, segment(0xE1, b"Exif\0\0" + PROGRESSIVE))
    assert JpegLayout.of(thumbnail).scans == 1, "those of a thumbnail in the metadata do not count"
    assert JpegLayout.of(JPEG).end == len(JPEG)
    assert JpegLayout.of(JPEG + b"behind\xff\xd9").end == len(JPEG)
    assert JpegLayout.of(JPEG[:-2]).end is None


def with_scans(count: int) -> bytes:
    """The last scan of a progressive JPEG over and over."""
    layout = JpegLayout.of(PROGRESSIVE)
    last = max(part.start for part in layout.segments if part.marker == 0xDA)
    return PROGRESSIVE[:-2] + PROGRESSIVE[last:-2] * (count - layout.scans) + PROGRESSIVE[-2:]


def test_scans_without_end_are_too_much_work() -> None:
    assert code_of(with_scans(MAX_SCANS + 1)) == "too_much_work"
    tight = DecodeLimits(formats=ANY, max_bytes=2_000_000, max_pixels=120 * 90, min_side=8)
    assert decoded(PROGRESSIVE, tight).width == 120
    assert code_of(with_scans(21), tight) == "too_much_work"


def test_segments_without_end_are_too_much_work() -> None:
    assert code_of(after_soi(JPEG, segment(0xFE, b"") * 20_000)) == "too_much_work"


def test_twelve_bits_a_sample_are_refused_by_name() -> None:
    data = bytearray(JPEG)
    data[first(JPEG, 0xC0) + 4] = 12
    assert code_of(bytes(data)) == "mode"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_have_a_layout(tail: bytes) -> None:
    layout = JpegLayout.of(b"\xff\xd8" + tail)
    assert layout.end is None or layout.end <= len(tail) + 2
    starts = [part.start for part in layout.segments]
    assert starts == sorted(set(starts))


def test_sizes_in_the_header_that_the_data_do_not_bear_out() -> None:
    frame = first(JPEG, 0xC0)
    for height, width in [(91 + 8, 120), (90, 129), (45, 120), (0, 120), (90, 0)]:
        data = JPEG[: frame + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + JPEG[frame + 9 :]
        assert code_of(data, LIMITS) in ("corrupt", "too_small")
