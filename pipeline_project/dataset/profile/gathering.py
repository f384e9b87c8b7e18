"""All measured days as one table, with their pixels at hand."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.ingest.packs import PackReader, open_pack
from pipeline_project.stage import StageContext
from pipeline_project.tables import expand_json, parquet_to_frame

if TYPE_CHECKING:
    import pandas as pd

NAMES = (*FEATURE_NAMES, "log_bytes", "log_pixels")


@dataclass(frozen=True)
class Measured:
    """The images of all measured days.

    `table` has the manifest's columns, `day` and `pack_row`, one row an image; `values` (N, `len(NAMES)`) the measurements and, as log2,
    bytes and pixels of the original; `attributes` a text column each. `rejected` is {day: {code: images}}, `personal` {day: the report
    personal_data.json}, `left_out` {day: why it is not in the table}.
    """

    table: "pd.DataFrame"
    values: NDArray[np.float64]
    attributes: "pd.DataFrame"
    packs: Mapping[str, PackReader]
    rejected: Mapping[str, Mapping[str, int]]
    personal: Mapping[str, Mapping[str, Any]]
    left_out: Mapping[str, str]

    def pixels(self, rows: Iterable[int]) -> list[NDArray[np.uint8]]:
        """(S, S, 3) uint8 of each of these rows of the table."""
        places = self.table[["day", "pack_row"]].iloc[list(rows)]
        return [self.packs[day].gather(np.array([row]))[0] for day, row in places.itertuples(index=False)]


def gather(context: StageContext) -> Measured:
    """Read every day whose manifest, pack and features belong together; images that were erased since are left out.

    Raises:
        ValueError: no day has a measured image.
    """
    import pandas as pd

    tables, values, packs, left_out = [], [], {}, {}
    rejected: dict[str, Mapping[str, int]] = {}
    personal: dict[str, Mapping[str, Any]] = {}
    for day in context.artifacts.partitions("image_features"):
        manifest, features = context.artifacts.latest("validated_manifest", day), context.artifacts.latest("image_features", day)
        codes = parquet_to_frame(manifest.read("rejects.parquet"))["code"].value_counts().sort_index()
        rejected[day] = {str(code): int(count) for code, count in codes.items()}
        personal[day] = manifest.json("personal_data.json")
        pack = open_pack(context.artifacts, context.artifacts.latest("image_pack", day))
        origin = features.json("origin.json")
        if (origin["pack"], origin["manifest"]) != (pack.artifact.digest, manifest.digest):
            left_out[day] = "image_pack or image_features is of an older manifest"
            continue
        frame = parquet_to_frame(manifest.read("manifest.parquet"))
        if frame.empty:
            left_out[day] = "no image was accepted"
            continue
        measured = parquet_to_frame(features.read("features.parquet"))[list(FEATURE_NAMES)].to_numpy(np.float64)
        sizes = np.log2(np.stack([frame["size"], frame["width"] * frame["height"]], axis=1).astype(np.float64))
        kept = ~frame["image_id"].isin(pack.erased).to_numpy()
        tables.append(frame.assign(day=day, pack_row=np.arange(len(frame)))[kept])
        values.append(np.concatenate([measured, sizes], axis=1)[kept])
        packs[day] = pack
    if not tables or not sum(map(len, tables)):
        raise ValueError("There is no measured image yet. Materialize image_features of at least one day first.")
    table = pd.concat(tables, ignore_index=True)
    return Measured(table, np.concatenate(values), expand_json(table["attributes"]), packs, rejected, personal, left_out)
