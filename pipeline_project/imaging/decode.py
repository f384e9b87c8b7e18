"""From hostile bytes to an RGB image, or a reason why not. The format is read from the bytes, never from the name."""

import io
import warnings
from dataclasses import dataclass

from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline_project.settings.tree import IngestSettings

_SIGNATURES: tuple[tuple[str, bytes, int], ...] = (
    ("JPEG", b"\xff\xd8\xff", 0),
    ("PNG", b"\x89PNG\r\n\x1a\n", 0),
    ("WEBP", b"WEBP", 8),
    ("GIF", b"GIF8", 0),
    ("BMP", b"BM", 0),
    ("TIFF", b"II*\x00", 0),
    ("TIFF", b"MM\x00*", 0),
)
SNIFF_BYTES = 16

_Turn = Image.Transpose
_UPRIGHT = {  # how to undo each EXIF orientation
    2: _Turn.FLIP_LEFT_RIGHT, 3: _Turn.ROTATE_180, 4: _Turn.FLIP_TOP_BOTTOM, 5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270, 7: _Turn.TRANSVERSE, 8: _Turn.ROTATE_90,
}  # fmt: skip


class ImageRejectedError(ValueError):
    """An image cannot be used. `code` is stable (for counting and filtering), the message is for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


DECODE_SETTINGS = ("ingest.formats", "ingest.max_bytes", "ingest.max_pixels", "ingest.min_side")
"""The settings that `DecodeLimits` are made of."""


@dataclass(frozen=True)
class DecodeLimits:
    """What an image may be: formats by name, bytes, pixels (checked before decoding) and the shortest side in pixels."""

    formats: frozenset[str]
    max_bytes: int
    max_pixels: int
    min_side: int

    @classmethod
    def from_settings(cls, ingest: IngestSettings) -> "DecodeLimits":
        """The limits of the settings tree."""
        return cls(frozenset(ingest.formats), ingest.max_bytes, ingest.max_pixels, ingest.min_side)


@dataclass(frozen=True)
class DecodedImage:
    """An RGB image in upright orientation, and what its file said: format, colour mode, width and height as stored."""

    image: Image.Image
    format: str
    mode: str
    width: int
    height: int


def sniff_format(head: bytes) -> str | None:
    """The image format that the first `SNIFF_BYTES` bytes announce, or None."""
    for name, signature, offset in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return name
    return None


def decode_image(data: bytes, limits: DecodeLimits) -> DecodedImage:
    """Decode every pixel, turn upright by the EXIF orientation, convert to RGB (transparency over white).

    Raises:
        ImageRejectedError: codes empty, too_many_bytes, not_an_image, format, too_many_pixels, too_small, corrupt.
    """
    if not data:
        raise ImageRejectedError("empty", "the file has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageRejectedError("too_many_bytes", f"{len(data)} bytes; at most {limits.max_bytes} are allowed")
    named = sniff_format(data[:SNIFF_BYTES])
    if named is None:
        raise ImageRejectedError("not_an_image", "the first bytes are of no known image format")
    if named not in limits.formats:
        raise ImageRejectedError("format", f"{named} is not accepted; accepted: {', '.join(sorted(limits.formats))}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images and odd metadata; our own limits decide
            with Image.open(io.BytesIO(data), formats=[named]) as image:
                width, height, mode = image.width, image.height, image.mode
                if width * height > limits.max_pixels:
                    raise ImageRejectedError("too_many_pixels", f"{width}x{height}; at most {limits.max_pixels} pixels are allowed")
                if min(width, height) < limits.min_side:
                    raise ImageRejectedError("too_small", f"{width}x{height}; the shorter side must be at least {limits.min_side}")
                image.load()
                return DecodedImage(_to_rgb(_upright(image)), named, mode, width, height)
    except (ImageRejectedError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageRejectedError("too_many_pixels", str(error)) from None
    except UnidentifiedImageError:  # its text names an address in memory, different each time
        raise ImageRejectedError("corrupt", f"it starts like a {named}, but what follows is none") from None
    except Exception as error:  # what Pillow raises on damaged files is no family: struct.error, AttributeError, SyntaxError ...
        raise ImageRejectedError("corrupt", f"it starts like a {named}, but cannot be decoded to its end ({error})") from None


def _upright(image: Image.Image) -> Image.Image:
    """A copy, turned as the EXIF orientation says. `ImageOps.exif_transpose` would write the metadata anew, and fail where it is odd."""
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image.copy() if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        background = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, layered).convert("RGB")
    if image.mode.startswith("I;16") or image.mode == "I":
        return image.point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    return image.convert("RGB")
