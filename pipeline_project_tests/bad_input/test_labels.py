"""Wrong labels, as the checks of the day and the next dataset version tell them: what, where, why, and the next step."""

import unicodedata

import pytest

from pipeline_project.ingest.labels import close_class, close_key, parse_labels
from pipeline_project.settings import load_settings
from pipeline_project.settings.tree import DataSettings
from pipeline_project_tests.bad_input.conftest import INGEST, Run, Shop, photo

COMPOSED = unicodedata.normalize("NFC", "b\u00fccher.jpg")
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)
GOOD = "2026-01-01"
NO_FILE, NO_COLUMN, NOT_UTF8, OUTSIDE, NO_IMAGE, NO_LABEL, TWO_LABELS, LEAVES = (f"2026-01-{n:02d}" for n in range(2, 10))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """One defect a day."""
    made = Shop(tmp_path_factory.mktemp("labels"))
    for day in (GOOD, NO_FILE, NO_COLUMN, NOT_UTF8):
        made.day(day, 20 if day == GOOD else 10)
    (made.source / NO_FILE / "labels.csv").unlink()
    text = (made.source / NO_COLUMN / "labels.csv").read_text()
    made.put(f"{NO_COLUMN}/labels.csv", text.replace("image,label", "file,label"))
    text = (made.source / NOT_UTF8 / "labels.csv").read_text()
    made.put(f"{NOT_UTF8}/labels.csv", text.encode() + "b\u00fccher.jpg,books\n".encode("latin-1"))
    made.day(OUTSIDE, labels={1: " Toys ", 3: "garden"})
    made.day(NO_IMAGE, extra=f"gone.jpg,toys\n{DECOMPOSED},books\n")
    made.put(f"{NO_IMAGE}/{COMPOSED}", photo(7))
    made.day(NO_LABEL, labels={4: "", 5: "  "})
    made.day(TWO_LABELS, extra="4.jpg,toys\n5.jpg,toys\n")
    made.day(LEAVES, extra="../../etc/passwd,toys\n")
    return made


@pytest.fixture(scope="module")
def runs(shop: Shop) -> dict[str, Run]:
    days = [GOOD, NO_FILE, NO_COLUMN, NOT_UTF8, OUTSIDE, NO_IMAGE, NO_LABEL, TWO_LABELS, LEAVES]
    return {run.day: run for run in shop.materialize([INGEST], *days)}


@pytest.fixture(scope="module")
def left_out(shop: Shop, runs: dict[str, Run]) -> dict[str, str]:
    """What the dataset version says of the days that it goes on without."""
    [run] = shop.materialize([["dataset_splits"]])
    assert run.success, run.failures
    assert run.made["dataset_splits"]["images"] == 20
    reasons: dict[str, str] = run.made["dataset_splits"]["left_out_days"]
    return reasons


@pytest.mark.slow
def test_good_labels_pass(runs: dict[str, Run], left_out: dict[str, str]) -> None:
    assert runs[GOOD].success
    assert runs[GOOD].failed() == {}
    assert GOOD not in left_out


@pytest.mark.slow
def test_no_labels_csv(runs: dict[str, Run], left_out: dict[str, str]) -> None:
    said = f"no labels.csv beside the images of {NO_FILE}. Add one with the columns image,label."
    assert runs[NO_FILE].failed() == {
        "labels_schema": said,
        "missing_values": "no label of 10 images could be read; labels_schema says why.",
        "images_without_row": f"10 images have no label row (first {NO_FILE}/0.jpg) and are rejected. Add their rows.",
    }
    assert left_out[NO_FILE] == said.rstrip(".")


@pytest.mark.slow
def test_missing_column(runs: dict[str, Run], left_out: dict[str, str]) -> None:
    said = f"{NO_COLUMN}/labels.csv: line 1: no column image; there are file, label. "
    said += "Rename a column, or set data.image_column to the name it has"
    assert said in runs[NO_COLUMN].failed()["labels_schema"]
    assert left_out[NO_COLUMN] == said


@pytest.mark.slow
def test_not_utf8(runs: dict[str, Run], left_out: dict[str, str]) -> None:
    said = f"{NOT_UTF8}/labels.csv: line 12: byte 128 is not UTF-8. Save the file as UTF-8"
    assert said in runs[NOT_UTF8].failed()["labels_schema"]
    assert left_out[NOT_UTF8] == said


@pytest.mark.slow
def test_label_outside_the_classes(runs: dict[str, Run], left_out: dict[str, str]) -> None:
    said = (
        f"labels outside data.classes: 'Toys' (1, first {OUTSIDE}/1.jpg; did you mean 'toys'?), 'garden' (1, first {OUTSIDE}/3.jpg). "
        "Correct the labels, or add the classes"
    )
    assert runs[OUTSIDE].failed() == {
        "labels_schema": f"{said}.",
        "label_case": "1 rows write a class in another way, and their images are rejected: 'Toys' for 'toys' (1). Write the class's name.",
    }
    assert left_out[OUTSIDE] == said


@pytest.mark.slow
def test_labelled_image_that_is_missing(runs: dict[str, Run], left_out: dict[str, str]) -> None:
    said = runs[NO_IMAGE].failed()["missing_values"]
    assert "2 label rows name no image (first" in said
    assert f"'{NO_IMAGE}/{DECOMPOSED}' in the label file is probably the object '{NO_IMAGE}/{COMPOSED}'" in said
    assert "another Unicode form (NFC or NFD)" in said
    assert "Complete labels.csv or the images, then materialize the day again" in said
    assert left_out[NO_IMAGE] == said.rstrip(".")


@pytest.mark.slow
def test_image_without_a_label(runs: dict[str, Run], left_out: dict[str, str]) -> None:
    said = f"2 of 10 images lack a label (first {NO_LABEL}/4.jpg); 0 label rows name no image; at most 5.0% may. Complete labels.csv"
    assert runs[NO_LABEL].failed()["missing_values"].startswith(said)
    assert left_out[NO_LABEL].startswith(said)


@pytest.mark.slow
def test_same_image_labelled_twice_differently(runs: dict[str, Run], left_out: dict[str, str]) -> None:
    said = runs[TWO_LABELS].failed()["reject_rate"]
    assert f"1 of 10 images rejected (1 conflicting_labels; the first is {TWO_LABELS}/4.jpg: labelled more than once, differently)" in said
    assert "materialize the day again; their bytes are kept in quarantine" in said
    assert f"1 images are labelled more than once, differently, and are rejected: {TWO_LABELS}/4.jpg" in runs[TWO_LABELS].says(
        "conflicting_labels"
    )
    assert left_out[TWO_LABELS] == "1 of 10 images rejected (10.0%: 1 conflicting_labels); at most 5.0% are allowed"


@pytest.mark.slow
def test_path_that_leaves_the_source_folder(runs: dict[str, Run], left_out: dict[str, str]) -> None:
    said = f"{LEAVES}/labels.csv: line 12: '../../etc/passwd' leaves the source folder. Use a path below it"
    assert runs[LEAVES].failed() == {"labels_schema": f"{said}."}
    assert left_out[LEAVES] == said


# --- ways of writing the file ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> DataSettings:
    return load_settings("sample", environment={}).data


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"", "empty", "the file is empty. The first line must name the columns"),
        (b"\n \n", "empty", "the file is empty"),
        (b"image;label\na.jpg;toys\n", "missing_column", "The columns are separated by semicolons: save the file with commas."),
        (b"image\tlabel\na.jpg\ttoys\n", "missing_column", "separated by tabs"),
        (b"image\na.jpg\n", "missing_column", "line 1: no column label; there are image. Rename a column, or set data.label_column"),
        (b"image,label,label\na.jpg,toys,home\n", "duplicate_column", "line 1 names the column label more than once. Keep one of each"),
        (b"image,label,title,title\na.jpg,toys,x,a@b.org\n", "duplicate_column", "the column title more than once"),
        (b"image,label\na.jpg,to\0ys\n", "not_csv", "line 2 holds a zero byte"),
        ("image,label\na.jpg,toys\n".encode("utf-16"), "not_utf8", "UTF-16, not UTF-8. Save the file as UTF-8 (in Excel: CSV UTF-8)"),
        (b"image,label\n\na.jpg,toys\nb.jpg,home,red, blue\n", "not_csv", "line 4 has 4 values for 2 columns. Put a value"),
        (b"image,label\na.jpg,toys,kept\nb.jpg,home,kept\n", "not_csv", "line 2 has 3 values for 2 columns"),
        (b'image,label\na.jpg,toys\n"b.jpg,home\nc.jpg,home\n', "not_csv", "line 3: a double quote opens and is never closed"),
        (b'image,label\na.jpg,"toys" x\n', "not_csv", "line 2: a double quote stands in the middle of a value"),
        (b"image,label\na.jpg," + b"x" * 200_000 + b"\n", "not_csv", "line 2: a value is longer than 131,072 characters"),
    ],
)  # fmt: skip
def test_file_that_cannot_be_read_is_one_problem(data: DataSettings, content: bytes, code: str, said: str) -> None:
    rows, problems = parse_labels("x/labels.csv", content, data)
    assert rows == []
    [problem] = problems
    assert (problem.file, problem.code) == ("x/labels.csv", code)
    assert said in problem.detail


@pytest.mark.parametrize(
    ("content", "title"),
    [
        (b"\xef\xbb\xbfimage,label,title\r\na.jpg,toys,x\r\n", "x"),
        (b"image,label,title\ra.jpg,toys,x\r", "x"),
        (b'image,label,title\na.jpg,toys,"Red, fast ""car"""\n', 'Red, fast "car"'),
        (b'image,label,title\na.jpg,toys,"two\nlines"\n', "two\nlines"),
        (b"image,label,title\na.jpg,toys,x\n\n,,\n   \n", "x"),
        (b"image,label,title,,\na.jpg,toys,x,,\n", "x"),
        (b"image,label,title\na.jpg,toys," + b"y" * 100_000 + b"\n", "y" * 100_000),
    ],
)
def test_harmless_ways_of_writing_it(data: DataSettings, content: bytes, title: str) -> None:
    rows, problems = parse_labels("labels.csv", content, data)
    assert problems == []
    assert [(row.image, row.label, row.attributes) for row in rows] == [("a.jpg", "toys", {"title": title})]


def test_lines_are_numbered_as_an_editor_numbers_them(data: DataSettings) -> None:
    rows, problems = parse_labels("labels.csv", b'image,label,title\na.jpg,toys,"two\nlines"\n\n/b.jpg,toys,x\n', data)
    assert [row.image for row in rows] == ["a.jpg"]
    assert [problem.detail for problem in problems] == [
        "line 5: '/b.jpg' is an absolute path. Write it relative to the folder of this file."
    ]


@pytest.mark.parametrize(("image", "said"), [("..\\a.jpg", "has backslashes"), ("", "names no image"), (".", "names no image")])
def test_other_paths_that_are_none(data: DataSettings, image: str, said: str) -> None:
    rows, problems = parse_labels("labels.csv", f"image,label\n{image},toys\nb.jpg,home\n".encode(), data)
    assert [row.image for row in rows] == ["b.jpg"]
    assert said in problems[0].detail
    assert problems[0].detail.startswith("line 2: ")


@pytest.mark.parametrize(
    ("label", "meant"),
    [("Toys", "toys"), ("toy", "toys"), ("t oys", "toys"), (DECOMPOSED.upper(), COMPOSED), ("garden", None)],
)
def test_close_class(label: str, meant: str | None) -> None:
    assert close_class(label, ["toys", "home", COMPOSED]) == meant


def test_close_key() -> None:
    keys = ["d/A.JPG", f"d/{COMPOSED}", "d/c.png"]
    assert close_key("d/a.jpg", keys) == ("d/A.JPG", "the same but for upper and lower case")
    assert close_key(f"d/{DECOMPOSED}", keys) == (f"d/{COMPOSED}", "the same letters in another Unicode form (NFC or NFD)")
    assert close_key("d/c.jpg", keys) == ("d/c.png", "the same but for the ending")
    assert close_key("e/c.jpg", keys) is None
