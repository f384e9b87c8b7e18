"""Quarantine from end to end: a damaged photo is kept, listed, repaired, released, and taken in; nothing else changes."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from pipeline_project.ingest.decoding.pool import TRANSIENT
from pipeline_project.ingest.erasure import tombstone_key
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import _sound, validate_images
from pipeline_project.ingest.quarantine import QUARANTINE, QuarantineError, list_quarantine, reason_of, release
from pipeline_project.ingest.repairs import REPAIRED, Repair, repair_records, repairs, write_repair
from pipeline_project.stage import Picture, StageContext
from pipeline_project.storage import Artifact
from pipeline_project.tables import parquet_to_table, table_to_parquet

Put = Callable[[str, bytes | str], Path]
Photo = Callable[..., bytes]
Open = Callable[..., StageContext]
ONE, TWO = date(2026, 11, 1), date(2026, 11, 2)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def lay(put: Put, photo: Photo, damaged: bytes, days: tuple[date, ...] = (ONE,)) -> None:
    """Two good photos and a damaged one on each day."""
    for n, day in enumerate(days):
        for number in range(2):
            put(f"{day}/{number}.jpg", photo(10 * n + number))
        put(f"{day}/bad.jpg", damaged)
        put(f"{day}/labels.csv", "image,label,title\n0.jpg,toys,a\n1.jpg,home,b\nbad.jpg,toys,c\n")


def validate(context: StageContext, day: date = ONE) -> Artifact:
    take_inventory(context, day)
    return validate_images(context, day).artifact


def rows(manifest: Artifact, file: str = "manifest.parquet") -> dict[str, dict[str, object]]:
    return {row["key"]: row for row in parquet_to_table(manifest.read(file)).to_pylist()}


@pytest.fixture
def damaged(photo: Photo) -> bytes:
    whole = photo(5, width=200, height=200)
    return whole[: len(whole) // 2]


@pytest.fixture
def repaired(tmp_path: Path, photo: Photo) -> Path:
    path = tmp_path / "repaired.jpg"
    path.write_bytes(photo(6, width=64, height=48))
    return path


def test_release_from_end_to_end(context: StageContext, put: Put, photo: Photo, damaged: bytes, repaired: Path) -> None:
    lay(put, photo, damaged, (ONE, TWO))
    before = {day: validate(context, day) for day in (ONE, TWO)}
    [one, two] = list_quarantine(context)
    assert (one.day, one.reject.key, one.reject.code, one.kept, one.repair) == (ONE, f"{ONE}/bad.jpg", "corrupt", True, None)
    assert list_quarantine(context, TWO) == [two]
    assert context.artifacts.bytes.read(f"{QUARANTINE}/{sha(damaged)}/bytes") == damaged
    reason = reason_of(context.artifacts.bytes, sha(damaged))
    assert reason is not None
    assert (reason.keys, reason.days) == ([f"{ONE}/bad.jpg", f"{TWO}/bad.jpg"], [ONE, TWO])

    repair = release(context, sha(damaged)[:12], repaired, "the end was cut off; from the photographer's backup", "Ada")
    assert repair.days == [ONE, TWO]
    assert repairs(context.artifacts.bytes) == {sha(damaged): repair.key}
    assert context.artifacts.bytes.read(repair.key) == repaired.read_bytes()
    assert list_quarantine(context, ONE)[0].repair == repair

    after = validate(context)
    assert after.digest != before[ONE].digest
    accepted = rows(after)[f"{ONE}/bad.jpg"]
    assert (accepted["image_id"], accepted["width"], accepted["label"]) == (sha(repaired.read_bytes()), 64, "toys")
    assert "repaired" in str(accepted["notes"])
    assert rows(after, "rejects.parquet") == {}
    assert list_quarantine(context, ONE) == []
    assert validate(context).digest == after.digest
    assert validate_images(context, ONE).metadata["reused"] is True
    cold = validate_images(replace(context, recompute=True), ONE).artifact
    assert cold.digest == after.digest
    assert rows(before[TWO], "rejects.parquet").keys() == {f"{TWO}/bad.jpg"}, "the other day waits to be materialized"


def test_second_repair_takes_the_place_of_the_first(
    context: StageContext, put: Put, photo: Photo, damaged: bytes, repaired: Path, tmp_path: Path
) -> None:
    lay(put, photo, damaged)
    validate(context)
    release(context, sha(damaged), repaired, "first", "Ada")
    validate(context)
    better = tmp_path / "better.jpg"
    better.write_bytes(photo(7, width=80, height=60))
    repair = release(context, sha(damaged), better, "better", "Ada")
    assert repair.days == [ONE], "known from the first, though nothing is rejected now"
    stored = context.artifacts.bytes.list(f"{REPAIRED}/")
    assert stored == sorted([repair.key, f"{REPAIRED}/{sha(damaged)}/record.json"])
    assert rows(validate(context))[f"{ONE}/bad.jpg"]["image_id"] == sha(better.read_bytes())


def test_what_cannot_be_released(context: StageContext, put: Put, photo: Photo, damaged: bytes, repaired: Path, tmp_path: Path) -> None:
    lay(put, photo, damaged)
    validate(context)
    same, cut = tmp_path / "same.jpg", tmp_path / "cut.jpg"
    same.write_bytes(photo(0))
    cut.write_bytes(damaged[:-1])
    for image_id, file, reason, who, said in [
        ("0" * 64, repaired, "r", "Ada", "No image 0000.* is in quarantine. List what is there"),
        (sha(photo(0)), repaired, "r", "Ada", "No image .* is in quarantine"),
        ("", repaired, "r", "Ada", "No image"),
        (sha(damaged), cut, "r", "Ada", "cannot be used either: corrupt"),
        (sha(damaged), tmp_path / "none.jpg", "r", "Ada", "cannot be read: No such file"),
        (sha(damaged), repaired, " ", "Ada", "needs a reason"),
        (sha(damaged), repaired, "r", "", "the name of whoever vouches"),
    ]:
        with pytest.raises(QuarantineError, match=said):
            release(context, image_id, file, reason, who)
    assert repair_records(context.artifacts.bytes) == []
    assert context.artifacts.bytes.list(f"{REPAIRED}/") == []


def test_image_with_the_wrong_label_is_no_case_for_a_repair(context: StageContext, put: Put, photo: Photo, tmp_path: Path) -> None:
    put(f"{ONE}/a.jpg", photo(1))
    put(f"{ONE}/labels.csv", "image,label\na.jpg,garden\n")
    validate(context)
    (tmp_path / "a.jpg").write_bytes(photo(1))
    with pytest.raises(QuarantineError, match=r"is the very image in quarantine\. If its label was wrong, correct labels\.csv"):
        release(context, sha(photo(1)), tmp_path / "a.jpg", "r", "Ada")


def test_erased_images_stay_away(context: StageContext, put: Put, photo: Photo, damaged: bytes, repaired: Path) -> None:
    lay(put, photo, damaged)
    first = validate(context)
    store = context.artifacts.bytes
    for image_id in (sha(photo(0)), sha(damaged)):
        store.write_json(tombstone_key(image_id), {"image_id": image_id})
    for key in store.list(f"{QUARANTINE}/{sha(damaged)}/"):
        store.delete(key)
    with pytest.raises(QuarantineError, match="was erased and must not come back"):
        release(context, sha(damaged), repaired, "r", "Ada")
    after = validate(context)
    assert after.digest != first.digest
    assert {key: row["code"] for key, row in rows(after, "rejects.parquet").items()} == dict.fromkeys(
        [f"{ONE}/0.jpg", f"{ONE}/bad.jpg"], "erased"
    )
    assert after.json("verdict.json")["rejected"] == 0
    assert store.list(f"{QUARANTINE}/") == [], "nothing of an erased image is kept again"
    assert validate_images(context, ONE).metadata["reused"] is True


def test_files_above_the_limit_are_not_copied(open_context: Open, put: Put, photo: Photo) -> None:
    context = open_context(INGEST__MAX_BYTES="3000")
    put(f"{ONE}/large.jpg", photo(1, width=200, height=200))
    put(f"{ONE}/small.jpg", photo(2))
    put(f"{ONE}/labels.csv", "image,label\nlarge.jpg,toys\nsmall.jpg,toys\n")
    validate(context)
    [quarantined] = list_quarantine(context)
    assert (quarantined.reject.code, quarantined.reject.image_id, quarantined.kept) == ("too_many_bytes", None, False)
    [key] = context.artifacts.bytes.list(f"{QUARANTINE}/")
    reason = context.artifacts.bytes.read_json(key)
    assert (reason["keys"], reason["kept"]) == ([f"{ONE}/large.jpg"], False)


def test_contact_sheet_shows_what_can_be_made_out(context: StageContext, put: Put, photo: Photo) -> None:
    """The upper half of a cut photo of one colour, and a grey tile for what is no image."""
    buffer = io.BytesIO()
    Image.new("RGB", (256, 256), (200, 30, 30)).save(buffer, "JPEG", quality=100)
    lay(put, photo, buffer.getvalue()[: len(buffer.getvalue()) * 3 // 4])
    put(f"{ONE}/0.jpg", "404 Not Found")
    take_inventory(context, ONE)
    result = validate_images(context, ONE)
    assert result.metadata["reasons"] == {"corrupt": 1, "not_an_image": 1}
    picture = result.metadata["rejected_images"]
    assert isinstance(picture, Picture)
    sheet = Image.open(io.BytesIO(picture.data)).convert("RGB")
    red, grey = sheet.getpixel((115, 5)), sheet.getpixel((115, 66 + 32))
    assert isinstance(red, tuple)
    assert isinstance(grey, tuple)
    assert red[0] > 150
    assert red[1] < 80
    assert all(abs(value - 160) < 12 for value in grey)


def test_day_without_rejects_has_no_contact_sheet(context: StageContext, put: Put, photo: Photo) -> None:
    put(f"{ONE}/a.jpg", photo(1))
    put(f"{ONE}/b.jpg", photo(1))
    put(f"{ONE}/labels.csv", "image,label\na.jpg,toys\nb.jpg,toys\n")
    take_inventory(context, ONE)
    assert "rejected_images" not in validate_images(context, ONE).metadata
    assert context.artifacts.bytes.list("restricted/") == []


def test_older_projects_quarantine_is_still_read(context: StageContext) -> None:
    image_id = "ab" * 32
    old = {"key": "a.jpg", "code": "corrupt", "detail": "cut", "label": None, "image_id": image_id, "keys": ["a.jpg", "b.jpg"]}
    context.artifacts.bytes.write_json(f"processed-data/quarantine/{image_id}/reason.json", old)
    reason = reason_of(context.artifacts.bytes, image_id)
    assert reason is not None
    assert (reason.code, reason.keys) == ("corrupt", ["a.jpg", "b.jpg"])
    assert reason_of(context.artifacts.bytes, "cd" * 32) is None


def test_half_written_repair_counts_for_nothing(context: StageContext) -> None:
    """Killed between the bytes and the record."""
    store, data = context.artifacts.bytes, b"repaired"
    repair = Repair(
        original="a" * 64, repaired=sha(data), who="Ada", when=datetime(2026, 11, 1, tzinfo=UTC), reason="cut", days=[ONE]
    )  # fmt: skip
    store.write(repair.key, data)
    assert repairs(store) == {}
    write_repair(store, repair, data)
    assert repairs(store) == {"a" * 64: repair.key}
    store.write(f"{REPAIRED}/{'a' * 64}/record.json", b"{")
    with pytest.raises(ValueError, match=r"record\.json in .* is damaged"):
        repairs(store)


def test_transient_codes_are_never_reused(context: StageContext, put: Put, photo: Photo, damaged: bytes) -> None:
    """A decoder that was killed for its time is given another chance by the next run, so the stored manifest is not sound."""
    lay(put, photo, damaged)
    manifest = validate(context)
    assert _sound(context, manifest)
    table = parquet_to_table(manifest.read("rejects.parquet")).to_pylist()
    for code in TRANSIENT:
        payload = {file: manifest.read(file) for file in manifest.files}
        payload["rejects.parquet"] = table_to_parquet(pa.Table.from_pylist([{**table[0], "code": code}]))
        other = context.artifacts.publish("validated_manifest", payload, partition="2026-12-01", info=manifest.info)
        assert not _sound(context, other)
