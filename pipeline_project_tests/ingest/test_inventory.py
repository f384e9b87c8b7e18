"""The inventory of a day: small whatever the day holds, the same for the same content, and nothing read twice."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from pipeline_project.digests import canonical_json
from pipeline_project.ingest import inventory
from pipeline_project.ingest.inventory import read_inventory, take_inventory
from pipeline_project.ingest.inventory_checks import inventory_outcomes, label_outcomes
from pipeline_project.ingest.sources import FolderSource
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact

Put = Callable[[str, bytes | str], Path]
ONE = date(2026, 11, 1)
JPEG = b"\xff\xd8\xff and so on"


def lay(put: Put, count: int) -> None:
    for number in range(count):
        put(f"{ONE}/{number:03d}.jpg", JPEG + bytes([number]))
    put(f"{ONE}/labels.csv", "image,label\n" + "".join(f"{number:03d}.jpg,toys\n" for number in range(count)))


def said(context: StageContext, artifact: Artifact) -> dict[str, str]:
    listing = artifact.json("inventory.json")
    return {o.name: o.detail for o in [*inventory_outcomes(listing, context.settings), *label_outcomes(listing)] if not o.passed}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys that were read from the source."""
    seen: list[str] = []
    read = FolderSource.read

    def noting(self: FolderSource, key: str, first_bytes: int | None = None) -> bytes:
        seen.append(key)
        return read(self, key, first_bytes)

    monkeypatch.setattr(FolderSource, "read", noting)
    return seen


def test_tables_and_summary(context: StageContext, put: Put) -> None:
    lay(put, 3)
    put(f"{ONE}/page.jpg", "<html>")
    found = read_inventory(take_inventory(context, ONE).artifact)
    assert [(o["key"], o["size"], o["announced"]) for o in found.objects.to_pylist()] == [
        *((f"{ONE}/{n:03d}.jpg", len(JPEG) + 1, "JPEG") for n in range(3)),
        (f"{ONE}/page.jpg", 6, None),
    ]
    assert found.labels.to_pylist() == [{"image": f"{ONE}/{n:03d}.jpg", "label": "toys", "attributes": "{}"} for n in range(3)]
    assert (found.summary["objects"], found.summary["label_rows"], found.summary["formats"]) == (4, 3, {"": 1, "JPEG": 3})
    assert [row["key"] for row in found.summary["found"]["images_without_row"]["rows"]] == [f"{ONE}/page.jpg"]


def test_only_new_and_changed_objects_are_looked_into(context: StageContext, put: Put, reads: list[str]) -> None:
    lay(put, 4)
    first = take_inventory(context, ONE).artifact
    assert sorted(reads) == sorted([*(f"{ONE}/{n:03d}.jpg" for n in range(4)), f"{ONE}/labels.csv"])
    reads.clear()
    assert take_inventory(context, ONE).artifact.digest == first.digest
    assert reads == []
    put(f"{ONE}/001.jpg", "no image any more")
    put(f"{ONE}/new.jpg", JPEG)
    later = read_inventory(take_inventory(context, ONE).artifact)
    assert sorted(reads) == [f"{ONE}/001.jpg", f"{ONE}/labels.csv", f"{ONE}/new.jpg"]
    assert later.summary["formats"] == {"": 1, "JPEG": 4}


def test_damaged_inventory_of_before_is_no_obstacle(context: StageContext, put: Put, reads: list[str]) -> None:
    lay(put, 2)
    first = take_inventory(context, ONE).artifact
    context.artifacts.bytes.write(f"{first.prefix}objects.parquet", b"damaged")
    reads.clear()
    again = take_inventory(context, ONE).artifact
    assert again.digest == first.digest
    assert len(reads) == 3
    assert read_inventory(again).summary["objects"] == 2


def test_summary_stays_small(context: StageContext, put: Put) -> None:
    """Of everything there is a count and the first rows."""
    for number in range(120):
        put(f"{ONE}/{number:03d}.txt", "text")
    rows = [f"gone{n:03d}.jpg,class{n:03d}\n" for n in range(120)] + [f"/abs{n}.jpg,toys\n" for n in range(120)]
    put(f"{ONE}/labels.csv", "image,label\n" + "".join(rows) + "gone000.jpg,toys\n")
    artifact = take_inventory(context, ONE).artifact
    summary = artifact.json("inventory.json")

    def longest(value: object) -> int:
        if isinstance(value, dict):
            return max((longest(v) for v in value.values()), default=0)
        return max(len(value), *map(longest, value), 0) if isinstance(value, list) else 0

    assert longest(summary) == 50
    assert summary["problem_count"] == 120
    counts = {name: found["count"] for name, found in summary["found"].items()}
    assert counts == {
        "missing": 0, "outside_domain": 120, "label_case": 0, "conflicting_labels": 1, "rows_without_image": 120,
        "images_without_row": 120, "unlabelled": 120,
    }  # fmt: skip
    details = said(context, artifact)
    assert details.keys() == {
        "file_format", "labels_schema", "missing_values", "conflicting_labels", "rows_without_image", "images_without_row",
    }  # fmt: skip
    assert "And 116 more like these." in details["labels_schema"]


def test_line_that_cannot_be_used_concerns_its_day_only(context: StageContext, put: Put) -> None:
    """In a label file of all days, too; and mending it is a change of the day's fingerprint."""
    two = date(2026, 11, 2)
    for day in (ONE, two):
        put(f"{day}/a.jpg", JPEG)
    put("labels.csv", f"image,label\n{ONE}/a.jpg,toys\n{two}/a.jpg,toys\n{two}/../../x.jpg,toys\n")
    before = {day: take_inventory(context, day).artifact for day in (ONE, two)}
    assert said(context, before[ONE]) == {}
    assert "line 4: '2026-11-02/../../x.jpg' leaves the source folder" in said(context, before[two])["labels_schema"]
    put("labels.csv", f"image,label\n{ONE}/a.jpg,toys\n{two}/a.jpg,toys\n")
    after = {day: take_inventory(context, day).artifact for day in (ONE, two)}
    assert said(context, after[two]) == {}
    assert after[ONE].info["fingerprint"] == before[ONE].info["fingerprint"]
    assert after[two].info["fingerprint"] != before[two].info["fingerprint"]


def test_variants_of_a_class_are_named(context: StageContext, put: Put) -> None:
    lay(put, 40)
    put(f"{ONE}/labels.csv", "image,label\n" + "".join(f"{n:03d}.jpg,{'TOYS' if n == 7 else 'toys'}\n" for n in range(40)))
    details = said(context, take_inventory(context, ONE).artifact)
    assert details == {
        "label_case": "1 rows write a class in another way, and their images are rejected: 'TOYS' for 'toys' (1). Write the class's name."
    }


def test_marker_is_no_image(open_context: Callable[..., StageContext], put: Put) -> None:
    lay(put, 2)
    put(f"{ONE}/_SUCCESS", "")
    assert take_inventory(open_context(), ONE).metadata["images"] == 3
    assert take_inventory(open_context(INGEST__MARKER="_SUCCESS"), ONE).metadata["images"] == 2


def test_inventory_of_version_1_is_read(context: StageContext) -> None:
    """As projects of before have it in their stores."""
    listing = {
        "version": 1, "day": str(ONE),
        "objects": [{"key": f"{ONE}/a.jpg", "size": 3, "etag": "e1"}, {"key": f"{ONE}/b.jpg", "size": 0, "etag": "e2"}],
        "announced_formats": {f"{ONE}/a.jpg": "JPEG", f"{ONE}/b.jpg": None},
        "labels": [
            {"image": f"{ONE}/a.jpg", "label": "toys", "attributes": {"title": "x"}},
            {"image": f"{ONE}/c.jpg", "label": "Toys", "attributes": {"title": ""}},
        ],
        "label_files": [f"{ONE}/labels.csv"], "problems": [], "unlabelled": [f"{ONE}/b.jpg"], "without_image": [f"{ONE}/c.jpg"],
        "outside_domain": {"Toys": 1}, "conflicting": [],
    }  # fmt: skip
    artifact = context.artifacts.publish("raw_images", {"inventory.json": canonical_json(listing)}, partition=str(ONE))
    found = read_inventory(artifact)
    assert found.objects.to_pylist()[1] == {"key": f"{ONE}/b.jpg", "size": 0, "etag": "e2", "announced": None}
    assert found.labels.to_pylist()[0] == {"image": f"{ONE}/a.jpg", "label": "toys", "attributes": '{"title":"x"}'}
    assert json.loads(json.dumps(found.summary))["found"]["unlabelled"]["rows"] == [{"key": f"{ONE}/b.jpg"}]
    details = said(context, artifact)
    assert f"1 of 2 images lack a label (first {ONE}/b.jpg); 1 label rows name no image (first {ONE}/c.jpg)" in details["missing_values"]
    assert "'Toys' (1, first 2026-11-01/c.jpg; did you mean 'toys'?)" in details["labels_schema"]


def test_personal_data_is_masked_in_the_inventory(context: StageContext, put: Put) -> None:
    put(f"{ONE}/a.jpg", JPEG)
    put(f"{ONE}/labels.csv", "image,label,title\na.jpg,toys,write to anna@example.com\n")
    artifact = take_inventory(context, ONE).artifact
    found = read_inventory(artifact)
    assert found.labels["attributes"].to_pylist() == ['{"title":"write to [email]"}']
    assert found.summary["personal_data"] == {"title": {"email": 1}}
    assert inventory.attributes_text({"b": "x", "a": "ü"}) == '{"a":"ü","b":"x"}'
