"""What an image may be: formats by their first bytes, limits, and the one error of everything refused."""

from dataclasses import dataclass

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

DECODE_SETTINGS = ("ingest.formats", "ingest.max_bytes", "ingest.max_pixels", "ingest.min_side")
"""The settings that `DecodeLimits` are made of."""


class ImageRejectedError(ValueError):
    """An image cannot be used. `code` is stable (for counting and filtering), the message is for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


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


def sniff_format(head: bytes) -> str | None:
    """The image format that the first `SNIFF_BYTES` bytes announce, or None."""
    for name, signature, offset in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return name
    return None
