"""Explanations, and whether they can be believed (R111).

Grad-CAM claims that the hot part of an image made the answer. The deletion test (after Petsiuk et al. 2018) takes the claim at its
word: paint over the hottest fifth, and the answer's probability must fall further than when the same shape is painted over elsewhere.
The control is the same mask moved, not scattered pixels: speckles disturb a network however unimportant the place.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.evaluation.robustness import Pixels, Predict
from pipeline_project.statistics.paired import sign_flip_p_value

DELETED_SHARE = 0.2
SIGNIFICANCE = 0.05
_CONTROLS = 8
_SEED = 20_264

Explain = Callable[[Pixels], NDArray[np.floating]]
"""From one image (S, S, 3) uint8 to the heat (S, S) behind its predicted class, 0-1."""


def choose_images(true: NDArray[np.int64], count: int) -> list[int]:
    """Rows of `count` images that take turns through the classes, in their order; all rows when there are fewer."""
    queues = [np.flatnonzero(true == c) for c in np.unique(true)]
    turns = [(turn, c, int(row)) for c, queue in enumerate(queues) for turn, row in enumerate(queue)]
    return [row for _, _, row in sorted(turns)[:count]]


def validate_explanations(
    predict: Predict, explain: Explain, images: Pixels, image_ids: Sequence[str]
) -> tuple[dict[str, Any], list[NDArray[np.float64]]]:
    """Explain images and run the deletion test on them.

    Args:
        predict: the package.
        explain: the explanation that the server gives.
        images: (N, S, S, 3) uint8, at least one.
        image_ids: N names.

    Returns:
        ({images, mean_drop, mean_control_drop, p_value, valid, each}, N heat maps (S, S)). Drops are falls of the predicted class's
        probability, 0-1; the p-value is one-sided and paired over images; `valid` means larger on average and p below 0.05.
    """
    each: list[dict[str, Any]] = []
    heats: list[NDArray[np.float64]] = []
    for index, (image, image_id) in enumerate(zip(images, image_ids, strict=True)):
        heat = np.asarray(explain(image), np.float64)
        drop, control = _deletion(predict, image, heat, np.random.default_rng((_SEED, index)))
        each.append({"image_id": image_id, "drop": drop, "control_drop": control, "flat": bool(np.ptp(heat) == 0)})
        heats.append(heat)
    differences = np.array([row["drop"] - row["control_drop"] for row in each])
    p_value = sign_flip_p_value(differences, seed=_SEED)
    report = {
        "images": len(each),
        "deleted_share": DELETED_SHARE,
        "mean_drop": float(np.mean([row["drop"] for row in each])),
        "mean_control_drop": float(np.mean([row["control_drop"] for row in each])),
        "p_value": p_value,
        "valid": bool(differences.mean() > 0 and p_value < SIGNIFICANCE),
        "each": each,
    }
    return report, heats


def _deletion(predict: Predict, image: Pixels, heat: NDArray[np.float64], random: np.random.Generator) -> tuple[float, float]:
    """How far the answer's probability falls without the hot pixels, and on average without the same shape elsewhere."""
    side = image.shape[0]
    # A stable sort: ties (flat parts of the heat) are broken by position, the same way every time.
    hottest = np.argsort(-heat.ravel(), kind="stable")[: max(1, round(DELETED_SHARE * heat.size))]
    flat = np.zeros(heat.size, bool)
    flat[hottest] = True
    mask = flat.reshape(heat.shape)
    moved = [np.roll(mask, tuple(shift), axis=(0, 1)) for shift in random.integers(max(1, side // 6), side - side // 6, (_CONTROLS, 2))]
    filler = np.rint(image.mean(axis=(0, 1))).astype(np.uint8)
    variants = [image, *(np.where(m[..., None], filler, image) for m in (mask, *moved))]
    probabilities = predict(np.stack(variants).astype(np.uint8))
    answer = int(probabilities[0].argmax())
    falls = probabilities[0, answer] - probabilities[1:, answer]
    return float(falls[0]), float(falls[1:].mean())
