"""Image files made for tests: every format, and hand-made chunks and segments."""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline_project.imaging import DecodedImage, DecodeLimits, ImageRejectedError, decode_image

ANY = frozenset({"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"})
LIMITS = DecodeLimits(formats=ANY, max_bytes=2_000_000, max_pixels=1_000_000, min_side=8)
ORIENTATION = 0x0112
CODES = frozenset(
    {
        "empty", "too_many_bytes", "not_an_image", "format", "too_many_pixels", "too_small", "too_much_work", "animated", "mode", "corrupt",
    }
)  # fmt: skip


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def photo(width: int = 24, height: int = 16) -> Image.Image:
    """No symmetry: every orientation looks different."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, (x + y) % 2 * 40], axis=2).astype(np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    """Colours that change slowly, as in a photo."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17) + np.cos(y / 23), np.sin(y / 31) * np.cos(x / 11), np.sin((x + y) / 29)]
    return Image.fromarray(np.stack([127 + 60 * wave for wave in waves], axis=2).astype(np.uint8))


def decoded(data: bytes, limits: DecodeLimits = LIMITS, size: int = 1000) -> DecodedImage:
    """Unless a test says otherwise, wanted so large that no decoder scales."""
    return decode_image(data, limits, size)


def pixels(data: bytes, limits: DecodeLimits = LIMITS) -> NDArray[np.uint8]:
    return decoded(data, limits).pixels


def code_of(data: bytes, limits: DecodeLimits = LIMITS) -> str:
    """The code with which an image is refused; the same twice, message included."""
    reasons = []
    for _ in range(2):
        try:
            decode_image(data, limits, 64)
        except ImageRejectedError as error:
            assert str(error) == f"{error.code}: {error.detail}"
            reasons.append(error)
    assert len(reasons) == 2, "accepted"
    assert reasons[0].detail == reasons[1].detail
    assert reasons[0].code in CODES
    return reasons[0].code


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes, *chunks: bytes, bits: int = 8, colour: int = 0) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND", b"")


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def after_soi(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments at its front."""
    return data[:2] + b"".join(segments) + data[2:]


def tiff(pixel_bytes: bytes, width: int, height: int, tags: dict[int, tuple[int, int]]) -> bytes:
    """A little-endian TIFF of one uncompressed strip; `tags` are {tag: (type, value)} beside the sizes."""
    entries = {256: (4, width), 257: (4, height), 259: (3, 1), 273: (4, 8), 278: (4, height), 279: (4, len(pixel_bytes)), **tags}
    packed = [struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(entries.items())]
    return b"II*\0" + struct.pack("<I", 8 + len(pixel_bytes)) + pixel_bytes + struct.pack("<H", len(packed)) + b"".join(packed) + bytes(4)


def xyz(*values: float) -> bytes:
    """An ICC tag of one colour."""
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def curve(gamma: float) -> bytes:
    """An ICC tag of one tone curve."""
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def icc(space: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    """An ICC version 2 display profile of a colour space (`RGB ` or `GRAY`), as small as it can be."""
    white = xyz(0.9642, 1.0, 0.8249)
    tags = [(b"wtpt", white), (b"cprt", b"text\0\0\0\0none\0\0\0\0"), *tags]
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags:
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02100000, b"mntr", space, b"XYZ ")
    return header + bytes(12) + b"acsp" + bytes(28) + white[8:] + bytes(48) + struct.pack(">I", len(tags)) + table + body


def matrix_profile(gamma: float, primaries: list[tuple[float, float, float]]) -> bytes:
    """An RGB display profile: one gamma for all channels, and three primaries (XYZ under D50)."""
    columns = [(name, xyz(*primary)) for name, primary in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)]
    return icc(b"RGB ", [*columns, *((name, curve(gamma)) for name in (b"rTRC", b"gTRC", b"bTRC"))])
