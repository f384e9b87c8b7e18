"""Unusable images: told by the day's checks, their bytes kept in quarantine with the reason and every key under which they came."""

import hashlib
from collections.abc import Callable
from datetime import date

import pytest

from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.ingest.checks import check_features
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.ingest.packs import open_pack
from pipeline_project.ingest.quarantine import QUARANTINE, put_in_quarantine
from pipeline_project.ingest.sources import SourceUnreachableError, open_source
from pipeline_project.stage import StageContext
from pipeline_project.storage import FolderStore
from pipeline_project.tables import frame_to_parquet, parquet_to_frame, parquet_to_table
from pipeline_project_tests.bad_input.conftest import INGEST, Run, Shop, photo

COPY, OTHER_COPY, EMPTY, TRUNCATED, NO_IMAGE, TEXT, LONG, CLASSLESS = (f"2026-01-{n:02d}" for n in range(1, 9))
DAMAGED = photo(5, 200, 200)[:3000]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """One defect a day; 20 images, so that one bad image of them does not fail the day, unless both copies are bad."""
    made = Shop(tmp_path_factory.mktemp("images"))
    for day in (COPY, EMPTY, TRUNCATED, NO_IMAGE, TEXT, LONG):
        made.day(day, 20)
    made.day(OTHER_COPY, 20)
    made.put(f"{COPY}/7.jpg", (made.source / COPY / "3.jpg").read_bytes())
    made.put(f"{OTHER_COPY}/8.jpg", (made.source / OTHER_COPY / "3.jpg").read_bytes())
    made.put(f"{EMPTY}/3.jpg", b"")
    made.put(f"{TRUNCATED}/3.jpg", DAMAGED)
    made.put(f"{NO_IMAGE}/3.jpg", b"%PDF-1.4 and so on")
    made.put(f"{TEXT}/3.jpg", "404 Not Found")
    made.put(f"{LONG}/3.jpg", photo(5, 16 * 5000, 16, "PNG"))
    return made


@pytest.fixture(scope="module")
def runs(shop: Shop) -> dict[str, Run]:
    return {run.day: run for run in shop.materialize([INGEST], COPY, OTHER_COPY, EMPTY, TRUNCATED, NO_IMAGE, TEXT, LONG)}


def kept(shop: Shop, key: str) -> dict[str, object]:
    """The reason record of a rejected image, after its bytes were compared."""
    data = (shop.source / key).read_bytes()
    place, store = f"{QUARANTINE}/{hashlib.sha256(data).hexdigest()}", shop.context().artifacts.bytes
    assert store.read(f"{place}/bytes") == data
    reason: dict[str, object] = store.read_json(f"{place}/reason.json")
    return reason


def counted(shop: Shop, day: str) -> tuple[int, int]:
    manifest = shop.context().artifacts.latest("validated_manifest", day)
    return len(parquet_to_frame(manifest.read("manifest.parquet"))), len(parquet_to_frame(manifest.read("rejects.parquet")))


@pytest.mark.slow
def test_same_image_twice_with_the_same_label(shop: Shop, runs: dict[str, Run]) -> None:
    assert runs[COPY].success
    assert runs[COPY].failed() == {
        "duplicates": "1 exact copies inside the day; one of each is kept, none where their labels differ "
        f"(first {COPY}/7.jpg: the same bytes as {COPY}/3.jpg)."
    }
    assert counted(shop, COPY) == (19, 1)


@pytest.mark.slow
def test_same_image_twice_with_different_labels(shop: Shop, runs: dict[str, Run]) -> None:
    said = runs[OTHER_COPY].failed()["reject_rate"]
    assert "2 of 20 images rejected (2 conflicting_copy" in said
    assert f"{OTHER_COPY}/3.jpg: the same bytes as {OTHER_COPY}/8.jpg, there labelled books" in said
    assert "Replace or remove them in the source, then materialize the day again; their bytes are kept in quarantine." in said
    assert "image_pack" not in runs[OTHER_COPY].made
    reason = kept(shop, f"{OTHER_COPY}/3.jpg")
    assert reason["keys"] == [f"{OTHER_COPY}/3.jpg", f"{OTHER_COPY}/8.jpg"]
    rejects = parquet_to_frame(shop.context().artifacts.latest("validated_manifest", OTHER_COPY).read("rejects.parquet"))
    assert dict(zip(rejects["key"], rejects["detail"], strict=True)) == {
        f"{OTHER_COPY}/8.jpg": f"the same bytes as {OTHER_COPY}/3.jpg, there labelled toys",
        f"{OTHER_COPY}/3.jpg": f"the same bytes as {OTHER_COPY}/8.jpg, there labelled books",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("day", "code", "why", "announced"),
    [
        (EMPTY, "empty", "the file has no bytes", "0 bytes"),
        (TRUNCATED, "corrupt", "it starts like a JPEG, but cannot be decoded to its end", None),
        (NO_IMAGE, "not_an_image", "the first bytes are of no known image format", "no image"),
        (TEXT, "not_an_image", "the first bytes are of no known image format", "no image"),
    ],
    ids=["zero bytes", "truncated", "not an image", "a text file named .jpg"],
)
def test_unusable_image(shop: Shop, runs: dict[str, Run], day: str, code: str, why: str, announced: str | None) -> None:
    run = runs[day]
    assert run.success, "one in twenty does not fail a day"
    assert f"1 of 20 images rejected (1 {code}; the first is {day}/3.jpg: {why}" in run.says("reject_rate")
    if announced:
        assert (
            f"1 of 20 objects are not announced as JPEG, PNG, WEBP by their first bytes, the first is {day}/3.jpg ({announced})"
            in run.says("file_format")
        )
    reason = kept(shop, f"{day}/3.jpg")
    assert reason["keys"] == [f"{day}/3.jpg"]
    assert reason["code"] == code
    assert why in str(reason["detail"])
    assert counted(shop, day) == (19, 1)


@pytest.mark.slow
def test_very_long_image_is_in_range(runs: dict[str, Run]) -> None:
    assert runs[LONG].success
    assert runs[LONG].failed() == {}


def test_feature_out_of_range_names_it_and_the_limits(shop: Shop) -> None:
    import pandas as pd

    table = pd.DataFrame([{"image_id": "x", **dict.fromkeys(FEATURE_NAMES, 0.5), "contrast": 1.5}])
    shop.context().artifacts.publish("image_features", {"features.parquet": frame_to_parquet(table)}, partition="2026-01-31")
    [outcome] = [found for found in check_features(shop.context(), date(2026, 1, 31)) if found.name == "ranges"]
    assert not outcome.passed
    assert "2026-01-31: out of range: contrast (1.5 to 1.5; allowed 0 to 1). Materialize image_pack and image_features" in outcome.detail


# --- the source changes under the run -------------------------------------------------------------------------------------------

DAY = date(2026, 1, 9)


@pytest.fixture
def small(open_shop: Callable[..., Shop]) -> Shop:
    made = open_shop()
    made.day(DAY.isoformat(), 3)
    return made


def test_image_removed_after_the_inventory(small: Shop) -> None:
    take_inventory(small.context(), DAY)
    (small.source / f"{DAY}/1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{DAY}/1\.jpg: no longer in {small.source}\. Materialize raw_images of its day again"):
        validate_images(small.context(), DAY)


def test_image_changed_after_it_was_validated(small: Shop) -> None:
    """What is packed is what was validated: the source is not read again."""
    take_inventory(small.context(), DAY)
    manifest = validate_images(small.context(), DAY).artifact
    small.put(f"{DAY}/1.jpg", photo(77))
    pack = open_pack(small.context().artifacts, pack_images(small.context(), DAY).artifact)
    assert pack.image_ids == parquet_to_frame(manifest.read("manifest.parquet"))["image_id"].tolist()
    assert hashlib.sha256(photo(77)).hexdigest() not in pack.image_ids


def test_rejected_image_changed_while_it_was_validated(small: Shop) -> None:
    """Quarantine keeps the bytes that were looked at, or none."""
    small.put(f"{DAY}/1.jpg", DAMAGED)
    take_inventory(small.context(), DAY)
    validate_images(small.context(), DAY)
    rejects = parquet_to_table(small.context().artifacts.latest("validated_manifest", DAY.isoformat()).read("rejects.parquet"))
    store, settings = FolderStore(small.folder / "elsewhere"), small.settings()
    small.put(f"{DAY}/1.jpg", photo(78))
    with pytest.raises(ValueError, match=rf"{DAY}/1\.jpg: its bytes in .* changed while {DAY} was validated\. Materialize raw_images"):
        put_in_quarantine(open_source(settings), store, settings, DAY, rejects)
    assert store.list("") == []


def test_image_that_cannot_be_read(small: Shop) -> None:
    take_inventory(small.context(), DAY)
    (small.source / f"{DAY}/1.jpg").unlink()
    (small.source / f"{DAY}/1.jpg").mkdir()  # rights do not bind an administrator, a folder does
    with pytest.raises(SourceUnreachableError, match=r"1\.jpg cannot be read: is a directory\. Give this user the right to read it"):
        validate_images(small.context(), DAY)


def test_the_same_damaged_bytes_give_the_same_reason(small: Shop) -> None:
    small.put(f"{DAY}/1.jpg", b"\xff\xd8\xff and no more")
    small.put(f"{DAY}/2.jpg", b"\xff\xd8\xff and no more")
    take_inventory(small.context(), DAY)
    digests = {validate_images(small.context(), DAY).artifact.digest}
    small.context().artifacts.bytes.delete(f"processed-data/validated_manifest/{DAY}/head.json")
    digests.add(validate_images(StageContext.open(small.settings(), recompute=True), DAY).artifact.digest)
    assert len(digests) == 1
    assert kept(small, f"{DAY}/1.jpg")["keys"] == [f"{DAY}/1.jpg", f"{DAY}/2.jpg"]
    assert kept(small, f"{DAY}/1.jpg")["detail"] == "it starts like a JPEG, but what follows is none"
