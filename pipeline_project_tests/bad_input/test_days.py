"""Days and folders with too little: an empty day, one class only, too few images for the splits or the folds."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline_project.dataset.versions import make_dataset_version
from pipeline_project.ingest.arrivals import changed_days
from pipeline_project.local.project import ProjectError, describe_folder, own_project, require_enough_images
from pipeline_project.settings import load_settings
from pipeline_project.training.cross_validation import _fold_of
from pipeline_project_tests.bad_input.conftest import INGEST, Shop, photo

GOOD, EMPTY, ONLY_LABELS = "2026-01-01", "2026-01-02", "2026-01-03"


def folder(root: Path, labels: dict[str, str], *, column: str = "image", missing: int = 0) -> Path:
    """A flat folder with a photo for each label; the last `missing` photos are not there."""
    root.mkdir(parents=True)
    for number, name in enumerate(list(labels)[: len(labels) - missing]):
        (root / name).write_bytes(photo(number))
    (root / "labels.csv").write_text("\n".join([f"{column},label", *(f"{name},{label}" for name, label in labels.items())]) + "\n")
    return root


def many(**counts: int) -> dict[str, str]:
    return {f"{label}-{n}.jpg": label for label, count in counts.items() for n in range(count)}


# --- an empty day ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_empty_day(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.day(GOOD, 20)
    shop.put(f"{ONLY_LABELS}/labels.csv", "image,label\na.jpg,toys\n")
    good, empty, only_labels = shop.materialize([INGEST], GOOD, EMPTY, ONLY_LABELS)
    assert good.success
    assert empty.success, "a quiet Sunday is no failure"
    assert list(empty.made) == INGEST
    assert empty.failed() == {}
    for check in ("file_format", "labels_schema", "missing_values", "reject_rate"):
        assert empty.says(check) == f"no images arrived on {EMPTY}; the day is left out of training."
    assert empty.made["validated_manifest"]["verdict"] == "no images arrived"
    assert empty.made["validated_manifest"]["day_may_train"] is False
    assert empty.made["image_pack"]["images"] == empty.made["image_features"]["images"] == 0

    assert not only_labels.success, "labels came, their images did not"
    said = only_labels.failed()["missing_values"]
    assert said.startswith(f"0 of 0 images lack a label; 1 label rows name no image (first {ONLY_LABELS}/a.jpg); at most 5.0% may.")

    splits, profile = shop.materialize([["dataset_splits"], ["data_profile"]])
    assert splits.success
    assert profile.success
    assert splits.made["dataset_splits"]["left_out_days"] == {EMPTY: "no images arrived", ONLY_LABELS: said.rstrip(".")}
    asked = [day.isoformat() for day in changed_days(shop.context())]
    assert asked == [ONLY_LABELS], "an empty day is done; one that failed is asked for again"


@pytest.mark.slow
def test_only_empty_days(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    [empty, splits] = shop.materialize([INGEST, ["dataset_splits"]], EMPTY)
    assert empty.success
    [said] = splits.failures.values()
    assert f"No day can be used for training: {EMPTY}: no images arrived. Materialize" in said


# --- one class, too few images: in seconds, before anything is started ----------------------------------------------------------


def test_one_class_only(tmp_path: Path) -> None:
    shop = folder(tmp_path / "shop", many(mugs=8))
    with pytest.raises(ProjectError) as caught:
        describe_folder(shop)
    assert str(caught.value) == (
        f"{shop}: the labels name 1 class (mugs); at least 2 are needed. Add labelled images of another class to labels.csv."
    )


def test_one_class_written_in_two_ways(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"'Mugs' and 'mugs' differ only in upper and lower case.*Write them alike in labels\.csv"):
        describe_folder(folder(tmp_path / "shop", many(mugs=8, Mugs=8)))


@pytest.mark.parametrize("command", [["--source", "{shop}"], ["--config", "mine.yaml"]])
def test_too_few_images_stop_the_demo_before_it_starts_anything(tmp_path: Path, command: list[str]) -> None:
    shop = folder(tmp_path / "shop", many(mugs=20, plates=7, bowls=5), missing=1)
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"extends": "sample", "name": "mine", "data": {"source": "shop", "classes": ["bowls", "mugs", "plates"]}})
    )
    program = [sys.executable, "-m", "pipeline_project.cli", "demo", *(part.format(shop=shop) for part in command)]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert (
        f"error: {shop}: too few images of bowls (4); every class needs at least 6, for 5 folds (cross_validation.folds) beside"
        in done.stderr
    )
    assert "1 images that labels.csv names are not there. Add images of these classes, or remove the classes." in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("run/*.json")), "no service was started"


def test_fewer_folds_need_fewer_images(tmp_path: Path) -> None:
    folder(tmp_path / "shop", many(mugs=20, bowls=3))
    (tmp_path / "mine.yaml").write_text("extends: sample\nname: mine\ncross_validation: {folds: 2}\n")
    _, settings = own_project(tmp_path, str(tmp_path / "shop"), tmp_path / "mine.yaml")
    require_enough_images(settings)


def test_columns_of_the_users_own_file_count(tmp_path: Path) -> None:
    folder(tmp_path / "shop", many(mugs=8, bowls=8), column="file")
    with pytest.raises(ProjectError, match=r"labels\.csv: line 1: no column image; there are file, label.*set data\.image_column"):
        own_project(tmp_path, str(tmp_path / "shop"), None)
    (tmp_path / "mine.yaml").write_text("extends: sample\nname: mine\ndata: {image_column: file}\n")
    _, settings = own_project(tmp_path, str(tmp_path / "shop"), tmp_path / "mine.yaml")
    assert settings.data.classes == ["bowls", "mugs"]
    require_enough_images(settings)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"nowhere: no such folder\. Name the folder that holds your images and their labels\.csv"):
        describe_folder(tmp_path / "nowhere")


def test_too_few_images_for_the_splits_name_classes_and_days(open_shop: Callable[..., Shop], tmp_path: Path) -> None:
    from pipeline_project.ingest.features import measure_images
    from pipeline_project.ingest.inventory import take_inventory
    from pipeline_project.ingest.manifest import validate_images
    from pipeline_project.ingest.pack import pack_images

    shop = open_shop()
    shop.day(GOOD, 10, labels=dict.fromkeys((1, 3, 5), "books"))
    shop.day(EMPTY, 10, labels=dict.fromkeys(range(9), ""))
    for day in (GOOD, EMPTY):
        for step in (take_inventory, validate_images, pack_images, measure_images):
            step(shop.context(), load_settings("sample", environment={}).data.start_date.fromisoformat(day))
    with pytest.raises(
        ValueError, match=r"Too few images for three splits: toys \(2\); every class needs at least 3\. Add images"
    ) as caught:
        make_dataset_version(shop.context())
    assert f"or take them out of data.classes. Days left out: {EMPTY}: 9 of 10 images rejected" in str(caught.value)


def test_too_few_images_for_the_folds() -> None:
    labels, groups = np.array([0] * 9 + [1] * 6), np.array([*"abcdefghi", *"jjkkll"])
    with pytest.raises(ValueError) as caught:
        _fold_of(labels, groups, 5, 0, ["books", "toys"])
    assert str(caught.value) == (
        "Too few images for 5 folds: toys (3); every class needs at least 5 in training and validation together "
        "(near duplicates count once). Add images of these classes, or lower cross_validation.folds."
    )


def test_class_whose_labels_the_settings_no_longer_name(open_shop: Callable[..., Shop]) -> None:
    from datetime import date

    from pipeline_project.ingest.features import measure_images
    from pipeline_project.ingest.inventory import take_inventory
    from pipeline_project.ingest.manifest import validate_images
    from pipeline_project.ingest.pack import pack_images

    shop = open_shop()
    shop.day(GOOD, 12)
    for step in (take_inventory, validate_images, pack_images, measure_images):
        step(shop.context(), date.fromisoformat(GOOD))
    fewer = open_shop(data={"classes": ["books", "garden"]})
    with pytest.raises(
        ValueError, match=rf"{GOOD}: its images are labelled toys, which data\.classes no longer names\. Materialize raw_images"
    ):
        make_dataset_version(fewer.context())
