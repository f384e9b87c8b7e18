"""labels.csv as people write it: every defect is told, none stops the reading of another file."""

import pytest

from pipeline_project.contracts import LabelRow
from pipeline_project.ingest.labels import conflicting_images, parse_labels
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
