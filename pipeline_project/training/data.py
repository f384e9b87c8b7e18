"""The plan of a fit from settings and tuned values, and the arrays it trains on."""

from pipeline_project.contracts import Hyperparameters, Split
from pipeline_project.dataset.reading import load_split
from pipeline_project.settings import Settings
from pipeline_project.storage import Artifact, ArtifactStore
from pipeline_project.training.loop import ArrayDataset, FitPlan


def fit_plan(settings: Settings, chosen: Hyperparameters, *, epochs: int, seed_offset: int = 0) -> FitPlan:
    """What a fit needs, with tuned values in place of the settings'."""
    return FitPlan(
        model=settings.model,
        training=settings.training,
        augmentation=settings.augmentation,
        image=settings.image,
        num_classes=len(settings.data.classes),
        learning_rate=chosen.learning_rate,
        batch_size=chosen.batch_size,
        dropout=chosen.dropout,
        epochs=epochs,
        seed=settings.training.seed + seed_offset,
    )


def load_arrays(artifacts: ArtifactStore, split: Split, dataset: Artifact) -> ArrayDataset:
    """One split as the loop takes it."""
    arrays = load_split(artifacts, split, dataset)
    return ArrayDataset(arrays.images, arrays.class_index)
