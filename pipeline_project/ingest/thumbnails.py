"""Small pictures of rejected images, for people: whatever can be made out of them, faces masked, decoded in worker processes."""

import io
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline_project.imaging import ImageRejectedError
from pipeline_project.ingest.decoding.examine import Examined
from pipeline_project.ingest.decoding.pool import TRANSIENT, DecodingPool
from pipeline_project.ingest.decoding.worker import Orders
from pipeline_project.ingest.manifest_join import UNCOUNTED
from pipeline_project.plots import contact_sheet
from pipeline_project.settings import Settings
from pipeline_project.stage import Picture, StageContext

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline_project.ingest.privacy import FaceFinder

_SIDE = 64
_LARGE = 256  # faces are looked for at this size
_A_CODE, _CODES = 8, 8
_UNSEEN = TRANSIENT | {"erased", "too_many_bytes", "empty", "not_an_image"}
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_GREY = np.full((_SIDE, _SIDE, 3), 160, np.uint8)


class LenientExaminer:
    """Decodes what can be decoded of a damaged or unwanted image: a cut JPEG down to the cut, the first picture of an animation."""

    def __init__(self, settings: Settings) -> None:
        self._max_pixels = settings.ingest.max_pixels
        self._faces: FaceFinder | None = None
        if settings.privacy.faces == "mask":
            from pipeline_project.ingest.privacy import open_face_finder

            self._faces = open_face_finder(settings.privacy, endpoint_url=settings.store.endpoint_url)

    def __call__(self, data: bytes) -> Examined:
        """A square thumbnail as `pixels`. Raises `ImageRejectedError` where nothing can be made out."""
        from PIL import Image, ImageFile

        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                    width, height = image.size
                    if width * height > self._max_pixels:
                        raise ImageRejectedError("too_many_pixels", f"{width}x{height}")
                    image.draft("RGB", (_LARGE, _LARGE))
                    small = image.convert("RGB")
                    small.thumbnail((_LARGE, _LARGE))
                    rgb = np.asarray(small, np.uint8)
        except (ImageRejectedError, MemoryError):
            raise
        except Exception as error:  # as in imaging.decode
            raise ImageRejectedError("corrupt", str(error)) from None
        if self._faces is not None:
            from pipeline_project.ingest.privacy import mask_faces

            rgb = mask_faces(rgb, self._faces.find(rgb))
        return Examined("", "RGB", width, height, (), None, rgb, _SIDE)


def rejected_images(context: StageContext, rejects: "pa.Table") -> Picture | None:
    """A contact sheet of rejected images by code, a grey tile for each that shows nothing; None where none was rejected.

    Never fails for what an image holds, nor for a source that does not answer any more.
    """
    by_code: dict[str, list[str]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for key, code in zip(rejects["key"].to_pylist(), rejects["code"].to_pylist(), strict=True):
        counts[code] += 1
        if len(by_code[code]) < _A_CODE:
            by_code[code].append(key)
    shown = {code: by_code[code] for code in sorted(counts, key=lambda code: (-counts[code], code))[:_CODES] if code not in UNCOUNTED}
    if not shown:
        return None
    visible = [key for code, keys in shown.items() if code not in _UNSEEN for key in keys]
    tiles = _tiles(context, visible) if visible else {}
    return contact_sheet({f"{counts[code]} {code}": [tiles.get(key, _GREY) for key in keys] for code, keys in shown.items()}, side=_SIDE)


def _tiles(context: StageContext, keys: list[str]) -> dict[str, NDArray[np.uint8]]:
    found: dict[str, NDArray[np.uint8]] = {}
    with DecodingPool(Orders(context.settings, LenientExaminer), min(2, context.settings.ingest.workers)) as pool:
        for key, future in [(key, pool.submit([key])) for key in keys]:
            try:
                rows, pixels = future.result()
            except (OSError, ValueError, RuntimeError) as error:  # gone or changed meanwhile: the manifest does not depend on it
                context.log(f"no thumbnail of {key}: {error}")
                continue
            if rows[0].code is None:
                found[key] = np.frombuffer(pixels[0], np.uint8).reshape(_SIDE, _SIDE, 3)
    return found
