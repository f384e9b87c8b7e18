"""The join of images and labels against a reference that goes row by row, on thousands of small days."""

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_project.contracts import ManifestRow, Reject
from pipeline_project.ingest.decoding.shards import SCHEMA
from pipeline_project.ingest.labels import close_class
from pipeline_project.ingest.manifest_join import join_day

CLASSES = ["toys", "home"]
LABELS = pa.schema([("image", pa.string()), ("label", pa.string()), ("attributes", pa.string())])
Row = dict[str, Any]


def by_hand(facts: list[Row], labels: list[Row]) -> tuple[dict[str, Row], dict[str, Row]]:
    """{key: ...} of the accepted and of the rejected images, as a person would decide it."""
    rows_of: dict[str, list[Row]] = {}
    for row in labels:
        rows_of.setdefault(row["image"], []).append(row)
    accepted: dict[str, Row] = {}
    rejected: dict[str, Row] = {}
    first: dict[str, Row] = {}
    disputes: dict[str, Row] = {}
    for fact in facts:
        key, rows = fact["key"], rows_of.get(fact["key"], [])
        label = rows[0]["label"] if rows else None

        def reject(code: str, detail: str, key: str = key, label: str | None = label, image_id: str | None = fact["image_id"]) -> Row:
            rejected[key] = {"key": key, "code": code, "detail": detail, "label": label, "image_id": image_id}
            return rejected[key]

        if fact["code"]:
            reject(fact["code"], fact["detail"])
        elif label is None:
            reject("unlabelled", "no row of the label file names a label for it")
        elif len({row["label"] for row in rows}) > 1:
            reject("conflicting_labels", "labelled more than once, differently")
        elif label not in CLASSES:
            meant = close_class(label, CLASSES)
            reject("outside_domain", f"label {label!r} is not one of data.classes" + (f"; did you mean {meant!r}?" if meant else ""))
        elif fact["image_id"] in first:
            earlier = first[fact["image_id"]]
            same = f"the same bytes as {earlier['key']}"
            if earlier["label"] == label:
                reject("duplicate", same)
            else:
                disputes.setdefault(fact["image_id"], reject("conflicting_copy", f"{same}, there labelled {earlier['label']}"))
        else:
            first[fact["image_id"]] = {"key": key, "label": label, "attributes": rows[0]["attributes"], "image_id": fact["image_id"]}
    for image_id, row in first.items():
        if image_id in disputes:
            other = disputes[image_id]
            detail = f"the same bytes as {other['key']}, there labelled {other['label']}"
            rejected[row["key"]] = {
                **{name: row[name] for name in ("key", "label", "image_id")},
                "code": "conflicting_copy",
                "detail": detail,
            }
        else:
            accepted[row["key"]] = row
    return accepted, rejected


def fact(number: int, image: str | None, code: str | None) -> Row:
    known = {"width": 9, "height": 9, "format": "JPEG", "mode": "RGB", "notes": "[]", "perceptual_hash": "0" * 16, "faces": None}
    named = {"key": f"k{number}", "image_id": image and image * 64, "size": 1}
    if code or image is None:
        return {**dict.fromkeys(known), **named, "code": code or "too_many_bytes", "detail": "why"}
    return {**known, **named, "code": None, "detail": None}


FACTS = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from([None, None, None, None, "corrupt"])), max_size=8).map(
    lambda rows: [fact(number, *row) for number, row in enumerate(rows)]
)
ROWS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["toys", "toys", "home", "Toys", "garden", None])), max_size=12).map(
    lambda rows: [{"image": f"k{n}", "label": label, "attributes": f'{{"row":"{at}"}}'} for at, (n, label) in enumerate(rows)]
)


@settings(max_examples=300, deadline=None)
@given(FACTS, ROWS)
def test_join_is_what_a_person_would_decide(facts: list[Row], labels: list[Row]) -> None:
    joined = join_day(pa.Table.from_pylist(facts, SCHEMA), pa.Table.from_pylist(labels, LABELS), CLASSES)
    accepted, rejected = by_hand(facts, labels)
    manifest, rejects = joined.manifest.to_pylist(), joined.rejects.to_pylist()
    assert {row["key"]: {name: row[name] for name in ("key", "label", "attributes", "image_id")} for row in manifest} == accepted
    assert {row["key"]: row for row in rejects} == rejected
    assert [row["key"] for row in manifest] == sorted(accepted)
    assert [row["key"] for row in rejects] == sorted(rejected)
    assert len(manifest) + len(rejects) == len(facts), "every object is in exactly one of the two"


@settings(max_examples=50, deadline=None)
@given(FACTS, ROWS)
def test_tables_have_the_columns_of_their_records_whatever_the_day_holds(facts: list[Row], labels: list[Row]) -> None:
    joined = join_day(pa.Table.from_pylist(facts, SCHEMA), pa.Table.from_pylist(labels, LABELS), CLASSES)
    assert joined.manifest.column_names == list(ManifestRow.model_fields)
    assert joined.rejects.column_names == list(Reject.model_fields)
    empty = join_day(SCHEMA.empty_table(), LABELS.empty_table(), CLASSES)
    assert joined.manifest.schema == empty.manifest.schema
    assert joined.rejects.schema == empty.rejects.schema
    for row in joined.rejects.to_pylist():
        Reject.model_validate(row)


def test_chunks_of_the_tables_do_not_matter() -> None:
    """Parquet files with several row groups come as chunks."""
    facts = [fact(number, "abc"[number % 3], None) for number in range(9)]
    labels = [{"image": f"k{n}", "label": "toys" if n < 6 else "home", "attributes": "{}"} for n in range(9)]
    whole = pa.Table.from_pylist(facts, SCHEMA), pa.Table.from_pylist(labels, LABELS)
    cut = [pa.concat_tables([table.slice(0, 4), table.slice(4, 2), table.slice(6)]) for table in whole]
    assert cut[0]["key"].num_chunks == 3
    one, other = join_day(*whole, CLASSES), join_day(cut[0], cut[1], CLASSES)
    assert one.manifest.equals(other.manifest)
    assert one.rejects.equals(other.rejects)
    assert set(one.rejects["code"].to_pylist()) == {"duplicate", "conflicting_copy"}
