"""Baselines (R96): what a model must beat to be worth its cost. Trained on the training split, compared on validation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline_project.dataset.reading import SplitArrays

_SIDE = 16


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline: its name, its predictions on validation ((N,) class indices), and its feature importances if it has any."""

    name: str
    predicted: NDArray[np.int64]
    importances: dict[str, float]


def fit_baselines(train: SplitArrays, validation: SplitArrays) -> list[Baseline]:
    """The most frequent class, logistic regression on 16 x 16 pixels, and a random forest on the image measurements."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    majority = np.full(len(validation.class_index), np.bincount(train.class_index).argmax())
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    linear.fit(_small(train.images), train.class_index)
    forest = RandomForestClassifier(n_estimators=100, random_state=42, n_jobs=1)
    forest.fit(train.measurements.to_numpy(), train.class_index)
    names = list(train.measurements.columns)
    return [
        Baseline("majority", majority, {}),
        Baseline("logistic_regression", linear.predict(_small(validation.images)), {}),
        Baseline(
            "random_forest",
            forest.predict(validation.measurements.to_numpy()),
            {name: round(float(value), 6) for name, value in zip(names, forest.feature_importances_, strict=True)},
        ),
    ]


def _small(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 16 * 16 * 3) pixels in 0-1, by area averages where the side divides, else by nearest rows and columns."""
    side = images.shape[1]
    if side % _SIDE == 0:
        step = side // _SIDE
        small = images.reshape(len(images), _SIDE, step, _SIDE, step, 3).mean(axis=(2, 4), dtype=np.float32)
    else:
        index = (np.arange(_SIDE) + 0.5) * side // _SIDE
        small = images[:, index.astype(int)][:, :, index.astype(int)].astype(np.float32)
    flat: NDArray[np.float32] = small.reshape(len(images), -1) / np.float32(255)
    return flat
