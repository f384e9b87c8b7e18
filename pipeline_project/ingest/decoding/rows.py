"""What is known of one object of a day."""

from dataclasses import dataclass

ERASED = "erased"
ERASED_DETAIL = "this image was erased and must not come back; remove it from the source"


@dataclass(frozen=True)
class Row:
    """The facts of one object, and what they were found from.

    `source_id` is the SHA-256 of the bytes in the source, `repair` the store key of what was taken instead of them; `read` counts those.
    """

    key: str
    image_id: str | None
    size: int
    format: str | None = None
    mode: str | None = None
    width: int | None = None
    height: int | None = None
    notes: str = "[]"
    perceptual_hash: str | None = None
    faces: int | None = None
    measured: tuple[float, ...] | None = None
    """a value for each of `imaging.FEATURE_NAMES`"""
    code: str | None = None
    detail: str | None = None
    source_id: str | None = None
    repair: str | None = None
    read: int = 0
