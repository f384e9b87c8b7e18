"""A day's images and label rows joined: which images are accepted, which are not and why. A pure function over Arrow tables.

An image is rejected, in this order, because it cannot be decoded, has no label, has two, or one that is no class. Of images with the same
bytes the first is accepted; where their labels differ, none is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.contracts import ManifestRow
from pipeline_project.ingest.labels import close_class

if TYPE_CHECKING:
    import pyarrow as pa

UNCOUNTED = frozenset({"duplicate", "erased"})
"""Codes that say nothing bad of a day: an exact copy is dropped, an erased image stays away."""
_COLUMNS = tuple(ManifestRow.model_fields)
_TEXT = ("image_id", "key", "label", "mode", "format", "perceptual_hash", "attributes", "notes")
_NONE = -1


@dataclass(frozen=True)
class JoinedDay:
    """Both tables are sorted by key; together they have every object once.

    Attributes:
        manifest: the columns of `contracts.ManifestRow`; attributes and notes as JSON text.
        rejects: the columns of `contracts.Reject`.
    """

    manifest: "pa.Table"
    rejects: "pa.Table"


def join_day(facts: "pa.Table", labels: "pa.Table", classes: Sequence[str]) -> JoinedDay:
    """Decide about every object of a day.

    Args:
        facts: one row an object, sorted by key: key, image_id, size, format, mode, width, height, notes, perceptual_hash, faces, code,
            detail; code is null where the image was decoded.
        labels: image, label or null, attributes; where an image has several rows, the first one's attributes count.
        classes: the label domain.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    facts = facts.combine_chunks()
    row_of = _first_rows(facts["key"], labels["image"])
    names = pc.unique(labels["label"]).drop_null().cast(pa.string())
    label_code = _codes(labels["label"], names)
    label = np.where(row_of == _NONE, _NONE, label_code[np.maximum(row_of, 0)]) if len(label_code) else np.full(facts.num_rows, _NONE)
    known = np.array([name in set(classes) for name in names.to_pylist()] + [False])  # the last stands for no label
    undecoded = pc.is_valid(facts["code"]).to_numpy(zero_copy_only=False)
    unlabelled = label == _NONE
    doubtful = _conflicting(facts["key"], labels, label_code)
    outside = ~known[label]
    fit = ~(undecoded | unlabelled | doubtful | outside)
    first, dispute = _copies(facts["image_id"], label, fit)

    positions = np.arange(facts.num_rows)
    copy = fit & (first != positions)
    other = np.where(copy, first, dispute)  # the image that the reason names
    differs = copy & (label != label[first])
    reasons = _Reasons(facts["key"], names.to_pylist(), list(classes))
    reasons.give(undecoded, facts["code"], facts["detail"])
    reasons.give(~undecoded & unlabelled, "unlabelled", "no row of the label file names a label for it")
    reasons.give(~undecoded & ~unlabelled & doubtful, "conflicting_labels", "labelled more than once, differently")
    reasons.outside(~undecoded & ~unlabelled & ~doubtful & outside, label)
    reasons.copies(copy & ~differs, "duplicate", other, None)
    reasons.copies(differs | (fit & (dispute != _NONE)), "conflicting_copy", other, label)
    rejects = reasons.table(facts["image_id"], pc.take(names, pa.array(label, mask=unlabelled)))
    accepted = fit & (first == positions) & (dispute == _NONE)
    return JoinedDay(_manifest(facts, labels, accepted, row_of, pc.take(names, pa.array(label, mask=unlabelled))), rejects)


def _first_rows(keys: Any, images: Any) -> NDArray[np.int64]:
    """For each key the position of its first label row, or `_NONE`."""
    import pyarrow.compute as pc

    if not len(images):
        return np.full(len(keys), _NONE)
    encoded = images.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    first = np.full(len(encoded.dictionary), len(codes), np.int64)
    np.minimum.at(first, codes, np.arange(len(codes)))
    found = pc.fill_null(pc.index_in(keys, encoded.dictionary), _NONE).to_numpy().astype(np.int64)
    return np.where(found == _NONE, _NONE, first[found])


def _codes(values: Any, names: Any) -> NDArray[np.int64]:
    """Each value's place in `names`; `_NONE` for null."""
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(pc.index_in(values, names), _NONE)).astype(np.int64)


def _conflicting(keys: Any, labels: "pa.Table", label_code: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each key has label rows that differ; a row without a label differs from one with."""
    import pyarrow.compute as pc

    if not labels.num_rows:
        return np.zeros(len(keys), bool)
    encoded = labels["image"].combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    low, high = np.full(len(encoded.dictionary), len(label_code)), np.full(len(encoded.dictionary), _NONE)
    np.minimum.at(low, codes, label_code)
    np.maximum.at(high, codes, label_code)
    return np.asarray(pc.is_in(keys, encoded.dictionary.filter(_arrow(low != high))))


def _copies(ids: Any, label: NDArray[np.int64], fit: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each fit image the first one with its bytes; and for each first one the first copy that is labelled otherwise, or `_NONE`."""
    positions = np.arange(len(label))
    first, dispute = positions.copy(), np.full(len(label), _NONE)
    at = positions[fit]
    codes = ids.combine_chunks().dictionary_encode().indices.fill_null(0).to_numpy(zero_copy_only=False)[fit]
    if len(at):
        lowest = np.full(codes.max() + 1, len(label), np.int64)
        np.minimum.at(lowest, codes, at)
        first[at] = lowest[codes]
        differing = at[label[at] != label[first[at]]][::-1]
        dispute[first[differing]] = differing  # in reverse, so that the first one stays
    return first, dispute


def _arrow(values: NDArray[Any]) -> Any:
    import pyarrow as pa

    return pa.array(values)


class _Reasons:
    """Collects which rows are rejected, with code and detail."""

    def __init__(self, keys: Any, names: list[str], classes: list[str]) -> None:
        self._keys, self._names, self._classes = keys, names, classes
        self._parts: list[tuple[NDArray[np.int64], Any, Any]] = []

    def give(self, mask: NDArray[np.bool_], code: Any, detail: Any) -> None:
        """One code and detail for all, or a column of each."""
        at = np.flatnonzero(mask)
        self._parts.append((at, *(self._column(value, at) for value in (code, detail))))

    def outside(self, mask: NDArray[np.bool_], label: NDArray[np.int64]) -> None:
        """Labels that are no class, with the one that was probably meant."""
        at = np.flatnonzero(mask)
        words = {}
        for code in np.unique(label[at]).tolist():
            meant = close_class(self._names[code], self._classes)
            words[code] = f"label {self._names[code]!r} is not one of data.classes{f'; did you mean {meant!r}?' if meant else ''}"
        self._parts.append((at, self._column("outside_domain", at), [words[code] for code in label[at].tolist()]))

    def copies(self, mask: NDArray[np.bool_], code: str, other: NDArray[np.int64], label: NDArray[np.int64] | None) -> None:
        """The same bytes as another image, and with `label` what that is labelled."""
        at = np.flatnonzero(mask)
        names = self._keys.take(_arrow(other[at])).to_pylist()
        told = [f"the same bytes as {name}" for name in names]
        if label is not None:
            told = [f"{text}, there labelled {self._names[named]}" for text, named in zip(told, label[other[at]].tolist(), strict=True)]
        self._parts.append((at, self._column(code, at), told))

    def table(self, ids: Any, labels: Any) -> "pa.Table":
        """The columns of `contracts.Reject`, sorted by key."""
        import pyarrow as pa

        at = np.concatenate([part[0] for part in self._parts])
        order = np.argsort(at, kind="stable")
        code, detail = (pa.concat_arrays([pa.array(part[n], pa.string()) for part in self._parts]).take(_arrow(order)) for n in (1, 2))
        rows = _arrow(at[order])
        columns = {"key": self._keys.take(rows), "code": code, "detail": detail, "label": labels.take(rows), "image_id": ids.take(rows)}
        return pa.table({name: _whole(column) for name, column in columns.items()})

    def _column(self, value: Any, at: NDArray[np.int64]) -> Any:
        if isinstance(value, str):
            return [value] * len(at)
        return _whole(value.take(_arrow(at)))


def _manifest(facts: "pa.Table", labels: "pa.Table", accepted: NDArray[np.bool_], row_of: NDArray[np.int64], names: Any) -> "pa.Table":
    import pyarrow as pa

    at = np.flatnonzero(accepted)
    chosen = facts.take(_arrow(at))
    columns = {name: chosen[name] for name in _COLUMNS if name not in ("label", "attributes")}
    columns["label"] = names.take(_arrow(at))
    columns["attributes"] = labels["attributes"].take(_arrow(row_of[at])) if labels.num_rows else pa.array([], pa.string())
    types = {name: pa.string() if name in _TEXT else pa.int64() for name in columns}
    return pa.table({name: _whole(columns[name].cast(types[name])) for name in _COLUMNS})


def _whole(column: Any) -> Any:
    return column.combine_chunks() if hasattr(column, "combine_chunks") else column
