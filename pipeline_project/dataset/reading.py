"""Reading a dataset version: the arrays and columns of one split, gathered from the days' packs."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline_project.contracts import DatasetVersion, Split
from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.ingest.packs import open_pack
from pipeline_project.storage import Artifact, ArtifactStore
from pipeline_project.tables import expand_json, parquet_to_frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SplitArrays:
    """One split, row by row in the order of the dataset version.

    `images` is (N, S, S, 3) uint8; `class_index` (N,) int64; `attributes` the other label columns as text; `measurements` one column
    for each of `FEATURE_NAMES`; `keys` the objects in the source; `groups` the group of near duplicates of each image. `erased` names the
    images of the split that were erased since the version was made: they are in no other field.
    """

    images: NDArray[np.uint8]
    class_index: NDArray[np.int64]
    image_ids: list[str]
    keys: list[str]
    groups: list[str]
    attributes: "pd.DataFrame"
    measurements: "pd.DataFrame"
    erased: list[str] = field(default_factory=list)


def load_version(artifact: Artifact) -> DatasetVersion:
    """The record of a dataset_splits artefact."""
    return DatasetVersion.model_validate(artifact.json("dataset.json"))


def load_split(artifacts: ArtifactStore, split: Split, dataset: Artifact | None = None) -> SplitArrays:
    """Gather one split of a dataset version (default: the newest), without the images that were erased since.

    Raises:
        ArtifactMissingError: there is no dataset version, or a day's pack was removed.
    """
    import pandas as pd

    dataset = dataset or artifacts.latest("dataset_splits")
    version = load_version(dataset)
    rows = parquet_to_frame(dataset.read("splits.parquet"))
    rows = rows[rows["split"] == split]
    images, parts, gone = [], [], []
    for day, wanted in rows.groupby("day", sort=True):
        pack = open_pack(artifacts, artifacts.version("image_pack", version.packs[str(day)], str(day)))
        lost = [pack.image_ids[row] in pack.erased for row in wanted["pack_row"]]
        gone += [pack.image_ids[row] for row in wanted["pack_row"][lost]]
        chosen = wanted[~np.asarray(lost, bool)]
        index = chosen["pack_row"].to_numpy()
        images.append(pack.gather(index))
        manifest = artifacts.version("validated_manifest", version.days[str(day)], str(day))
        features = artifacts.version("image_features", version.features[str(day)], str(day))
        facts = parquet_to_frame(manifest.read("manifest.parquet")).iloc[index].reset_index(drop=True)
        measured = parquet_to_frame(features.read("features.parquet")).iloc[index].reset_index(drop=True)
        group = chosen[["class_index", "group"]].reset_index(drop=True)
        parts.append(pd.concat([facts, measured[list(FEATURE_NAMES)], group], axis=1))
    table = pd.concat(parts, ignore_index=True)
    return SplitArrays(
        images=np.concatenate(images),
        class_index=table["class_index"].to_numpy(np.int64),
        image_ids=table["image_id"].tolist(),
        keys=table["key"].tolist(),
        groups=table["group"].tolist(),
        attributes=expand_json(table["attributes"]),
        measurements=table[list(FEATURE_NAMES)],
        erased=gone,
    )
