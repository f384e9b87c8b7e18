"""labels.csv as people write it: every defect is told, none stops the reading of another file."""

import csv
import io
from datetime import UTC, date, datetime
from pathlib import PurePosixPath

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_project.contracts import LabelRow
from pipeline_project.ingest.labels import conflicting_images, parse_labels, read_rows, row_day, speaks_of
from pipeline_project.ingest.labels.schema import broken_rules
from pipeline_project.ingest.sources import Listed
from pipeline_project.settings import load_settings
from pipeline_project.settings.tree import DataSettings


@pytest.fixture
def data() -> DataSettings:
    return load_settings("sample", environment={}).data


def labels_of(data: DataSettings, text: str | bytes, file: str = "labels.csv") -> dict[str, str | None]:
    rows, problems = parse_labels(file, text.encode() if isinstance(text, str) else text, data)
    assert problems == []
    return {row.image: row.label for row in rows}


def test_plain_file(data: DataSettings) -> None:
    rows, problems = parse_labels("2026-11-01/labels.csv", b"image,label,title\nimages/a.jpg,toys,A red car\n", data)
    assert problems == []
    assert rows == [LabelRow(image="2026-11-01/images/a.jpg", label="toys", attributes={"title": "A red car"})]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfimage,label\na.jpg,toys\n",  # Excel's byte order mark
        "image,label\r\na.jpg,toys\r\n",
        "label,image\ntoys,a.jpg\n",
        " image , label \n  a.jpg  ,  toys  \n",
        'image,label\n"a.jpg","toys"\n\n',
        "image,label\na.jpg,toys,\n",  # a comma at the end of every row
    ],
)
def test_harmless_ways_of_writing_it(data: DataSettings, text: str | bytes) -> None:
    assert labels_of(data, text) == {"a.jpg": "toys"}


def test_values_stay_text(data: DataSettings) -> None:
    rows, _ = parse_labels("labels.csv", b"image,label,price\n007.jpg,NA,1.50\n1e5,null,\n", data)
    assert [(row.image, row.label, row.attributes["price"]) for row in rows] == [("007.jpg", "NA", "1.50"), ("1e5", "null", "")]


@pytest.mark.parametrize("row", ["a.jpg,", "a.jpg,   ", "a.jpg", 'a.jpg,""'])
def test_blank_label_is_no_label(data: DataSettings, row: str) -> None:
    assert labels_of(data, f"image,label\n{row}\n") == {"a.jpg": None}


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("image,label\nb\xfccher.jpg,books\n".encode("latin-1"), "not_utf8", "byte 13 is not UTF-8. Save the file as UTF-8"),
        (b"", "empty", "The first line must name the columns"),
        (b"image,label\na.jpg,toys\nb.jpg,home,too,many\n", "not_csv", "line 3"),
        (b'image,label\n"a.jpg,toys\n', "not_csv", "line 2: a double quote opens and is never closed"),
        (b"file,label\na.jpg,toys\n", "missing_column", "no column image; there are file, label"),
        (b"image;label\na.jpg;toys\n", "missing_column", "no column image, label; there are image;label"),
        (b"\x89PNG\r\n\x1a\n", "not_utf8", "byte 0"),
    ],
)
def test_unreadable_file_is_one_problem(data: DataSettings, content: bytes, code: str, said: str) -> None:
    rows, problems = parse_labels("x/labels.csv", content, data)
    assert rows == []
    [problem] = problems
    assert (problem.file, problem.code) == ("x/labels.csv", code)
    assert said in problem.detail


@pytest.mark.parametrize("image", ["../a.jpg", "x/../../a.jpg", "/etc/passwd", "..\\a.jpg", "..", ""])
def test_paths_out_of_the_source_are_problems_of_their_row_alone(data: DataSettings, image: str) -> None:
    rows, problems = parse_labels("labels.csv", f"image,label\n{image},toys\nb.jpg,home\n".encode(), data)
    assert [row.image for row in rows] == ["b.jpg"]
    assert [problem.code for problem in problems] == ["outside_source"]


def test_paths_are_relative_to_the_label_file(data: DataSettings) -> None:
    assert labels_of(data, "image,label\n../images/./a.jpg,toys\n", file="2026-11-01/meta/labels.csv") == {
        "2026-11-01/images/a.jpg": "toys"
    }


def test_conflicts_are_images_with_two_labels(data: DataSettings) -> None:
    rows, _ = parse_labels("labels.csv", b"image,label\na,toys\nb,toys\na,home\nb,toys\nc,toys\nc,\n", data)
    assert conflicting_images(rows) == {"a", "c"}


# --- properties -----------------------------------------------------------------------------------------------------------------

SETTINGS = load_settings("sample", environment={}).data
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12).map(str.strip)
PATH = st.from_regex(r"[a-z0-9][a-z0-9 ,;'\"_-]{0,5}(/[a-z0-9 ,.\"]{0,5}[a-z0-9]){0,2}\.jpg", fullmatch=True).map(str.strip)


@settings(deadline=None)
@given(st.lists(st.tuples(PATH, st.sampled_from(["toys", "\u00fcber", "a,b", 'say "x"', ""]), TEXT), max_size=8), st.booleans())
def test_what_a_csv_writer_writes_is_read_back(rows: list[tuple[str, str, str]], bom: bool) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerows([("image", "label", "title"), *rows])
    data = buffer.getvalue().encode("utf-8-sig" if bom else "utf-8")
    read, problems = parse_labels("d/labels.csv", data, SETTINGS)
    assert problems == []
    assert [(row.label, row.attributes["title"]) for row in read] == [(label or None, title) for _, label, title in rows]
    assert [row.image for row in read] == [str(PurePosixPath("d") / path) for path, _, _ in rows]


@settings(deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"image,label,title\n" + tail))
def test_any_bytes_give_rows_or_a_reason(data: bytes) -> None:
    rows, problems = parse_labels("labels.csv", data, SETTINGS)
    for row in rows:
        assert row.image
        assert not row.image.startswith("/")
        assert ".." not in PurePosixPath(row.image).parts
        assert row.label is None or row.label == row.label.strip() != ""
    assert all(problem.detail and problem.code for problem in problems)
    numbered, whole = read_rows("labels.csv", data, SETTINGS)
    assert len([row for row in numbered if not row.refused]) == len(rows)
    assert len(whole) + len([row for row in numbered if row.refused]) == len(problems)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["toys", "Toys", " toys", "TOYS ", "home", "garden", None])), max_size=20)
)
def test_schema_names_exactly_the_rows_that_break_a_rule(rows: list[tuple[str, str | None]]) -> None:
    columns = {"file": "labels.csv", "line": range(2, len(rows) + 2), "image": [r[0] for r in rows], "label": [r[1] for r in rows]}
    frame = pd.DataFrame({**columns, "attributes": "{}"}).astype({"line": "int64", "image": object, "label": object})
    classes = ["toys", "home"]
    labels_of: dict[str, set[str | None]] = {}
    for image, label in rows:
        labels_of.setdefault(image, set()).add(label)
    expected = {
        "missing": [n for n, (_, label) in enumerate(rows) if label is None],
        "domain": [n for n, (_, label) in enumerate(rows) if label is not None and label not in classes],
        "case": [n for n, (_, label) in enumerate(rows) if label not in ("toys", None) and str(label).strip().casefold() == "toys"],
        "one_label": [n for n, (image, _) in enumerate(rows) if len(labels_of[image]) > 1],
    }
    assert {rule: found.tolist() for rule, found in broken_rules(frame, classes).items()} == expected


# --- which day a row belongs to -------------------------------------------------------------------------------------------------

ONE, TWO, THREE = (date(2026, 11, n) for n in (1, 2, 3))
ARRIVED = {"labels.csv": THREE, "a.jpg": TWO, "shop/labels.csv": ONE}


@pytest.mark.parametrize(
    ("file", "image", "day"),
    [
        ("2026-11-01/labels.csv", "2026-11-01/a.jpg", ONE),
        ("2026-11-01/labels.csv", "2026-11-02/a.jpg", ONE),  # a dated file speaks of its own day
        ("2026-11-01/labels.csv", "a.jpg", ONE),
        ("2026-11-01/meta/labels.csv", "gone.jpg", ONE),
        ("labels.csv", "2026-11-02/gone.jpg", TWO),
        ("labels.csv", "shop/2026-11-02/b.jpg", TWO),
        ("labels.csv", "a.jpg", TWO),
        ("labels.csv", "gone.jpg", THREE),  # nobody's: the day of the label file
        ("labels.csv", "2026-13-40/a.jpg", THREE),  # looks like a day and is none
        ("labels.csv", "2026-11-02", THREE),  # a file, no folder
        ("shop/labels.csv", "shop/gone.jpg", ONE),
    ],
)
def test_row_day(file: str, image: str, day: date) -> None:
    listed = Listed(file, 1, "e", datetime(2026, 11, 20, tzinfo=UTC))
    assert row_day(listed, LabelRow(image=image, label=None, attributes={}), ARRIVED) == day
    assert speaks_of(listed, day)
