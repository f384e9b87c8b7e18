"""What decides a fit, for the reuse of results. No torch here: a second run with nothing changed must not wait for it."""

from pathlib import Path

from pipeline_project.digests import sha256_file
from pipeline_project.stage import StageContext

FIT_SETTINGS = (
    "augmentation",
    "data.classes",
    "image.mean",
    "image.std",
    "model.architecture",
    "model.head_hidden",
    "model.pretrained",
    "model.weights_uri",
    *(f"training.{name}" for name in ("device", "early_stopping_patience", "fine_tune_factor", "frozen_epochs")),
    *(f"training.{name}" for name in ("plateau_factor", "plateau_patience", "seed", "threads")),
)
"""The settings that `fit_plan` makes a difference with; the tuned values and the epochs come beside them."""


def fit_inputs(context: StageContext, *names: str) -> dict[str, str]:
    """{name: digest} of upstream artefacts, and of a local file of loaded weights."""
    found = {name: context.artifacts.latest(name).digest for name in names}
    weights = context.settings.model.weights_uri
    if context.settings.model.pretrained and weights and "://" not in weights and Path(weights).is_file():
        found["weights_uri"] = sha256_file(Path(weights))
    return found
