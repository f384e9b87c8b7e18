"""Inventories of version 1, one JSON file with everything in lists, as the present ones: older projects stay readable."""

from datetime import date
from typing import TYPE_CHECKING, Any

from pipeline_project.digests import canonical_json
from pipeline_project.ingest.inventory_summary import DayLabels, summarise
from pipeline_project.ingest.privacy.report import count_texts

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def is_v1(listing: dict[str, Any]) -> bool:
    """Whether an inventory.json is of version 1."""
    return bool(listing.get("version", 1) == 1)


def objects_of(listing: dict[str, Any]) -> "pa.Table":
    """Its objects: key, size, etag, announced."""
    import pyarrow as pa

    announced = listing.get("announced_formats", {})
    objects = [{**o, "announced": announced.get(o["key"])} for o in listing.get("objects", [])]
    schema = pa.schema([("key", pa.string()), ("size", pa.int64()), ("etag", pa.string()), ("announced", pa.string())])
    return pa.Table.from_pylist(objects, schema)


def label_rows_of(listing: dict[str, Any]) -> "pd.DataFrame":
    """Its label rows: file, line, image, label, attributes. Version 1 did not keep files and lines: counted from 1."""
    import pandas as pd

    rows = [
        ("", number, row["image"], row["label"], canonical_json(row["attributes"]).decode())
        for number, row in enumerate(listing.get("labels", []), 1)
    ]
    return pd.DataFrame(rows, columns=["file", "line", "image", "label", "attributes"]).astype({"line": "int64"})


def summary_of(listing: dict[str, Any]) -> dict[str, Any]:
    """What inventory.json of version 2 would say."""
    rows = label_rows_of(listing)
    classes = sorted(set(rows["label"].dropna()) - listing.get("outside_domain", {}).keys())
    texts = count_texts(row["attributes"] for row in listing.get("labels", []))
    labels = DayLabels(rows, listing.get("label_files", []), listing.get("problems", []), texts=texts)
    return summarise(date.fromisoformat(listing.get("day", "1970-01-01")), objects_of(listing), labels, classes)
