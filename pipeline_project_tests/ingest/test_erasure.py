"""Erasing: nothing of an image stays where it can be reached, everything else stays as it was, and a kill at any moment changes neither."""

import io
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.ingest.checks import check_pack
from pipeline_project.ingest.erasing import Erasure, erase
from pipeline_project.ingest.erasure import erased, read_payload, read_tombstone, tombstone_key, verify_payload
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.ingest.packs import ErasedImagesError, open_pack
from pipeline_project.stage import StageContext
from pipeline_project.storage import ArtifactStore, FolderStore
from pipeline_project.tables import parquet_to_frame

DAY, NEXT = date(2026, 11, 1), date(2026, 11, 2)
Ingest = Callable[[StageContext, date], Any]
WHY = {"reason": "her wish", "who": "Ada"}


@pytest.fixture
def taken(open_context: Any, put: Any, photo: Any) -> StageContext:
    """Two days of nine photos each; the first of both days is the same one, and one of the first day is damaged."""
    context = open_context(DATA__CLASSES="[a, b]", INGEST__MAX_REJECT_RATE="0.5")
    for day, start in ((DAY, 0), (NEXT, 100)):
        for n in range(9):
            put(f"{day}/{n}.jpg", photo(0 if n == 0 else start + n))
        put(f"{day}/labels.csv", "image,label\n" + "".join(f"{n}.jpg,{'ab'[n % 2]}\n" for n in range(9)))
    put(f"{DAY}/8.jpg", photo(8)[:300])
    for day in (DAY, NEXT):
        ingest(context, day)
    return context


def ingest(context: StageContext, day: date) -> None:
    for step in (take_inventory, validate_images, pack_images):
        step(context, day)


def files(context: StageContext) -> dict[str, bytes]:
    root = context.settings.home / context.settings.store.root
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def rows_with(context: StageContext, pixels: np.ndarray) -> int:
    """How many stored rows are these very pixels."""
    found = 0
    for name, data in files(context).items():
        if name.endswith(".npy"):
            array = np.load(io.BytesIO(data))
            found += int((array == pixels).all(axis=(1, 2, 3)).sum())
    return found


def pixels_of(context: StageContext, day: date, image_id: str) -> np.ndarray:
    pack = open_pack(context.artifacts, context.artifacts.latest("image_pack", day.isoformat()))
    return np.array(pack.gather(np.array([pack.image_ids.index(image_id)]))[0])


def all_of_pack(context: StageContext, day: date) -> dict[str, bytes]:
    pack = open_pack(context.artifacts, context.artifacts.latest("image_pack", day.isoformat()))
    there = [row for row, image in enumerate(pack.image_ids) if image not in pack.erased]
    return {pack.image_ids[row]: pixels.tobytes() for row, pixels in zip(there, pack.gather(np.array(there)), strict=True)}


def test_an_image_is_erased_from_every_day_and_the_others_stay(taken: StageContext, photo: Any) -> None:
    image = sha256_bytes(photo(0))
    pixels = pixels_of(taken, DAY, image)
    others = {day: all_of_pack(taken, day) for day in (DAY, NEXT)}
    assert rows_with(taken, pixels) == 2
    done = erase(taken, [image], **WHY)
    assert (done.image_ids, done.days, done.unknown) == ([image], [str(DAY), str(NEXT)], [])
    assert done.keys == [f"{DAY}/0.jpg", f"{NEXT}/0.jpg"]
    assert done.removed["rows of pixels"] == 2
    assert erased(taken.artifacts.bytes) == {image}
    tombstone = read_tombstone(taken.artifacts.bytes, image)
    assert (tombstone.reason, tombstone.who) == ("her wish", "Ada")
    assert rows_with(taken, pixels) == 0
    for day in (DAY, NEXT):
        pack = open_pack(taken.artifacts, taken.artifacts.latest("image_pack", str(day)))
        assert pack.verify() == []
        assert all(outcome.passed for outcome in check_pack(taken, day))
        with pytest.raises(ErasedImagesError):
            pack.gather(np.array([pack.image_ids.index(image)]))
        assert all_of_pack(taken, day) == {i: p for i, p in others[day].items() if i != image}


def test_days_made_after_it_do_not_have_it_though_the_source_still_does(taken: StageContext, photo: Any) -> None:
    image = sha256_bytes(photo(0))
    pixels = pixels_of(taken, DAY, image)
    others = all_of_pack(taken, DAY)
    erase(taken, [image], **WHY)
    for day in (DAY, NEXT):
        ingest(taken, day)
        manifest = taken.artifacts.latest("validated_manifest", str(day))
        assert image not in parquet_to_frame(manifest.read("manifest.parquet"))["image_id"].tolist()
        rejects = parquet_to_frame(manifest.read("rejects.parquet")).set_index("image_id")
        assert rejects.loc[image, "code"] == "erased"
    assert rows_with(taken, pixels) == 0
    assert not [name for name, data in files(taken).items() if photo(0) in data]
    assert all_of_pack(taken, DAY) == {i: p for i, p in others.items() if i != image}
    assert erase(taken, [image], **WHY).days == []


def test_quarantined_bytes_go(taken: StageContext, photo: Any) -> None:
    damaged = photo(8)[:300]
    assert any(damaged in data for data in files(taken).values())
    done = erase(taken, [f"{DAY}/8.jpg"], **WHY)
    assert done.image_ids == [sha256_bytes(damaged)]
    assert done.removed["quarantined or repaired files"] == 2
    assert not any(damaged in data for data in files(taken).values())
    ingest(taken, DAY)
    assert not any(damaged in data for data in files(taken).values())


def test_an_image_may_be_erased_before_it_ever_comes(taken: StageContext, put: Any, photo: Any) -> None:
    done = erase(taken, [sha256_bytes(photo(500))], **WHY)
    assert done.unknown == [sha256_bytes(photo(500))]
    put(f"{DAY}/new.jpg", photo(500))
    put(f"{DAY}/labels.csv", "image,label\nnew.jpg,a\n1.jpg,a\n")
    ingest(taken, DAY)
    assert not any(photo(500) in data for data in files(taken).values())
    manifest = taken.artifacts.latest("validated_manifest", str(DAY))
    assert f"{DAY}/new.jpg" not in parquet_to_frame(manifest.read("manifest.parquet"))["key"].tolist()


def test_what_cannot_be_meant_is_refused_and_erases_nothing(taken: StageContext, photo: Any) -> None:
    before = files(taken)
    image = sha256_bytes(photo(1))
    for images, why in (
        ([], WHY),
        ([image], {"reason": " ", "who": "Ada"}),
        ([image], {"reason": "x", "who": ""}),
        ([image, "no-such.jpg"], WHY),
        ([image[:12]], WHY),
        (["../../etc/passwd"], WHY),
    ):
        with pytest.raises(ValueError, match="Say which images|Nothing was erased"):
            erase(taken, images, **why)
    assert files(taken) == before


def test_a_second_erasure_changes_nothing(taken: StageContext, photo: Any) -> None:
    erase(taken, [sha256_bytes(photo(1))], **WHY)
    before = files(taken)
    again = erase(taken, [sha256_bytes(photo(1))], reason="another", who="Bob")
    assert not again.removed
    assert files(taken) == before


def test_changed_bytes_are_told_from_erased_ones(taken: StageContext, photo: Any) -> None:
    done = erase(taken, [sha256_bytes(photo(1))], **WHY)
    (file,) = [name for name in done.files if str(DAY) in name]
    path = taken.settings.home / taken.settings.store.root / file
    assert sha256_bytes(path.read_bytes()) == done.files[file]
    _, name, partition, digest, _ = file.split("/")
    shard = taken.artifacts.version(name, digest, partition)
    verify_payload(shard)
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(ValueError, match="differ from those published"):
        read_payload(shard, "pixels.npy")
    pack = open_pack(taken.artifacts, taken.artifacts.latest("image_pack", str(DAY)))
    assert pack.verify()


def test_packs_that_held_their_pixels_themselves_are_erased_from(taken: StageContext) -> None:
    pixels = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3) + 1
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    ids = [sha256_bytes(b"%d" % n) for n in range(3)]
    rows = canonical_json({"manifest": "m", "size": 4, "image_ids": ids})
    old = taken.artifacts.publish("image_pack", {"pixels.npy": buffer.getvalue(), "rows.json": rows}, partition="2026-10-01")
    erase(taken, [ids[1]], **WHY)
    left = np.load(io.BytesIO(read_payload(old, "pixels.npy")))
    assert (left[[0, 2]] == pixels[[0, 2]]).all()
    assert not left[1].any()


class _Killed(BaseException):
    """The process ends here."""


class _DyingStore(FolderStore):
    """Dies before its n-th change."""

    left = 10**9

    def _change(self) -> None:
        type(self).left -= 1
        if type(self).left < 0:
            raise _Killed

    def write(self, key: str, data: bytes) -> None:
        self._change()
        super().write(key, data)

    def create(self, key: str, data: bytes) -> None:
        self._change()
        super().create(key, data)

    def delete(self, key: str) -> None:
        self._change()
        super().delete(key)


def _outcome(context: StageContext) -> Iterator[Any]:
    """What readers see, and every stored byte but the times in tombstones."""
    yield {name: data for name, data in files(context).items() if not name.startswith("processed-data/tombstones/")}
    yield sorted(erased(context.artifacts.bytes))


def test_killed_at_every_moment_it_is_completed_by_running_again(taken: StageContext, photo: Any, tmp_path: Path) -> None:
    """Each change of the store is atomic, so dying before each of them is every moment that counts."""
    images = [sha256_bytes(photo(0)), sha256_bytes(photo(3)), sha256_bytes(photo(8)[:300])]
    kept = tmp_path / "kept"
    root = taken.settings.home / taken.settings.store.root
    shutil.copytree(root, kept)

    def restore() -> None:
        shutil.rmtree(root)
        shutil.copytree(kept, root)

    erase(taken, images, **WHY)
    expected = list(_outcome(taken))
    for moment in range(1000):
        restore()
        dying = replace(taken, artifacts=ArtifactStore(_DyingStore(root)))
        _DyingStore.left = moment
        try:
            done: Erasure | None = erase(dying, images, **WHY)
        except _Killed:
            done = None
        finally:
            _DyingStore.left = 10**9
        if done is not None:
            break
        gone = erased(taken.artifacts.bytes)
        for day in (DAY, NEXT):  # whatever was done already, everything is readable, and what has a tombstone is not
            pack = open_pack(taken.artifacts, taken.artifacts.latest("image_pack", str(day)))
            assert pack.verify() == []
            assert not all_of_pack(taken, day).keys() & gone
        erase(taken, images, **WHY)
        assert list(_outcome(taken)) == expected
    assert moment > 8


def test_erasures_one_by_one_or_together_end_alike(taken: StageContext, photo: Any, tmp_path: Path) -> None:
    root, kept = taken.settings.home / taken.settings.store.root, tmp_path / "kept"
    shutil.copytree(root, kept)
    images = [sha256_bytes(photo(n)) for n in (0, 1, 2, 5)]
    ends = []
    for seed in range(3):
        shutil.rmtree(root)
        shutil.copytree(kept, root)
        order = random.Random(seed).sample(images, len(images))
        for image in [order] if seed == 0 else [[one] for one in order]:
            erase(taken, image, **WHY)
        ends.append({name: data for name, data in files(taken).items() if name.endswith(".npy")})
        assert all(open_pack(taken.artifacts, taken.artifacts.latest("image_pack", str(d))).verify() == [] for d in (DAY, NEXT))
    assert ends[0] == ends[1] == ends[2]


def test_a_damaged_tombstone_counts(taken: StageContext, photo: Any) -> None:
    image = sha256_bytes(photo(1))
    taken.artifacts.bytes.write(tombstone_key(image), b"not json")
    taken.artifacts.bytes.write("processed-data/tombstones/readme.txt", b"")
    assert erased(taken.artifacts.bytes) == {image}
    with pytest.raises(ValueError, match="Erase the image again"):
        read_tombstone(taken.artifacts.bytes, image)
    erase(taken, [image], **WHY)
    assert read_tombstone(taken.artifacts.bytes, image).who == "Ada"
