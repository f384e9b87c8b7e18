"""What every row of a manifest must be, declared with pandera."""

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandera.pandas as pandera

_BATCH = 65_536
_SHOWN = 5


def manifest_schema() -> "pandera.DataFrameSchema":
    """The columns of `contracts.ManifestRow` as they are stored."""
    import pandera.pandas as pandera

    def matching(pattern: str) -> pandera.Check:
        return pandera.Check(lambda texts: texts.str.fullmatch(pattern), name=f"form {pattern}")

    def positive() -> pandera.Check:
        return pandera.Check(lambda numbers: numbers > 0, name="above 0")

    named = pandera.Check(lambda texts: texts != "", name="not empty")
    return pandera.DataFrameSchema(
        {
            "image_id": pandera.Column(str, matching("[0-9a-f]{64}")),
            "key": pandera.Column(str, named),
            "label": pandera.Column(str, named),
            "width": pandera.Column(np.int64, positive()),
            "height": pandera.Column(np.int64, positive()),
            "mode": pandera.Column(str, named),
            "format": pandera.Column(str, named),
            "size": pandera.Column(np.int64, positive()),
            "perceptual_hash": pandera.Column(str, matching("[0-9a-f]{16}")),
            "attributes": pandera.Column(str, matching(r"(?s)\{.*\}")),
            "notes": pandera.Column(str, matching(r"\[.*\]")),
            "faces": pandera.Column(float, pandera.Check(lambda numbers: numbers >= 0, name="at least 0"), nullable=True, coerce=True),
        },
        strict=True,
        name="manifest",
    )


def broken_rows(parquet: bytes) -> tuple[int, list[str]]:
    """How many rows a manifest has, and in words what is wrong with it; read by parts, so that its size does not matter."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from pandera.errors import SchemaErrors

    file, schema = pq.ParquetFile(io.BytesIO(parquet)), manifest_schema()
    broken: dict[str, str] = {}
    for batch in file.iter_batches(_BATCH):
        try:
            schema.validate(batch.to_pandas(), lazy=True)
        except SchemaErrors as errors:
            for case in errors.failure_cases.to_dict("records"):
                what = f"{case['column']}: {case['check']}"
                broken.setdefault(what, f"{what} (first {str(case['failure_case'])[:60]!r})")
    ids = file.read(["image_id"])["image_id"] if "image_id" in file.schema_arrow.names else None
    if ids is not None and pc.count_distinct(ids).as_py() != len(ids):
        broken["unique"] = "an image_id occurs twice"
    return file.metadata.num_rows, list(broken.values())[:_SHOWN]
