"""The whole way from an upload's bytes to what the model sees, as a package's manifest asks for it."""

import numpy as np
from numpy.typing import NDArray

from pipeline_project.contracts import Resample
from pipeline_project.imaging.decode import DecodedImage, decode_image
from pipeline_project.imaging.formats import DecodeLimits
from pipeline_project.imaging.transform import to_pixels

_UNSCALED = 1 << 20  # pixels: no decoder shrinks a picture for a result so large


def prepare(data: bytes, limits: DecodeLimits, size: int, resample: Resample) -> tuple[NDArray[np.uint8], DecodedImage]:
    """Decode and resize.

    Packages with "bilinear" were made before decoders scaled down, so their pictures are decoded at full size, as they were then.

    Returns:
        (size, size, 3) uint8 RGB, and the decoded image that they were made of.

    Raises:
        ImageRejectedError: as `decode_image`.
    """
    decoded = decode_image(data, limits, size if resample == "supersampled" else _UNSCALED)
    return to_pixels(decoded.pixels, size, resample), decoded
