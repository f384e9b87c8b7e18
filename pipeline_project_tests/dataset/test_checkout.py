"""`pipeline data checkout`: a version as a folder again, byte for byte, or named as missing with the reason."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline_project.contracts import SPLITS
from pipeline_project.dataset.checkout import FOLDERS, checkout_version, render_checkout
from pipeline_project.dataset.reading import load_split
from pipeline_project.dataset.versions import make_dataset_version
from pipeline_project.digests import sha256_bytes
from pipeline_project.ingest.erasure import Tombstone, tombstone_key
from pipeline_project.ingest.sources import SourceUnreachableError
from pipeline_project.tables import parquet_to_frame

ONE, TWO = "2026-11-01", "2026-11-02"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def filled(open_shelf: Callable[..., Any], source: Path) -> Any:
    """Two good days whose originals (any bytes: nothing decodes them) are in the source."""
    shelf = open_shelf(DATA__SOURCE=str(source))
    for n, row in enumerate(shelf.good_day(ONE, 0, 40) + shelf.good_day(TWO, 40, 20)):
        (source / row.key).write_bytes(b"%d" % n)
    make_dataset_version(shelf.context)
    return shelf


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_version_is_rebuilt_byte_for_byte(filled: Any, tmp_path: Path) -> None:
    done = checkout_version(filled.context, "newest", tmp_path / "out")
    frame = parquet_to_frame(filled.context.artifacts.latest("dataset_splits").read("splits.parquet"))
    assert done.images == frame["split"].value_counts().to_dict()
    assert done.images.total() == 60
    assert done.missing == []
    for split in SPLITS:
        rows = rows_of(tmp_path / "out" / f"{FOLDERS[split]}_labels.csv")
        files = {row["image"]: (tmp_path / "out" / f"{FOLDERS[split]}_images" / row["image"]).read_bytes() for row in rows}
        assert {sha256_bytes(data) for data in files.values()} == set(frame.loc[frame["split"] == split, "image_id"])
        assert all(row["sha256"] == sha256_bytes(files[row["image"]]) for row in rows)
        read = load_split(filled.context.artifacts, split)
        classes = filled.context.settings.data.classes
        expected = {i: (classes[c], t) for i, c, t in zip(read.image_ids, read.class_index, read.attributes["brand_tier"], strict=True)}
        assert {row["sha256"]: (row["label"], row["brand_tier"]) for row in rows} == expected
    assert len(rows_of(tmp_path / "out" / "labels.csv")) == 60
    assert all((tmp_path / "out" / row["image"]).is_file() for row in rows_of(tmp_path / "out" / "labels.csv"))
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["digest"] == done.version
    again = checkout_version(filled.context, done.version[:12], tmp_path / "again")
    assert tree(again.folder) == tree(done.folder)
    assert sorted(p.name for p in tmp_path.iterdir() if "draft" in p.name) == []


def test_what_is_missing_is_named_with_the_reason(filled: Any, source: Path, tmp_path: Path) -> None:
    (source / "k1.jpg").unlink()
    (source / "k2.jpg").write_bytes(b"other bytes")
    tombstone = Tombstone(image_id=sha256_bytes(b"3"), reason="her wish", who="Ada", when="2026-11-20T00:00:00Z")
    filled.context.artifacts.bytes.write(tombstone_key(sha256_bytes(b"3")), tombstone.model_dump_json().encode())
    filled.context.artifacts.bytes.write_json(tombstone_key(sha256_bytes(b"4")), {})  # damaged: it counts all the same
    done = checkout_version(filled.context, "newest", tmp_path / "out")
    told = {row["key"]: (row["code"], row["detail"]) for row in rows_of(tmp_path / "out" / "missing.csv")}
    assert told == {
        "k1.jpg": ("gone", "it is no longer in the source"),
        "k2.jpg": ("changed", f"the source now has other bytes there ({sha256_bytes(b'other bytes')[:12]})"),
        "k3.jpg": ("erased", "erased on 2026-11-20 on the word of Ada: her wish"),
        "k4.jpg": ("erased", "erased; its tombstone is damaged"),
    }
    assert done.images.total() == 56
    assert b"3" not in tree(done.folder).values()
    text = render_checkout(done)
    assert "missing: 1 changed, such as k2.jpg" in text
    assert "--pixels" in text


def test_pixels_are_what_training_sees_and_need_no_originals(filled: Any, source: Path, tmp_path: Path) -> None:
    for path in source.iterdir():
        path.unlink()
    done = checkout_version(filled.context, "newest", tmp_path / "out", pixels=True)
    assert done.images.total() == 60
    read = load_split(filled.context.artifacts, "test")
    by_id = dict(zip(read.image_ids, read.images, strict=True))
    for row in rows_of(tmp_path / "out" / "test_labels.csv"):
        with Image.open(tmp_path / "out" / "test_images" / row["image"]) as image:
            assert image.format == "PNG"
            assert (np.asarray(image) == by_id[row["sha256"]]).all()


def test_an_older_version_is_rebuilt_as_it_was(filled: Any, tmp_path: Path) -> None:
    old = filled.context.artifacts.latest("dataset_splits").digest
    before = tree(checkout_version(filled.context, old, tmp_path / "before").folder)
    filled.day(TWO, [filled.row(n, "ab"[n % 2]) for n in range(70, 90)])
    assert make_dataset_version(filled.context).artifact.digest != old
    assert tree(checkout_version(filled.context, old, tmp_path / "after").folder) == before


@pytest.mark.parametrize(
    "keys",
    [
        ["../evil.jpg", "/etc/x.jpg", "a/../../b.jpg"],
        ["con.jpg", "a/aux", "b/name.", ".hidden.jpg", "-rf.jpg"],
        ["https://host/x.jpg", "x\n.jpg", "ü.jpg", "a" * 150 + ".jpg"],
        ["A.jpg", "a.jpg", "dir", "dir/x.jpg"],
    ],
)
def test_names_stay_inside_the_folder_and_are_distinct_on_every_system(open_shelf: Any, tmp_path: Path, keys: list[str]) -> None:
    shelf = open_shelf()
    rows = [shelf.row(n, "ab"[n % 2]) for n in range(40)]
    rows[: len(keys)] = [row.model_copy(update={"key": key}) for row, key in zip(rows, keys, strict=False)]
    shelf.day(ONE, rows)
    make_dataset_version(shelf.context)
    done = checkout_version(shelf.context, "newest", tmp_path / "deep" / "out", pixels=True)
    assert done.images.total() == 40
    listed = [row["image"] for row in rows_of(done.folder / "labels.csv")]
    assert len({name.lower() for name in listed}) == 40
    assert {(done.folder / name).resolve() for name in listed} <= {path.resolve() for path in done.folder.rglob("*.png")}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_taken_folder_is_refused_and_left_alone(filled: Any, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("mine")
    with pytest.raises(ValueError, match="is there already, and not empty. Name a new folder"):
        checkout_version(filled.context, "newest", taken)
    with pytest.raises(ValueError, match="is there already"):
        checkout_version(filled.context, "newest", taken / "mine")
    assert tree(taken) == {"mine": b"mine"}
    (tmp_path / "empty").mkdir()
    assert checkout_version(filled.context, "newest", tmp_path / "empty").images.total() == 60


def test_a_failed_checkout_leaves_nothing(filled: Any, source: Path, tmp_path: Path) -> None:
    (source / "k5.jpg").unlink()
    (source / "k5.jpg").mkdir()  # cannot be read
    with pytest.raises(SourceUnreachableError, match="k5"):
        checkout_version(filled.context, "newest", tmp_path / "out")
    shard = next(tmp_path.rglob("image_shard/**/pixels.npy"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\xaa")
    with pytest.raises(ValueError, match="is damaged"):
        checkout_version(filled.context, "newest", tmp_path / "out", pixels=True)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith((".out", "out"))]
