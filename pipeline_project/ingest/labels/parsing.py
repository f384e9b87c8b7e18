"""labels.csv: read as text, every defect kept as a problem with a code and its line, none raised, so that a check can show all of them."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from pipeline_project.contracts import LabelRow
from pipeline_project.settings.tree import DataSettings

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class LabelProblem:
    """One defect of a label file: where, why and the next step in `detail`.

    `code` is stable: empty, not_utf8, not_csv, missing_column, duplicate_column, outside_source.
    """

    file: str
    code: str
    detail: str


class NumberedRow(NamedTuple):
    """A row with its line as an editor counts it, from 1; otherwise as `LabelRow`, but cheap enough for millions.

    `refused` says why the row cannot be used, and `image` is then what the file says; empty for a good row.
    """

    line: int
    image: str
    label: str | None
    attributes: dict[str, str]
    refused: str = ""

    def problem(self, file: str) -> LabelProblem:
        """What is wrong with a refused row."""
        return LabelProblem(file, "outside_source", f"line {self.line}: '{self.image}' {self.refused}")


def parse_labels(file: str, data: bytes, settings: DataSettings) -> tuple[list[LabelRow], list[LabelProblem]]:
    """The good rows of one label file, and everything that is wrong with it; see `read_rows`."""
    rows, problems = read_rows(file, data, settings)
    good = [LabelRow(image=row.image, label=row.label, attributes=row.attributes) for row in rows if not row.refused]
    return good, problems + [row.problem(file) for row in rows if row.refused]


def read_rows(file: str, data: bytes, settings: DataSettings) -> tuple[list[NumberedRow], list[LabelProblem]]:
    """The rows of one label file, refused ones among them: a line that is mended or removed is a change of its day, like any other.

    Args:
        file: the file's key; image paths in it are relative to its folder.
        data: its bytes, UTF-8 CSV with a header. Blank lines and a comma at the end of each line are harmless.

    Returns:
        rows (values stripped; a blank label is None), and what is wrong with the file as a whole: then it gives no rows.
    """
    rows: list[NumberedRow] = []
    labels: dict[str, str | None] = {"": None}  # each text kept once: labels are few
    folder = PurePosixPath(file).parent
    try:
        header, lines = _read(data)
        _check_header(header, settings)
        image_at, label_at = header.index(settings.image_column), header.index(settings.label_column)
        others = [(at, name) for at, name in enumerate(header) if at not in (image_at, label_at) and name]
        for number, values in lines:
            image, why = _resolve(folder, values[image_at])
            label = labels.setdefault(values[label_at], values[label_at])
            rows.append(NumberedRow(number, image or values[image_at], label, {name: values[at] for at, name in others}, why))
    except _UnreadableError as error:
        return [], [LabelProblem(file, error.code, str(error))]
    return rows, []


def conflicting_images(rows: "Iterable[LabelRow | NumberedRow]") -> set[str]:
    """Keys that are labelled more than once, with different labels."""
    seen: dict[str, str | None] = {}
    conflicting = set()
    for row in rows:
        if row.image in seen and seen[row.image] != row.label:
            conflicting.add(row.image)
        seen.setdefault(row.image, row.label)
    return conflicting


class _UnreadableError(ValueError):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def _read(data: bytes) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header, and the lines below it with their numbers; each with as many values as the header, stripped."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _UnreadableError("not_utf8", "it is UTF-16, not UTF-8. Save the file as UTF-8 (in Excel: CSV UTF-8).")
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _UnreadableError("not_utf8", f"line {line}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from None
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise _UnreadableError("not_csv", f"line {line} holds a zero byte, so this is no text. Save the table as a CSV file in UTF-8.")
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")  # line by line: a file of a million rows is never held twice
    reader = csv.reader(text, skipinitialspace=True, strict=True)
    lines = _lines(reader)
    first = next(lines, None)
    if first is None:
        raise _UnreadableError("empty", "the file is empty. The first line must name the columns, such as image,label.")
    header = first[1]
    return header, _fitting(lines, len(header))


def _lines(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Lines that hold something, numbered as an editor numbers them (the first line of a value that spans several)."""
    while True:
        number: int = reader.line_num + 1  # type: ignore[attr-defined]
        try:
            values = [value.strip() for value in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                why = 'a double quote opens and is never closed. Close it, or write two (""), if it belongs to the text'
            elif "field limit" in str(error):
                why = "a value is longer than 131,072 characters: a double quote is probably missing. Mend the quotes"
            else:
                why = 'a double quote stands in the middle of a value. Put the whole value into double quotes, and write "" inside it'
            raise _UnreadableError("not_csv", f"line {number}: {why}.") from None
        if any(values):
            yield number, values


def _fitting(lines: Iterator[tuple[int, list[str]]], columns: int) -> Iterator[tuple[int, list[str]]]:
    for number, values in lines:
        if any(values[columns:]):
            raise _UnreadableError(
                "not_csv",
                f"line {number} has {len(values)} values for {columns} columns. Put a value that holds commas into double quotes.",
            )
        yield number, (values + [""] * columns)[:columns]


def _check_header(header: list[str], settings: DataSettings) -> None:
    wanted = {"image_column": settings.image_column, "label_column": settings.label_column}
    missing = {setting: name for setting, name in wanted.items() if name not in header}
    if missing:
        other = next((word for sign, word in _OTHER_SEPARATORS.items() if len(header) == 1 and sign in header[0]), None)
        if other:
            hint = f"The columns are separated by {other}: save the file with commas"
        else:
            hint = f"Rename a column, or set {' and '.join(f'data.{setting}' for setting in missing)} to the name it has"
        detail = f"line 1: no column {', '.join(missing.values())}; there are {', '.join(header)}. {hint}."
        raise _UnreadableError("missing_column", detail)
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if doubled:
        detail = f"line 1 names the column {', '.join(doubled)} more than once. Keep one of each, and rename or remove the others."
        raise _UnreadableError("duplicate_column", detail)


def _resolve(folder: PurePosixPath, path: str) -> tuple[str | None, str]:
    """The key of a path relative to a folder, or None and why not."""
    if not path:
        return None, "names no image. Write its path, or remove the line."
    if "\\" in path:
        return None, "has backslashes. Write the path with / instead."
    if path.startswith("/"):
        return None, "is an absolute path. Write it relative to the folder of this file."
    parts: list[str] = [part for part in folder.parts if part != "."]
    if "." not in path[:1] and "/." not in path and "//" not in path and not path.endswith("/"):  # nearly all of them, a million times
        return "/".join([*parts, path]), ""
    for part in PurePosixPath(path).parts:
        if part == "..":
            if not parts:
                return None, "leaves the source folder. Use a path below it."
            parts.pop()
        else:
            parts.append(part)
    return ("/".join(parts), "") if parts else (None, "names no image. Write its path, or remove the line.")
