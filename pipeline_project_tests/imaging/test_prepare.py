"""What the server makes of an upload: as the package's manifest says, so that old packages keep their pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline_project.imaging import ImageRejectedError, decode_image, prepare, to_pixels
from pipeline_project_tests.imaging.files import LIMITS, encoded, smooth

LARGE = encoded(smooth(700, 500), "JPEG", quality=95)


def test_new_packages_get_the_pixels_of_ingest() -> None:
    pixels, decoded = prepare(LARGE, LIMITS, 48, "supersampled")
    assert (decoded.width, decoded.height, decoded.pixels.shape) == (700, 500, (125, 175, 3))
    assert np.array_equal(pixels, to_pixels(decode_image(LARGE, LIMITS, 48).pixels, 48))


def test_old_packages_get_the_pixels_that_they_were_made_with() -> None:
    pixels, decoded = prepare(LARGE, LIMITS, 48, "bilinear")
    assert (decoded.width, decoded.height) == (700, 500)
    as_then = Image.open(io.BytesIO(LARGE)).resize((48, 48), Image.Resampling.BILINEAR, reducing_gap=None)
    assert np.array_equal(pixels, np.asarray(as_then))


def test_both_refuse_alike() -> None:
    for resample in ("supersampled", "bilinear"):
        with pytest.raises(ImageRejectedError, match="corrupt"):
            prepare(LARGE[:-5000], LIMITS, 48, resample)
