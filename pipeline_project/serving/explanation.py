"""Why this class: exact Grad-CAM from the served graph's own outputs.

The head is two layers over average-pooled features, so the gradient of a logit with respect to the feature map is known in closed
form: no automatic differentiation, no torch, and what is explained is the served (quantised) model, not its parent.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline_project.packaging.package import Head

FloatArray = NDArray[np.float32]
_COLOURS = np.array(  # from cold to hot; perceptually ordered, so it also reads in grey
    [[13, 8, 68], [86, 15, 109], [187, 55, 84], [249, 142, 9], [252, 255, 164]], np.float32
)


def logit_gradient(features: FloatArray, head: Head, class_index: int) -> FloatArray:
    """The gradient of one logit with respect to the pooled features.

    Args:
        features: (D) pooled features of one image.
        class_index: which logit.

    Returns:
        (D) float32.
    """
    active = head.w1 @ features + head.b1 > 0
    gradient: FloatArray = (head.w2[class_index] * active) @ head.w1
    return gradient


def explain(feature_map: FloatArray, head: Head, class_index: int, size: int) -> FloatArray:
    """Grad-CAM of one image: where in the image the evidence for a class lies.

    Args:
        feature_map: (D, h, w), the engine's for one image.
        class_index: the class to explain.
        size: side of the square result, pixels.

    Returns:
        (size, size) float32 in 0-1; all 0 when nothing in the image speaks for the class.
    """
    weights = logit_gradient(feature_map.mean(axis=(1, 2)), head, class_index)
    evidence = np.maximum(np.tensordot(weights, feature_map, axes=1), 0)
    strongest = float(evidence.max())
    if strongest <= 0:
        return np.zeros((size, size), np.float32)
    coarse = Image.fromarray((evidence / strongest).astype(np.float32))
    return np.clip(np.asarray(coarse.resize((size, size), Image.Resampling.BILINEAR), np.float32), 0, 1)


def overlay_png(pixels: NDArray[np.uint8], heat: FloatArray, side: int = 320) -> bytes:
    """The image with the heat map over it.

    Args:
        pixels: (S, S, 3) uint8.
        heat: (S, S) in 0-1.
        side: side of the square picture, pixels.

    Returns:
        PNG bytes.
    """
    place = np.clip(heat, 0, 1) * (len(_COLOURS) - 1)
    below = np.minimum(place.astype(np.intp), len(_COLOURS) - 2)
    share = (place - below)[..., None]
    colours = _COLOURS[below] * (1 - share) + _COLOURS[below + 1] * share
    opacity = (0.25 + 0.5 * heat)[..., None]  # cold regions stay recognisable
    mixed = np.clip(pixels * (1 - opacity) + colours * opacity, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(mixed).resize((side, side), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()
