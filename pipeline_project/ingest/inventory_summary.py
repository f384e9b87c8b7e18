"""What a day's listing and label rows amount to: counts, and of everything that is wrong the first rows, in one small JSON object."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from pipeline_project.ingest.labels import close_class, close_key
from pipeline_project.ingest.labels.schema import broken_rules

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SHOWN = 50
"""Longer lists are cut to so many; the count beside them says how many there are."""
_CANDIDATES = 2000  # unlabelled images that a misspelt path is compared with


@dataclass(frozen=True)
class DayLabels:
    """What the label files say of a day.

    Attributes:
        rows: file str, line int64, image str, label str or None, attributes str (a JSON object); in the order of the files and lines.
        files: keys of the files that may speak of the day.
        problems: what is wrong with them: file, code, detail.
        personal_data: {column: {kind: pieces that were masked}}.
        masked_columns: the text columns that were searched.
        texts: {column: values that are not empty}.
    """

    rows: "pd.DataFrame"
    files: Sequence[str] = ()
    problems: Sequence[Mapping[str, str]] = ()
    personal_data: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    masked_columns: Sequence[str] = ()
    texts: Mapping[str, int] = field(default_factory=dict)


def summarise(day: date, objects: "pa.Table", labels: DayLabels, classes: Sequence[str]) -> dict[str, Any]:
    """The content of inventory.json, version 2.

    Args:
        objects: key, size, etag, announced; sorted by key.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = labels.rows
    broken = broken_rules(rows, classes)
    keys, named = objects["key"], pa.array(rows["image"], pa.string())
    labelled = named.filter(pc.is_valid(pa.array(rows["label"], pa.string())))
    unlabelled = keys.filter(pc.invert(pc.is_in(keys, labelled)))
    no_row = keys.filter(pc.invert(pc.is_in(keys, named)))
    orphans = rows[pc.invert(pc.is_in(named, keys.combine_chunks())).to_numpy(zero_copy_only=False)].drop_duplicates("image")
    sizes = pc.sum(objects["size"]).as_py() or 0
    return {
        "version": 2,
        "day": day.isoformat(),
        "objects": objects.num_rows,
        "bytes": sizes,
        **_formats(objects),
        "label_files": list(labels.files)[:SHOWN],
        "label_file_count": len(labels.files),
        "label_rows": len(rows),
        "labels": {str(label): int(count) for label, count in rows["label"].value_counts().head(SHOWN).items()},
        "problems": [dict(problem) for problem in labels.problems[:SHOWN]],
        "problem_count": len(labels.problems),
        "personal_data": {column: dict(kinds) for column, kinds in labels.personal_data.items()},
        "masked_columns": sorted(labels.masked_columns),
        "texts": dict(sorted(labels.texts.items())),
        "found": {
            "missing": _found(len(broken["missing"]), _places(rows.iloc[broken["missing"][:SHOWN]])),
            "outside_domain": _spellings(rows.iloc[broken["domain"]], classes),
            "label_case": _spellings(rows.iloc[broken["case"]], classes),
            "conflicting_labels": _conflicts(rows.iloc[broken["one_label"]]),
            "rows_without_image": _found(len(orphans), _misspelt(orphans, sorted(unlabelled[:_CANDIDATES].to_pylist()))),
            "images_without_row": _found(len(no_row), [{"key": key} for key in no_row[:SHOWN].to_pylist()]),
            "unlabelled": _found(len(unlabelled), [{"key": key} for key in unlabelled[:SHOWN].to_pylist()]),
        },
    }


def _found(count: int, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"count": count, "rows": list(rows)[:SHOWN]}


def _formats(objects: "pa.Table") -> dict[str, Any]:
    """How many objects announce each format ("" for none), and the first of each."""
    import pyarrow.compute as pc

    announced = pc.fill_null(objects["announced"], "")
    counts = Counter({entry["values"]: entry["counts"] for entry in pc.value_counts(announced).to_pylist()})
    first = {name: objects.select(["key", "size"]).filter(pc.equal(announced, name)).slice(0, SHOWN).to_pylist() for name in counts}
    return {"formats": dict(sorted(counts.items())), "first_of_format": dict(sorted(first.items()))}


def _places(rows: "pd.DataFrame") -> list[dict[str, Any]]:
    return [{"file": file, "line": int(line), "image": image} for file, line, image in zip(*(rows[c] for c in _PLACE), strict=True)]


_PLACE = ("file", "line", "image")


def _spellings(rows: "pd.DataFrame", classes: Sequence[str]) -> dict[str, Any]:
    """Each unknown label: how often, where first, and the class that was probably meant."""
    grouped = rows.groupby("label", sort=True)
    first = grouped[list(_PLACE)].first()
    shown = [
        {"label": str(label), "rows": int(count), "meant": close_class(str(label), classes) or "", **_places(first.loc[[label]])[0]}
        for label, count in grouped.size().head(SHOWN).items()
    ]
    return {"labels": len(first), **_found(len(rows), shown)}


def _conflicts(rows: "pd.DataFrame") -> dict[str, Any]:
    images = sorted(set(rows["image"]))
    few = rows[rows["image"].isin(images[:SHOWN])]
    shown = []
    for image, own in few.groupby("image", sort=True):
        places = [f"{label or '(none)'} ({file}:{line})" for label, file, line in zip(own["label"], own["file"], own["line"], strict=True)]
        shown.append({"image": str(image), "labels": ", ".join(places[:5])})
    return _found(len(images), shown)


def _misspelt(orphans: "pd.DataFrame", unlabelled: list[str]) -> list[dict[str, Any]]:
    """The first rows that name no image, with the object that each was probably meant for."""
    shown = []
    for place, label in zip(_places(orphans.head(SHOWN)), orphans["label"], strict=False):
        meant, difference = close_key(place["image"], unlabelled) or ("", "")
        shown.append({**place, "label": label or "", "meant": meant, "difference": difference})
    return shown
