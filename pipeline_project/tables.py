"""Tables and arrays as bytes: Parquet and .npz, the same bytes for the same contents."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from pipeline_project.digests import canonical_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

_ROW_GROUP = 65_536


def records_to_parquet(records: Sequence[BaseModel], model: type[BaseModel]) -> bytes:
    """One row a record, one column a field; dictionaries and lists become canonical JSON text. An empty table keeps its columns."""
    import pandas as pd

    rows = [
        {
            name: canonical_json(value).decode() if isinstance(value, dict | list) else value
            for name, value in r.model_dump(mode="json").items()
        }
        for r in records
    ]
    return frame_to_parquet(pd.DataFrame(rows, columns=list(model.model_fields)))


def frame_to_parquet(frame: "pd.DataFrame") -> bytes:
    """A data frame without its index."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def table_to_parquet(table: "pa.Table") -> bytes:
    """An Arrow table, by row groups, so that a reader that wants few rows or columns need not hold all."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=_ROW_GROUP)
    return buffer.getvalue()


def parquet_to_table(data: bytes, columns: Sequence[str] | None = None) -> "pa.Table":
    """The table as an Arrow table, or some of its columns."""
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(data), columns=list(columns) if columns is not None else None)


def arrays_to_npz(**arrays: "NDArray[Any]") -> bytes:
    """Named arrays as an uncompressed .npz file, never pickled; the same bytes for the same arrays."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def parquet_to_frame(data: bytes) -> "pd.DataFrame":
    """The table as a data frame."""
    import pandas as pd

    return pd.read_parquet(io.BytesIO(data))


def expand_json(column: "pd.Series[Any]") -> "pd.DataFrame":
    """A column of JSON objects as one text column a key, with the same index; a missing key gives an empty text."""
    import json

    import pandas as pd

    return pd.DataFrame([json.loads(text) for text in column], index=column.index).fillna("").astype(str)
