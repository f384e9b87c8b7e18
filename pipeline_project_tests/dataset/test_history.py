"""`pipeline data list` and `diff`: what versions there are, and what differs between two of them."""

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline_project.contracts import SPLITS
from pipeline_project.dataset.diff import DatasetDiff, diff_versions, render_diff
from pipeline_project.dataset.history import find_version, list_versions, render_versions, versions_with
from pipeline_project.dataset.reading import load_version
from pipeline_project.dataset.versions import make_dataset_version
from pipeline_project.digests import payload_digest, sha256_bytes
from pipeline_project.ingest.erasure import tombstone_key
from pipeline_project.storage import Artifact, ArtifactMissingError
from pipeline_project.tables import parquet_to_frame

ONE, TWO = "2026-11-01", "2026-11-02"


def placed(artifact: Artifact) -> dict[str, tuple[str, str]]:
    classes, frame = load_version(artifact).classes, parquet_to_frame(artifact.read("splits.parquet"))
    return {i: (classes[c], s) for i, c, s in zip(frame["image_id"], frame["class_index"], frame["split"], strict=True)}


def test_versions_are_listed_the_newest_first_with_their_models(shelf: Any) -> None:
    assert list_versions(shelf.context) == []
    assert "Materialize dataset_splits first" in render_versions([])
    shelf.good_day(ONE, 0, 40)
    first = make_dataset_version(shelf.context).artifact
    shelf.good_day(TWO, 40, 20)
    second = make_dataset_version(shelf.context).artifact
    model = shelf.context.artifacts.publish("trained_model", {"m": b"1"}, info={"dataset": first.digest})
    shelf.context.artifacts.publish("trained_model", {"m": b"2"}, info={"dataset": "0" * 64})
    newest, oldest = list_versions(shelf.context)
    assert (newest.digest, newest.newest, newest.parent, newest.days) == (second.digest, True, first.digest, [ONE, TWO])
    assert (oldest.digest, oldest.newest, oldest.parent, oldest.models) == (first.digest, False, None, [model.digest])
    assert oldest.images == {"train": 28, "validation": 6, "test": 6}
    text = render_versions([newest, oldest])
    lines = text.splitlines()
    assert lines[1].startswith(f"{second.digest[:12]} *")
    assert model.digest[:12] in lines[2]
    assert len({line.index("20") for line in lines[1:3]}) == 1  # columns are aligned


def test_a_version_is_found_by_the_beginning_of_its_digest(shelf: Any) -> None:
    with pytest.raises(ArtifactMissingError, match="Materialize dataset_splits first"):
        find_version(shelf.context, "newest")
    shelf.good_day(ONE, 0, 40)
    first = make_dataset_version(shelf.context).artifact
    assert find_version(shelf.context, "newest").digest == first.digest
    assert find_version(shelf.context, first.digest[:4].upper()).digest == first.digest
    for strange in ("", "abc", first.digest[:3], "zzzz", first.digest + "0"):
        with pytest.raises(ValueError, match="pipeline data list"):
            find_version(shelf.context, strange)


def test_a_beginning_of_several_digests_names_none(shelf: Any) -> None:
    shelf.good_day(ONE, 0, 40)
    version = make_dataset_version(shelf.context).artifact
    payload = {file: version.read(file) for file in version.files}
    seen: dict[str, int] = {}
    for n in itertools.count():  # two that begin alike
        digest = payload_digest({**version.files, "n": sha256_bytes(b"%d" % n)})
        if digest[:4] in seen:
            break
        seen[digest[:4]] = n
    for number in (seen[digest[:4]], n):
        shelf.context.artifacts.publish("dataset_splits", {**payload, "n": b"%d" % number})
    with pytest.raises(ValueError, match="Give more digits"):
        find_version(shelf.context, digest[:4])
    assert find_version(shelf.context, digest[:24]).digest == digest


def test_versions_with_an_image(shelf: Any) -> None:
    rows = shelf.good_day(ONE, 0, 40)
    first = make_dataset_version(shelf.context).artifact
    added = shelf.good_day(TWO, 40, 20)
    second = make_dataset_version(shelf.context).artifact
    assert [e.digest for e in versions_with(shelf.context, [rows[0].image_id])] == [second.digest, first.digest]
    assert [e.digest for e in versions_with(shelf.context, [added[0].image_id])] == [second.digest]
    assert versions_with(shelf.context, ["0" * 64]) == []


def diff_of(shelf: Any, before: Artifact, after: Artifact) -> DatasetDiff:
    """The difference, held against what a naive comparison gives."""
    diff = diff_versions(shelf.context, before.digest[:24], after.digest[:24])
    old, new = placed(before), placed(after)
    both = old.keys() & new.keys()
    assert diff.counts == {
        "added": len(new.keys() - old.keys()),
        "removed": len(old.keys() - new.keys()),
        "moved": sum(old[i][1] != new[i][1] for i in both),
        "relabelled": sum(old[i][0] != new[i][0] for i in both),
    }
    assert sum(diff.removed_because.values()) == diff.counts["removed"]
    untold = {*old.values(), *new.values()}
    for c in diff.by_class_and_split:
        assert c.before == Counter(old.values())[c.label, c.split]
        assert c.after == Counter(new.values())[c.label, c.split] == c.before + c.added - c.removed
        untold.discard((c.label, c.split))
    assert not untold
    for kind, examples in diff.examples.items():
        assert len(examples) == min(diff.counts[kind], 10)
        for e in examples:
            assert e.before == (" in ".join(old[e.image_id]) if e.image_id in old else None)
            assert e.after == (" in ".join(new[e.image_id]) if e.image_id in new else None)
    assert DatasetDiff.model_validate_json(diff.model_dump_json()) == diff
    return diff


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_diff_is_what_comparing_row_by_row_gives(shelf: Any, data: st.DataObject) -> None:
    numbers = st.sets(st.integers(0, 60), min_size=24)
    versions = []
    for _ in range(2):
        for day, start in ((ONE, 0), (TWO, 1000)):
            chosen, flipped = data.draw(numbers), data.draw(st.sets(st.integers(0, 5)))
            shelf.day(day, [shelf.row(start + n, "ab"[(n + (n in flipped)) % 2]) for n in sorted(chosen)])
        versions.append(make_dataset_version(shelf.context).artifact)
    diff_of(shelf, *versions)
    assert diff_of(shelf, versions[0], versions[0]).equal


def test_a_diff_tells_days_reasons_and_examples(shelf: Any) -> None:
    rows = shelf.good_day(ONE, 0, 40)
    two = shelf.good_day(TWO, 40, 20)
    first = make_dataset_version(shelf.context).artifact
    shelf.context.artifacts.bytes.write_json(tombstone_key(rows[4].image_id), {})
    relabelled = rows[0].model_copy(update={"label": "b"})
    shelf.day(ONE, [relabelled, *rows[2:], shelf.row(900, "a")])  # the second is gone
    shelf.day(TWO, two, reasons=["a bad day"])
    second = make_dataset_version(shelf.context).artifact
    diff = diff_of(shelf, first, second)
    assert (diff.days_added, diff.days_removed, diff.days_changed) == ([], [TWO], [ONE])
    assert diff.removed_because == {"erased": 1, "its day was left out": 20, "no longer accepted on its day": 1}
    assert [(e.image_id, e.key) for e in diff.examples["relabelled"]] == [(rows[0].image_id, "k0.jpg")]
    text = render_diff(diff)
    assert "images 1 added, 22 removed, 0 moved, 1 relabelled" in text
    assert f"days removed: {TWO}" in text
    assert "removed (the first 10, 12 more)" in text
    assert f"a in {placed(first)[rows[0].image_id][1]} -> b in {placed(second)[rows[0].image_id][1]}" in text
    assert "the same images, labels and splits" in render_diff(diff_of(shelf, second, second))
    assert set(SPLITS) >= {c.split for c in diff.by_class_and_split}
