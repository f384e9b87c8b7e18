"""From the bytes of one object to pixels and facts. This runs in the worker processes; what it reaches decides whether shards fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline_project.imaging import FEATURE_NAMES, DecodeLimits, decode_image, measure, perceptual_hash, to_pixels
from pipeline_project.settings import Settings

if TYPE_CHECKING:
    from pipeline_project.ingest.privacy import FaceFinder


@dataclass(frozen=True)
class Examined:
    """What is known of an image that can be used.

    `width` and `height` are those of the upright original; `notes` stable codes of what was converted, sorted; `faces` how many were
    found, None where nobody looked; `rgb` (H, W, 3) uint8, upright, with the faces masked where the settings say so; `size` the side S
    of the pixels to be made of it.
    """

    format: str
    mode: str
    width: int
    height: int
    notes: tuple[str, ...]
    faces: int | None
    rgb: NDArray[np.uint8]
    size: int


@dataclass(frozen=True)
class Description:
    """An image's (S, S, 3) uint8 pixels, and what is computed from them: `measured` has a value for each of `imaging.FEATURE_NAMES`."""

    pixels: NDArray[np.uint8]
    perceptual_hash: str
    measured: tuple[float, ...]


class Examiner:
    """Looks at images as the settings say. One a process: a face detector keeps state."""

    def __init__(self, settings: Settings) -> None:
        self._limits = DecodeLimits.from_settings(settings.ingest)
        self._size = settings.image.size
        self._faces: FaceFinder | None = None
        self._mask = settings.privacy.faces == "mask"
        if settings.privacy.faces != "off":
            from pipeline_project.ingest.privacy import open_face_finder

            self._faces = open_face_finder(settings.privacy, endpoint_url=settings.store.endpoint_url)

    def __call__(self, data: bytes) -> Examined:
        """Decode in full, mask.

        Raises:
            ImageRejectedError: the bytes are no image that can be used.
            MemoryError: it does not fit.
        """
        found = decode_image(data, self._limits, self._size)
        rgb, faces = found.pixels, None
        if self._faces is not None:
            boxes = self._faces.find(rgb)
            faces = len(boxes)
            if boxes and self._mask:
                from pipeline_project.ingest.privacy import mask_faces

                rgb = mask_faces(rgb, boxes)
        return Examined(found.format, found.mode, found.width, found.height, found.notes, faces, rgb, self._size)


def describe(images: Sequence[Examined]) -> list[Description]:
    """Resize, hash and measure images: one kind of work after the other, which keeps its code and tables in the processor's caches."""
    pixels = [to_pixels(image.rgb, image.size) for image in images]
    hashes = [perceptual_hash(image) for image in pixels]
    values = [measure(small, image.width / image.height) for small, image in zip(pixels, images, strict=True)]
    measured = [tuple(value[name] for name in FEATURE_NAMES) for value in values]
    return [Description(*about) for about in zip(pixels, hashes, measured, strict=True)]
