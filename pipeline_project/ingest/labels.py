"""labels.csv: read as text, every defect kept as a problem with a code, none raised, so that a check can show all of them."""

import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline_project.contracts import LabelRow
from pipeline_project.settings.tree import DataSettings


@dataclass(frozen=True)
class LabelProblem:
    """One defect of a label file. `code` is stable: not_utf8, not_csv, missing_column, outside_source."""

    file: str
    code: str
    detail: str


def parse_labels(file: str, data: bytes, settings: DataSettings) -> tuple[list[LabelRow], list[LabelProblem]]:
    """The rows of one label file.

    Args:
        file: the file's key; image paths in it are relative to its folder.
        data: its bytes, UTF-8 CSV with a header.

    Returns:
        rows (labels stripped; a blank label is None), and what was wrong.
    """
    import pandas as pd

    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return [], [LabelProblem(file, "not_utf8", f"byte {error.start} is not UTF-8. Save the file as UTF-8.")]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # a comma at the end of every row is harmless
            frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, skipinitialspace=True, index_col=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        return [], [LabelProblem(file, "not_csv", f"{error}. The first line must name the columns, separated by commas.")]
    frame.columns = frame.columns.str.strip()
    missing = [c for c in (settings.image_column, settings.label_column) if c not in frame.columns]
    if missing:
        detail = f"no column {', '.join(missing)}; there are {', '.join(frame.columns)}. Rename a column, or set data.image_column."
        return [], [LabelProblem(file, "missing_column", detail)]
    rows, problems = [], []
    others = [c for c in frame.columns if c not in (settings.image_column, settings.label_column)]
    for record in frame.to_dict("records"):
        image = _resolve(PurePosixPath(file).parent, str(record[settings.image_column]).strip())
        if image is None:
            problems.append(
                LabelProblem(file, "outside_source", f"{record[settings.image_column]!r} leaves the source. Use a path below it.")
            )
            continue
        label = str(record[settings.label_column]).strip()
        rows.append(LabelRow(image=image, label=label or None, attributes={str(c): str(record[c]).strip() for c in others}))
    return rows, problems


def conflicting_images(rows: Iterable[LabelRow]) -> set[str]:
    """Keys that are labelled more than once, with different labels."""
    seen: dict[str, str | None] = {}
    conflicting = set()
    for row in rows:
        if row.image in seen and seen[row.image] != row.label:
            conflicting.add(row.image)
        seen.setdefault(row.image, row.label)
    return conflicting


def _resolve(folder: PurePosixPath, path: str) -> str | None:
    """The key of a path relative to a folder, or None when it leaves the source."""
    if not path or path.startswith("/") or "\\" in path or "\0" in path:
        return None
    parts: list[str] = [part for part in folder.parts if part != "."]
    for part in PurePosixPath(path).parts:
        if part == "..":
            if not parts:
                return None
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts) or None
