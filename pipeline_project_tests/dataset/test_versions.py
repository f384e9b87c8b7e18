"""Dataset versions: of the good days only, growing without moving, the same when nothing changed, and telling what was left out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipeline_project.contracts import SPLITS
from pipeline_project.dataset.checks import check_splits
from pipeline_project.dataset.reading import load_split, load_version
from pipeline_project.dataset.versions import make_dataset_version
from pipeline_project.digests import canonical_json
from pipeline_project.ingest.erasure import tombstone_key
from pipeline_project.storage import Artifact
from pipeline_project.tables import frame_to_parquet, parquet_to_frame

ONE, TWO, THREE = "2026-11-01", "2026-11-02", "2026-11-03"


def splits_of(artifact: Artifact) -> dict[str, str]:
    frame = parquet_to_frame(artifact.read("splits.parquet"))
    return dict(zip(frame["image_id"], frame["split"], strict=True))


def test_first_version_holds_every_image_of_good_days(shelf: Any) -> None:
    rows = shelf.good_day(ONE, 0, 40) + shelf.good_day(TWO, 40, 40)
    artifact = make_dataset_version(shelf.context).artifact
    version = load_version(artifact)
    assert splits_of(artifact).keys() == {row.image_id for row in rows}
    assert {split: sum(counts.values()) for split, counts in version.counts.items()} == {"train": 56, "validation": 12, "test": 12}
    assert version.parent is None
    assert list(version.days) == list(version.packs) == list(version.features) == [ONE, TWO]
    assert (version.left_out_days, version.left_out_images, version.largest_group) == ({}, {}, 1)
    assert all(outcome.passed for outcome in check_splits(shelf.context))


def test_unchanged_data_keep_the_digest(shelf: Any) -> None:
    shelf.good_day(ONE, 0, 40)
    first = make_dataset_version(shelf.context).artifact
    assert make_dataset_version(shelf.context).artifact.digest == first.digest
    shelf.good_day(TWO, 40, 20)
    second = make_dataset_version(shelf.context).artifact
    assert second.digest != first.digest
    assert load_version(second).parent == first.digest
    assert make_dataset_version(shelf.context).artifact.digest == second.digest


def test_version_grows_without_moving_an_image(shelf: Any) -> None:
    shelf.good_day(TWO, 0, 30)
    before = splits_of(make_dataset_version(shelf.context).artifact)
    shelf.good_day(ONE, 100, 30)
    shelf.good_day(THREE, 200, 30)
    after = splits_of(make_dataset_version(shelf.context).artifact)
    assert {image: after[image] for image in before} == before
    assert len(after) == 90
    assert all(outcome.passed for outcome in check_splits(shelf.context))


def test_identical_bytes_of_two_days_count_once_where_they_came_first(shelf: Any) -> None:
    rows = shelf.good_day(ONE, 0, 20)
    shelf.day(TWO, [rows[3], *(shelf.row(n, "a") for n in range(50, 60))])
    frame = parquet_to_frame(make_dataset_version(shelf.context).artifact.read("splits.parquet"))
    assert frame["image_id"].is_unique
    assert str(frame.set_index("image_id").loc[rows[3].image_id, "day"]) == ONE


def test_near_duplicates_stay_together_and_bridges_are_left_out(shelf: Any) -> None:
    pairs = [shelf.row(2 * n + side, "ab"[n % 2], hash_=(n + 1) * 0x0101010101010101 << 1 ^ side) for n in range(20) for side in (0, 1)]
    shelf.day(ONE, pairs)
    artifact = make_dataset_version(shelf.context).artifact
    frame = parquet_to_frame(artifact.read("splits.parquet"))
    assert frame.groupby("group")["split"].nunique().max() == 1
    assert frame.groupby("group").size().min() >= 2
    assert next(o for o in check_splits(shelf.context) if o.name == "no_leakage").passed


def test_bridge_between_two_splits_is_listed(shelf: Any) -> None:
    middle = shelf.row(0, "a", hash_=0)
    around = [shelf.row(n, "a", hash_=0b111111 << 6 * n) for n in range(1, 10)]  # each 6 bits from the middle, 12 from each other
    shelf.day(ONE, [middle, *around, *(shelf.row(n, "b") for n in range(20, 40))])
    homes = splits_of(make_dataset_version(shelf.context).artifact)
    other = next(n for n, row in enumerate(around, start=1) if homes[row.image_id] != homes[middle.image_id])
    bridge = shelf.row(99, "a", hash_=0b000111 << 6 * other)
    shelf.day(TWO, [bridge, shelf.row(100, "b")])
    artifact = make_dataset_version(shelf.context).artifact
    assert load_version(artifact).left_out_images.keys() == {bridge.image_id}
    assert {image: splits_of(artifact)[image] for image in homes} == homes
    assert {o.name for o in check_splits(shelf.context) if o.passed} >= {"no_leakage", "stability"}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda shelf, rows: shelf.manifest(TWO, rows, reasons=["3 of 9 images rejected"]), "3 of 9 images rejected"),
        (lambda shelf, rows: shelf.manifest(TWO, rows[1:]), "image_pack is missing or of an older manifest"),
        (lambda shelf, rows: shelf.pack(TWO, rows, shelf.manifest(TWO, rows), size=32), "image_pack has another image size"),
        (lambda shelf, rows: shelf.pack(TWO, rows[:-1], shelf.manifest(TWO, rows)), "image_features is missing or of an older pack"),
        (lambda shelf, rows: shelf.inventory(TWO, "changed"), "raw_images changed after the manifest was made"),
    ],
)
def test_bad_day_is_left_out_with_the_reason(shelf: Any, spoil: Callable[..., Any], reason: str) -> None:
    shelf.good_day(ONE, 0, 20)
    spoil(shelf, shelf.good_day(TWO, 20, 20))
    result = make_dataset_version(shelf.context)
    version = load_version(result.artifact)
    assert result.artifact.info["left_out_days"] == {TWO: reason}
    assert list(version.days) == [ONE]
    assert result.metadata["left_out_days"] == {TWO: reason}
    assert result.metadata["images"] == 20


def test_day_that_was_only_validated_is_left_out(shelf: Any) -> None:
    shelf.good_day(ONE, 0, 20)
    shelf.manifest(TWO, [shelf.row(50, "a")])
    result = make_dataset_version(shelf.context)
    assert result.artifact.info["left_out_days"] == {TWO: "image_pack is missing or of an older manifest"}


def test_no_good_day_says_which_and_why(shelf: Any) -> None:
    with pytest.raises(ValueError, match="No day can be used for training: no day was materialized"):
        make_dataset_version(shelf.context)
    shelf.day(ONE, [shelf.row(1, "a")], reasons=["no labels.csv found"])
    with pytest.raises(ValueError, match=f"{ONE}: no labels.csv found. Materialize validated_manifest and image_pack"):
        make_dataset_version(shelf.context)


def test_too_few_images_name_the_classes(shelf: Any) -> None:
    shelf.day(ONE, [*(shelf.row(n, "a") for n in range(20)), shelf.row(90, "b"), shelf.row(91, "b")])
    with pytest.raises(ValueError, match=r"Too few images for three splits: b \(2\); every class needs at least 3\. Add images"):
        make_dataset_version(shelf.context)
    assert shelf.context.artifacts.find("dataset_splits") is None


def test_checks_fail_on_an_absent_class_and_on_wrong_ratios(shelf: Any, open_shelf: Callable[..., Any]) -> None:
    near = [shelf.row(n, "b", hash_=n) for n in range(4)]  # one group: it can only lie in one split
    shelf.day(ONE, [*(shelf.row(n, "a") for n in range(20, 80)), *near])
    make_dataset_version(shelf.context)
    outcomes = {outcome.name: outcome for outcome in check_splits(shelf.context)}
    assert not outcomes["every_class"].passed
    assert "absent: b in " in outcomes["every_class"].detail
    assert outcomes["no_leakage"].passed
    other = open_shelf(DATASET__TRAIN="0.4", DATASET__VALIDATION="0.3", DATASET__TEST="0.3")
    assert not {outcome.name: outcome for outcome in check_splits(other.context)}["ratios"].passed


# --- reading --------------------------------------------------------------------------------------------------------------------


def test_rows_of_a_split_are_those_of_the_packs(shelf: Any) -> None:
    rows = {row.image_id: row for row in shelf.good_day(ONE, 0, 40) + shelf.good_day(TWO, 40, 40)}
    artifact = make_dataset_version(shelf.context).artifact
    assigned = splits_of(artifact)
    seen: list[str] = []
    for split in ("train", "validation", "test"):
        read = load_split(shelf.context.artifacts, split)
        assert read.images.shape == (len(read.image_ids), 16, 16, 3)
        for position, image_id in enumerate(read.image_ids):
            row = rows[image_id]
            assert assigned[image_id] == split
            assert (read.images[position] == row.size % 256).all()
            assert read.measurements["sharpness"][position] == row.size
            assert read.keys[position] == row.key
            assert read.class_index[position] == ["a", "b"].index(row.label)
            assert read.attributes["brand_tier"][position] == row.attributes["brand_tier"]
            assert read.groups[position] == image_id
        seen += read.image_ids
    assert sorted(seen) == sorted(rows)


def test_an_older_version_reads_as_it_was(shelf: Any) -> None:
    rows = shelf.good_day(ONE, 0, 40)
    old = make_dataset_version(shelf.context).artifact
    before = load_split(shelf.context.artifacts, "train", old)
    shelf.day(ONE, rows[5:])
    shelf.good_day(TWO, 40, 40)
    make_dataset_version(shelf.context)
    after = load_split(shelf.context.artifacts, "train", old)
    assert before.image_ids == after.image_ids
    assert (before.images == after.images).all()
    assert len(load_split(shelf.context.artifacts, "train").image_ids) > len(before.image_ids)


# --- days that change ------------------------------------------------------------------------------------------------------------


def test_same_bytes_under_two_labels_on_two_days_are_left_out_and_listed(shelf: Any) -> None:
    rows = shelf.good_day(ONE, 0, 20)
    first = make_dataset_version(shelf.context).artifact
    shelf.day(TWO, [rows[3].model_copy(update={"label": "a"}), *(shelf.row(n, "a") for n in range(50, 60))])
    assert rows[3].label == "b"
    result = make_dataset_version(shelf.context)
    assert load_version(result.artifact).left_out_images == {rows[3].image_id: f"the same bytes are labelled b on {ONE}, a on {TWO}"}
    assert result.metadata["labelled_differently_on_other_days"] == 1
    assert rows[3].image_id not in splits_of(result.artifact)
    shelf.day(TWO, [rows[3], *(shelf.row(n, "a") for n in range(50, 60))])  # corrected
    assert splits_of(make_dataset_version(shelf.context).artifact)[rows[3].image_id] == splits_of(first)[rows[3].image_id]


def test_a_corrected_label_stays_in_its_split(shelf: Any) -> None:
    rows = shelf.good_day(ONE, 0, 40)
    before = splits_of(make_dataset_version(shelf.context).artifact)
    shelf.day(ONE, [rows[0].model_copy(update={"label": "b"}), *rows[1:]])
    artifact = make_dataset_version(shelf.context).artifact
    assert splits_of(artifact) == before
    frame = parquet_to_frame(artifact.read("splits.parquet")).set_index("image_id")
    assert frame.loc[rows[0].image_id, "class_index"] == 1


def test_a_day_that_leaves_and_comes_back_finds_its_splits(shelf: Any) -> None:
    shelf.good_day(ONE, 0, 40)
    rows = shelf.good_day(TWO, 40, 40)
    before = splits_of(make_dataset_version(shelf.context).artifact)
    shelf.day(TWO, rows, reasons=["a bad day"])
    without = make_dataset_version(shelf.context)
    assert len(splits_of(without.artifact)) == 40
    assert without.metadata["departed_images"] == 40
    shelf.good_day(THREE, 100, 40)  # the shares fill up without it
    make_dataset_version(shelf.context)
    shelf.day(TWO, rows)
    back = make_dataset_version(shelf.context)
    assert {image: splits_of(back.artifact)[image] for image in before} == before
    assert back.metadata["departed_images"] == 0
    assert all(outcome.passed for outcome in check_splits(shelf.context))


def test_a_late_day_takes_the_first_arrival_of_an_image_and_leaves_its_split(shelf: Any) -> None:
    rows = shelf.good_day(TWO, 0, 40)
    before = splits_of(make_dataset_version(shelf.context).artifact)
    shelf.day(ONE, [rows[0], *(shelf.row(n, "ab"[n % 2]) for n in range(100, 120))])
    artifact = make_dataset_version(shelf.context).artifact
    frame = parquet_to_frame(artifact.read("splits.parquet")).set_index("image_id")
    assert str(frame.loc[rows[0].image_id, "day"]) == ONE
    assert frame.loc[rows[0].image_id, "split"] == before[rows[0].image_id]


def test_version_is_reproduced_from_manifests_and_its_parent(shelf: Any) -> None:
    shelf.good_day(ONE, 0, 40)
    first = make_dataset_version(shelf.context).artifact
    shelf.good_day(TWO, 40, 40)
    second = make_dataset_version(shelf.context).artifact
    shelf.context.artifacts.publish_again(first, first.info)  # as if the second had never been made
    context = replace(shelf.context, recompute=True)
    assert make_dataset_version(context).artifact.digest == second.digest


def test_an_erased_image_is_in_no_later_version_and_leaves_the_others_where_they_are(shelf: Any) -> None:
    rows = shelf.good_day(ONE, 0, 40)
    first = make_dataset_version(shelf.context).artifact
    before = splits_of(first)
    gone = rows[7].image_id
    shelf.context.artifacts.bytes.write_json(tombstone_key(gone), {})
    leak = next(o for o in check_splits(shelf.context) if o.name == "no_leakage")
    assert leak.metadata["erased_since"] == [gone]
    result = make_dataset_version(shelf.context)
    assert result.artifact.digest != first.digest
    assert result.metadata["erased_images"] == 1
    assert splits_of(result.artifact) == {image: split for image, split in before.items() if image != gone}
    for file in result.artifact.files:
        assert gone.encode() not in result.artifact.read(file)
    assert gone not in [image for split in SPLITS for image in load_split(shelf.context.artifacts, split).image_ids]
    old = [load_split(shelf.context.artifacts, split, first) for split in SPLITS]
    assert [image for read in old for image in read.erased] == [gone]
    assert sum(len(read.image_ids) for read in old) == 39


def test_every_failed_check_says_what_to_do(shelf: Any, open_shelf: Callable[..., Any]) -> None:
    near = [shelf.row(n, "b", hash_=n) for n in range(4)]
    shelf.day(ONE, [*(shelf.row(n, "a") for n in range(20, 80)), *near])
    first = make_dataset_version(shelf.context).artifact
    other = open_shelf(DATASET__TRAIN="0.4", DATASET__VALIDATION="0.3", DATASET__TEST="0.3")
    ratios, *_ = check_splits(other.context)
    assert not ratios.passed
    assert "4 images" in ratios.detail
    assert "near_duplicate_distance" in ratios.detail
    frame = parquet_to_frame(first.read("splits.parquet"))
    frame.loc[0, "split"] = "test" if frame.loc[0, "split"] != "test" else "train"  # by another hand
    frame.loc[1, "group"] = frame.loc[0, "group"]
    frame.loc[1, "split"] = "validation"
    version = load_version(first).model_copy(update={"parent": first.digest})
    payload = {"splits.parquet": frame_to_parquet(frame), "dataset.json": canonical_json(version.model_dump(mode="json"))}
    shelf.context.artifacts.publish("dataset_splits", payload)
    outcomes = {outcome.name: outcome for outcome in check_splits(shelf.context)}
    assert not outcomes["no_leakage"].passed
    assert not outcomes["stability"].passed
    assert not outcomes["every_class"].passed
    for name in ("no_leakage", "stability"):
        assert "Materialize dataset_splits again" in outcomes[name].detail
    assert "Add images" in outcomes["every_class"].detail
