"""From the bytes of one object to pixels and facts. This runs in the worker processes; what it reaches decides whether shards fit."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline_project.imaging import DecodeLimits, decode_image, perceptual_hash, to_pixels
from pipeline_project.settings import Settings

if TYPE_CHECKING:
    from pipeline_project.ingest.privacy import FaceFinder


@dataclass(frozen=True)
class Examined:
    """What is known of an image that can be used.

    `width` and `height` are those of the upright original; `notes` stable codes of what was converted, sorted; `faces` how many were
    found, None where nobody looked; `pixels` (S, S, 3) uint8, RGB, with the faces masked where the settings say so.
    """

    format: str
    mode: str
    width: int
    height: int
    notes: tuple[str, ...]
    perceptual_hash: str
    faces: int | None
    pixels: NDArray[np.uint8]


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
        """Decode in full, mask, resize, hash.

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
        pixels = to_pixels(rgb, self._size)
        return Examined(found.format, found.mode, found.width, found.height, found.notes, perceptual_hash(pixels), faces, pixels)
