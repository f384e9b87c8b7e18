"""What label rows must be, declared once with pandera: types, domain, missing values, spelling, one label an image."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline_project.ingest.labels.matching import fold

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pandera

RULES: Mapping[str, str] = {
    "missing": "a row has no label",
    "domain": "a label is not one of data.classes",
    "case": "a label is a class but for case, blanks or Unicode form",
    "one_label": "an image has more than one label",
}
"""The rules that rows can break, in words. Everything else that the schema declares holds for whatever the parser lets through."""


def label_schema(classes: Sequence[str]) -> "pandera.DataFrameSchema":
    """The schema of a day's label rows: columns file, line, image, label, attributes (a JSON object as text), one row a line."""
    import pandera.pandas as pandera

    known = {fold(name) for name in classes}

    def not_a_variant(labels: "pd.Series[str]") -> "pd.Series[bool]":
        variants = [label for label in labels.unique() if label not in classes and fold(label) in known]
        return ~labels.isin(variants)

    return pandera.DataFrameSchema(
        {
            "file": pandera.Column(str),
            "line": pandera.Column(np.int64, pandera.Check(lambda lines: lines > 0, name="line_from_one")),
            "image": pandera.Column(str, pandera.Check(lambda images: images != "", name="image_named")),
            "label": pandera.Column(
                str,
                [
                    pandera.Check(lambda labels: labels.isin(classes), name="domain"),
                    pandera.Check(not_a_variant, name="case"),
                ],
                nullable=False,
            ),
            "attributes": pandera.Column(str, pandera.Check(lambda texts: texts.str.startswith("{"), name="json_object")),
        },
        checks=pandera.Check(lambda rows: ~conflicting(rows["image"], rows["label"]), name="one_label", ignore_na=False),
        strict=True,
        name="labels",
    )


def broken_rules(rows: "pd.DataFrame", classes: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """{rule: positions of the rows that break it, ascending} for every one of `RULES`.

    Raises:
        AssertionError: the rows are not what the parser gives.
    """
    from pandera.errors import SchemaErrors

    found = {rule: np.empty(0, np.int64) for rule in RULES}
    rows = rows.reset_index(drop=True)
    if rows.empty:
        return found
    try:
        label_schema(classes).validate(rows, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases[["check", "index"]].replace({"check": {"not_nullable": "missing"}})
        unforeseen = sorted(set(cases["check"]) - set(RULES))
        assert not unforeseen, f"the label parser let through what it must not: {unforeseen}"
        for rule, positions in cases.groupby("check")["index"]:
            found[str(rule)] = np.unique(positions.to_numpy(np.int64))
    return found


def conflicting(images: "pd.Series[str]", labels: "pd.Series[str]") -> "pd.Series[bool]":
    """Whether each row's image is labelled more than once, differently; no label differs from a label."""
    import pandas as pd

    group, names = pd.factorize(images)
    code = pd.factorize(labels)[0].astype(np.int64)
    low, high = np.full(len(names), len(code)), np.full(len(names), -1)
    np.minimum.at(low, group, code)
    np.maximum.at(high, group, code)
    return pd.Series((low != high)[group], index=images.index)
