"""JPEG: the file's structure read before anything is decoded, strict decoding into arrays, scaling inside the decoder.

Pillow passes over damaged entropy data without a word. libjpeg does notice; simplejpeg stops at its first warning. A few warnings are
harmless (`_tidied`): the file is accepted where a copy without the oddity decodes without any warning. What the damage left decodable,
with the right number of blocks, nobody can see: JPEG has no checksum.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pipeline_project.imaging.formats import ImageRejectedError

MAX_SCANS = 500
"""libjpeg-turbo's own advice; encoders write about ten."""
MAX_SEGMENTS = 10_000
SCAN_WORK = 20
"""A file may cost this many passes over the largest image allowed."""

_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_MARKER_AFTER_ENTROPY = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # FF 00 is a stuffed byte, D0-D7 are restarts inside a scan
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length: TEM, RSTn, SOI
_APP0, _APP14, _SOS, _EOI = 0xE0, 0xEE, 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC are no frame headers
_SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
_SCALES = (8, 4, 2)
_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


class _Segment(NamedTuple):
    marker: int
    start: int
    """offset of the FF"""
    end: int
    """offset behind the segment's own bytes; entropy-coded data follow a scan's header"""


@dataclass(frozen=True)
class JpegLayout:
    """Where a JPEG's segments lie. `end` is the offset behind its end marker, or None where there is none."""

    segments: tuple[_Segment, ...]
    end: int | None
    scans: int
    precision: int | None
    """bits a sample"""

    @classmethod
    def of(cls, data: bytes) -> "JpegLayout":
        """Walk over the markers, as libjpeg does: bytes between segments are passed over.

        Raises:
            ImageRejectedError: `too_much_work`: no photo has so many segments.
        """
        segments: list[_Segment] = []
        position, scans, precision = 2, 0, None
        found = _MARKER.search(data, position)
        while found:
            marker, start = data[found.start() + 1], found.start()
            if marker == _EOI:
                return cls((*segments, _Segment(marker, start, start + 2)), start + 2, scans, precision)
            position = start + 2 if marker in _ALONE else start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
            segments.append(_Segment(marker, start, position))
            if len(segments) > MAX_SEGMENTS:
                raise ImageRejectedError("too_much_work", f"a JPEG of more than {MAX_SEGMENTS} segments")
            if marker in _FRAMES and precision is None and start + 4 < len(data):
                precision = data[start + 4]
            scans += marker == _SOS
            found = (_MARKER_AFTER_ENTROPY if marker == _SOS else _MARKER).search(data, position)
        return cls(tuple(segments), None, scans, precision)


def jpeg_scale(width: int, height: int, size: int) -> int:
    """1, 2, 4 or 8: by how much the decoder may shrink so that the shorter side keeps at least twice `size`.

    Whole powers of two only: other factors of libjpeg cost more than they save.
    """
    shorter = min(width, height)
    return next((scale for scale in _SCALES if -(-shorter // scale) >= 2 * size), 1)


def check_work(layout: JpegLayout, pixels: int, max_pixels: int) -> None:
    """Refuse samples that are not 8 bits (`mode`), and files whose scans would go over the image again and again (`too_much_work`)."""
    if layout.precision not in (None, 8):
        raise ImageRejectedError("mode", f"JPEG with {layout.precision} bits a sample; only 8 are supported")
    if layout.scans > MAX_SCANS or layout.scans * pixels > SCAN_WORK * max_pixels:
        raise ImageRejectedError("too_much_work", f"{layout.scans} scans over {pixels} pixels")


class UnusualSamplingError(ValueError):
    """A chroma layout that TurboJPEG does not know, though libjpeg does."""


def decode_strictly(data: bytes, layout: JpegLayout, mode: str, shape: tuple[int, int], scale: int) -> tuple[NDArray[np.uint8], bool]:
    """Decode every byte.

    Args:
        mode: Pillow's name: L, RGB, or CMYK (inverted as stored, by Adobe's custom).
        shape: height and width that the header names.
        scale: 1, 2, 4 or 8, as `jpeg_scale`.

    Returns:
        (ceil(height / scale), ceil(width / scale), 1, 3 or 4) uint8, and whether harmless oddities were passed over.

    Raises:
        UnusualSamplingError: only Pillow can decode it.
        ImageRejectedError: `corrupt`.
    """
    try:
        return _decode(data, mode, shape, scale), False
    except ValueError as error:
        tidied = _tidied(data, layout, str(error))
        if tidied is None:
            raise _reason(error) from None
    try:
        return _decode(tidied, mode, shape, scale), True
    except ValueError as error:
        raise _reason(error) from None


def _decode(data: bytes, mode: str, shape: tuple[int, int], scale: int) -> NDArray[np.uint8]:
    height, width = (-(-side // scale) for side in shape)
    bounds = {"min_height": height, "min_width": width, "min_factor": scale} if scale > 1 else {}
    pixels = simplejpeg.decode_jpeg(data, _COLOURS[mode], strict=True, **bounds)
    if pixels.shape[:2] != (height, width):
        raise ValueError(f"{pixels.shape[1]}x{pixels.shape[0]} pixels were decoded, {width}x{height} were announced")
    return np.asarray(pixels, dtype=np.uint8)


def _reason(error: ValueError) -> ValueError | MemoryError:
    text = str(error)
    if "subsampling" in text:
        return UnusualSamplingError(text)
    if "emory alloc" in text:
        return MemoryError(text)
    return ImageRejectedError("corrupt", f"it starts like a JPEG, but cannot be decoded to its end ({text})")


def _tidied(data: bytes, layout: JpegLayout, warning: str) -> bytes | None:
    """A copy without what libjpeg warns of though no pixel is in doubt, or None where there is nothing of the kind.

    Bytes between segments, zeros behind a scan's data, an unknown JFIF revision or Adobe colour code, and a sequential scan that names
    a spectral range. Other bytes left over behind a scan's data mean that a flipped bit made the decoder lose its place.
    """
    if layout.end is None:
        return None
    padding = re.search(r"(\d+) extraneous bytes before marker", warning)
    parts, sequential, position, scanned = [data[:2]], False, 2, False
    for segment in layout.segments:
        if scanned:
            parts.append(_without_padding(data[position : segment.start], int(padding[1]) if padding else 0))
        body = bytearray(data[segment.start : segment.end])
        sequential = sequential or segment.marker in _SEQUENTIAL
        if segment.marker == _APP0 and body[4:9] == b"JFIF\0" and len(body) > 9:
            body[9] = 1
        elif segment.marker == _APP14 and body[4:9] == b"Adobe" and len(body) > 15 and body[15] > 2:
            body[15] = 1
        elif segment.marker == _SOS and sequential:
            body[-3:] = b"\x00\x3f\x00"
        parts.append(bytes(body))
        position, scanned = segment.end, segment.marker == _SOS
    tidied = b"".join(parts)
    return None if tidied == data[: layout.end] else tidied


def _without_padding(entropy: bytes, count: int) -> bytes:
    return entropy[:-count] if count and entropy[-count:] == bytes(count) else entropy
