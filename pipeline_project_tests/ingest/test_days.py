"""A day from the source to packed, measured images: what is accepted, what is refused with its bytes kept, what the verdict says."""

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline_project.imaging import FEATURE_NAMES, DecodeLimits, decode_image, measure, to_pixels
from pipeline_project.ingest.checks import check_features, check_manifest, check_pack, check_raw_images
from pipeline_project.ingest.features import measure_images
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.ingest.packs import open_pack
from pipeline_project.ingest.quarantine import QUARANTINE
from pipeline_project.sample.catalogue import CatalogueSummary, generate_catalogue
from pipeline_project.stage import CheckOutcome, StageContext
from pipeline_project.storage import Artifact, ArtifactMissingError
from pipeline_project.tables import expand_json, parquet_to_frame
from pipeline_project.trust.approvals import ApprovalRequiredError, record_approval
from pipeline_project.trust.signing import load_or_create_key

Put = Callable[[str, bytes | str], Path]
Photo = Callable[..., bytes]
Ingest = Callable[[StageContext, date], dict[str, Artifact]]
Open = Callable[..., StageContext]
ONE, TWO = date(2026, 11, 1), date(2026, 11, 2)


def failed(outcomes: list[CheckOutcome]) -> dict[str, str]:
    return {outcome.name: outcome.detail for outcome in outcomes if not outcome.passed}


def rejects(made: dict[str, Artifact]) -> dict[str, str]:
    frame = parquet_to_frame(made["validated_manifest"].read("rejects.parquet"))
    return dict(zip(frame["key"], frame["code"], strict=True))


def accepted(made: dict[str, Artifact]) -> list[str]:
    return list(parquet_to_frame(made["validated_manifest"].read("manifest.parquet"))["key"])


def found(context: StageContext, day: date, what: str) -> list[dict[str, str]]:
    """The rows that the day's inventory has of one defect."""
    summary = context.artifacts.latest("raw_images", str(day)).json("inventory.json")["found"][what]
    assert summary["count"] == len(summary["rows"])
    rows: list[dict[str, str]] = summary["rows"]
    return rows


def shop_day(put: Put, photo: Photo, count: int = 10, labels: dict[int, str] | None = None, extra: str = "") -> None:
    """`count` good photos of the first day, labelled toys unless `labels` says otherwise; a label None has no row."""
    lines = ["image,label"]
    for number in range(count):
        put(f"2026-11-01/{number}.jpg", photo(number))
        lines.append(f"{number}.jpg,{(labels or {}).get(number, 'toys')}")
    put("2026-11-01/labels.csv", "\n".join(lines) + f"\n{extra}")


# --- the sample catalogue, whole ------------------------------------------------------------------------------------------------


@pytest.fixture
def catalogue(source: Path) -> CatalogueSummary:
    return generate_catalogue(source, seed=3, days=[ONE, TWO], images_per_day=30)


def test_catalogue_is_taken_in_whole(context: StageContext, catalogue: CatalogueSummary, ingest_day: Ingest) -> None:
    days = [ingest_day(context, day) for day in (ONE, TWO)]
    refused = {key: code for made in days for key, code in rejects(made).items()}
    kept = [key for made in days for key in accepted(made)]
    assert set(catalogue.damaged) <= refused.keys()
    assert {refused[key] for key in catalogue.damaged} <= {"empty", "corrupt", "not_an_image"}
    assert len(kept) + len(refused) == catalogue.images == 60
    assert not set(kept) & refused.keys()
    for day, made in zip((ONE, TWO), days, strict=True):
        verdict = made["validated_manifest"].json("verdict.json")
        assert verdict["passed"], verdict
        assert (verdict["objects"], verdict["accepted"], verdict["rejected"]) == (30, len(accepted(made)), 30 - len(accepted(made)))
        for check in (check_raw_images, check_manifest, check_pack, check_features):
            assert set(failed(check(context, day))) <= {"duplicates"}


def test_rejected_bytes_are_kept_with_the_reason(context: StageContext, catalogue: CatalogueSummary, ingest_day: Ingest) -> None:
    ingest_day(context, ONE)
    ingest_day(context, TWO)
    store = context.artifacts.bytes
    for key in catalogue.damaged:
        data = (catalogue.folder / key).read_bytes()
        place = f"{QUARANTINE}/{hashlib.sha256(data).hexdigest()}"
        assert store.read(f"{place}/bytes") == data
        reason = store.read_json(f"{place}/reason.json")
        assert reason["key"] == key
        assert reason["detail"]


def test_second_run_gives_the_same_digests(
    context: StageContext, catalogue: CatalogueSummary, ingest_day: Ingest, open_context: Open
) -> None:
    first = {name: artifact.digest for name, artifact in ingest_day(context, ONE).items()}
    again = ingest_day(replace(open_context(TRAINING__THREADS="1"), recompute=True), ONE)
    assert {name: artifact.digest for name, artifact in again.items()} == first
    assert len(set(first.values())) == 4


def test_pack_and_measurements_are_those_of_the_photos(context: StageContext, catalogue: CatalogueSummary, ingest_day: Ingest) -> None:
    made = ingest_day(context, ONE)
    manifest = parquet_to_frame(made["validated_manifest"].read("manifest.parquet"))
    features = parquet_to_frame(made["image_features"].read("features.parquet"))
    pack, size = open_pack(context.artifacts, made["image_pack"]), context.settings.image.size
    pixels = pack.gather(np.arange(len(pack)))
    assert (pixels.shape, pixels.dtype) == ((len(manifest), size, size, 3), np.uint8)
    assert list(features["image_id"]) == list(manifest["image_id"]) == pack.image_ids
    limits = DecodeLimits.from_settings(context.settings.ingest)
    for row, record in manifest.iloc[::7].iterrows():
        data = (catalogue.folder / record["key"]).read_bytes()
        image = decode_image(data, limits, size)
        assert hashlib.sha256(data).hexdigest() == record["image_id"]
        assert record["label"] in record["attributes"] or record["label"] in context.settings.data.classes
        assert np.array_equal(pixels[row], to_pixels(image.pixels, size))
        expected = measure(pixels[row], image.width / image.height)
        assert {name: features.loc[row, name] for name in FEATURE_NAMES} == pytest.approx(expected)


def test_turned_photo_is_measured_upright_as_the_server_does(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo(1, width=64, height=32))).save(buffer, "JPEG", exif=exif)
    put("2026-11-01/turned.jpg", buffer.getvalue())
    put("2026-11-01/labels.csv", "image,label\nturned.jpg,toys\n")
    features = parquet_to_frame(ingest_day(context, ONE)["image_features"].read("features.parquet"))
    assert features["aspect"].tolist() == [-1.0]


# --- one defect at a time -------------------------------------------------------------------------------------------------------


def test_good_day_passes_every_check(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    shop_day(put, photo)
    made = ingest_day(context, ONE)
    outcomes = [o for check in (check_raw_images, check_manifest, check_pack, check_features) for o in check(context, ONE)]
    assert failed(outcomes) == {}
    assert {outcome.name for outcome in outcomes} == {
        "file_format", "labels_schema", "missing_values", "label_case", "conflicting_labels", "rows_without_image", "images_without_row",
        "schema", "reject_rate", "label_domain", "duplicates", "conversions", "personal_data", "day_drift",
        "row_count", "content_hash", "ranges", "feature_drift",
    }  # fmt: skip
    assert made["validated_manifest"].json("verdict.json")["reasons"] == []


def test_too_many_damaged_files_fail_the_day(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    shop_day(put, photo)
    put("2026-11-01/3.jpg", "404 Not Found")
    made = ingest_day(context, ONE)
    assert rejects(made) == {"2026-11-01/3.jpg": "not_an_image"}
    verdict = made["validated_manifest"].json("verdict.json")
    assert not verdict["passed"]
    assert verdict["reasons"] == ["1 of 10 images rejected (10.0%: 1 not_an_image); at most 5.0% are allowed"]
    assert set(failed(check_manifest(context, ONE))) == {"reject_rate"}
    assert "1 of 10 objects" in failed(check_raw_images(context, ONE))["file_format"]


def test_copies_are_kept_once_and_do_not_count_against_the_day(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    shop_day(put, photo)
    put("2026-11-01/7.jpg", photo(2))
    made = ingest_day(context, ONE)
    assert rejects(made) == {"2026-11-01/7.jpg": "duplicate"}
    assert "2026-11-01/2.jpg" in accepted(made)
    assert made["validated_manifest"].json("verdict.json")["passed"]
    assert set(failed(check_manifest(context, ONE))) == {"duplicates"}


def test_copies_with_different_labels_are_both_refused(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    shop_day(put, photo, labels={7: "books"})
    put("2026-11-01/7.jpg", photo(2))
    made = ingest_day(context, ONE)
    assert rejects(made) == dict.fromkeys(["2026-11-01/7.jpg", "2026-11-01/2.jpg"], "conflicting_copy")
    assert not made["validated_manifest"].json("verdict.json")["passed"]


def test_image_labelled_twice_differently_is_refused(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    shop_day(put, photo, extra="4.jpg,books\n5.jpg,toys\n")
    made = ingest_day(context, ONE)
    assert rejects(made) == {"2026-11-01/4.jpg": "conflicting_labels"}
    assert (
        "labelled more than once, differently, and are rejected: 2026-11-01/4.jpg."
        in failed(check_raw_images(context, ONE))["conflicting_labels"]
    )


def test_label_outside_the_domain(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    shop_day(put, photo, labels={4: "toy"})
    made = ingest_day(context, ONE)
    assert rejects(made) == {"2026-11-01/4.jpg": "outside_domain"}
    assert "'toy' (1, first 2026-11-01/4.jpg; did you mean 'toys'?)" in failed(check_raw_images(context, ONE))["labels_schema"]
    assert "label_domain" in failed(check_manifest(context, ONE))


def test_images_without_labels_and_labels_without_images(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    shop_day(put, photo, labels={4: ""}, extra="gone.jpg,toys\n")
    put("2026-11-01/new.jpg", photo(99))
    made = ingest_day(context, ONE)
    assert rejects(made) == {"2026-11-01/4.jpg": "unlabelled", "2026-11-01/new.jpg": "unlabelled"}
    detail = failed(check_raw_images(context, ONE))["missing_values"]
    assert "2 of 11 images lack a label (first 2026-11-01/4.jpg); 1 label rows name no image (first 2026-11-01/gone.jpg)" in detail


def test_day_without_label_file(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    put("2026-11-01/a.jpg", photo(1))
    made = ingest_day(context, ONE)
    verdict = made["validated_manifest"].json("verdict.json")
    assert not verdict["passed"]
    assert "no labels.csv found" in verdict["reasons"]
    assert "no labels.csv beside the images of 2026-11-01" in failed(check_raw_images(context, ONE))["labels_schema"]
    assert len(open_pack(context.artifacts, made["image_pack"])) == 0


def test_unreadable_label_file_fails_the_day_with_its_reason(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    put("2026-11-01/a.jpg", photo(1))
    put("2026-11-01/labels.csv", "image,class\na.jpg,toys\n")
    verdict = ingest_day(context, ONE)["validated_manifest"].json("verdict.json")
    assert "2026-11-01/labels.csv: line 1: no column label; there are image, class" in verdict["reasons"][0]
    assert "no column label" in failed(check_raw_images(context, ONE))["labels_schema"]


def test_empty_day_is_recorded_and_may_not_train(context: StageContext, ingest_day: Ingest) -> None:
    made = ingest_day(context, ONE)
    verdict = made["validated_manifest"].json("verdict.json")
    assert (verdict["passed"], verdict["objects"], verdict["reasons"]) == (False, 0, ["no images arrived"])
    for check in (check_raw_images, check_manifest, check_pack, check_features):
        assert failed(check(context, ONE)) == {}


def test_personal_data_is_masked_before_anything_stores_it(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    put("2026-11-01/a.jpg", photo(1))
    put("2026-11-01/labels.csv", "image,label,title,region\na.jpg,toys,Car from anna@example.com,eu\n")
    made = ingest_day(context, ONE)
    attributes = expand_json(parquet_to_frame(made["validated_manifest"].read("manifest.parquet"))["attributes"])
    assert attributes.to_dict("records") == [{"region": "eu", "title": "Car from [email]"}]
    assert made["validated_manifest"].json("personal_data.json")["text"]["columns"]["title"]["found"] == {"email": 1}
    assert "1 pieces of personal data" in failed(check_manifest(context, ONE))["personal_data"]
    stored = [path.read_bytes() for path in (context.settings.home / context.settings.store.root).rglob("*") if path.is_file()]
    assert stored
    assert not any(b"anna@example" in data for data in stored)
    for artifact in made.values():
        assert "anna" not in str([parquet_to_frame(artifact.read(file)).to_dict() for file in artifact.files if file.endswith("parquet")])


def test_column_that_became_a_text_column_is_masked_without_a_new_inventory(open_context: Open, put: Put, photo: Photo) -> None:
    put("2026-11-01/a.jpg", photo(1))
    put("2026-11-01/labels.csv", "image,label,title,remark\na.jpg,toys,x,write to anna@example.com\n")
    take_inventory(open_context(), ONE)
    before = validate_images(open_context(), ONE).artifact
    after = validate_images(open_context(DATA__TEXT_COLUMNS="[title, remark]"), ONE).artifact
    texts = [parquet_to_frame(made.read("manifest.parquet"))["attributes"].tolist() for made in (before, after)]
    assert ["anna@example.com" in text for [text] in texts] == [True, False]
    assert after.json("personal_data.json")["text"]["columns"]["remark"]["found"] == {"email": 1}


def test_one_label_file_for_all_dated_folders(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    rows = ["image,label"]
    for day, number in (("2026-11-01", 1), ("2026-11-01", 2), ("2026-11-02", 3), ("2026-11-02", 4)):
        put(f"{day}/{number}.jpg", photo(number))
        rows.append(f"{day}/{number}.jpg,toys")
    path = put("labels.csv", "\n".join([*rows, "2026-11-02/gone.jpg,toys"]))
    moment = datetime(2026, 11, 1, 9, tzinfo=UTC).timestamp()
    os.utime(path, (moment, moment))  # it came on the first day, and speaks of both
    for day in (ONE, TWO):
        assert len(accepted(ingest_day(context, day))) == 2
    orphans = [[row["image"] for row in found(context, day, "rows_without_image")] for day in (ONE, TWO)]
    assert orphans == [[], ["2026-11-02/gone.jpg"]]


def test_flat_source_reports_rows_without_images_once(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    for number, day in ((1, ONE), (2, TWO)):
        moment = datetime(day.year, day.month, day.day, 9, tzinfo=UTC).timestamp()
        os.utime(put(f"{number}.jpg", photo(number)), (moment, moment))
    labels = put("labels.csv", "image,label\n1.jpg,toys\n2.jpg,home\ngone.jpg,toys\n")
    moment = datetime(2026, 11, 2, 9, tzinfo=UTC).timestamp()
    os.utime(labels, (moment, moment))
    assert [accepted(ingest_day(context, day)) for day in (ONE, TWO)] == [["1.jpg"], ["2.jpg"]]
    orphans = [[row["image"] for row in found(context, day, "rows_without_image")] for day in (ONE, TWO)]
    assert orphans == [[], ["gone.jpg"]]


def test_steps_ask_for_what_is_missing(context: StageContext) -> None:
    with pytest.raises(ArtifactMissingError, match="Materialize raw_images of 2026-11-01 first"):
        validate_images(context, ONE)
    with pytest.raises(ArtifactMissingError, match="Materialize validated_manifest of 2026-11-01 first"):
        pack_images(context, ONE)


def test_pack_of_an_older_manifest_is_noticed(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    shop_day(put, photo, count=5)
    ingest_day(context, ONE)
    shop_day(put, photo, count=6)
    take_inventory(context, ONE)
    validate_images(context, ONE)
    assert "5 packed images for 6 manifest rows" in failed(check_pack(context, ONE))["row_count"]


def test_changed_pack_is_noticed(context: StageContext, put: Put, photo: Photo, ingest_day: Ingest) -> None:
    shop_day(put, photo, count=3)
    [[partition, digest]] = ingest_day(context, ONE)["image_pack"].json("pack.json")["shards"]
    path = context.artifacts.version("image_shard", digest, partition).path("pixels.npy")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "bytes differ" in failed(check_pack(context, ONE))["content_hash"]
    assert "row_count" not in failed(check_pack(context, ONE))


def test_day_drift_compares_with_the_days_before(context: StageContext, put: Put, photo: Photo) -> None:
    def lay(day: date, start: int, label: str) -> None:
        names = []
        for number in range(start, start + 60):
            put(f"{day}/{number}.jpg", photo(number, width=16, height=16))
            names.append(f"{number}.jpg,{label if number % 2 else 'home'}")
        put(f"{day}/labels.csv", "image,label\n" + "\n".join(names))
        take_inventory(context, day)
        validate_images(context, day)

    lay(ONE, 0, "toys")
    lay(TWO, 100, "toys")
    assert "day_drift" not in failed(check_manifest(context, TWO))
    lay(date(2026, 11, 3), 200, "books")
    assert failed(check_manifest(context, date(2026, 11, 3)))["day_drift"].startswith("label (PSI ")


def test_changed_source_waits_for_approval(open_context: Open, put: Put, photo: Photo) -> None:
    shop_day(put, photo, count=2)
    take_inventory(open_context(), ONE)
    changed = open_context(DATA__CLASSES="[toys, books]")
    with pytest.raises(ApprovalRequiredError, match="The data source changed: classes from") as caught:
        take_inventory(changed, ONE)
    settings = changed.settings
    key = load_or_create_key(settings.home / "keys" / "anna.pem", settings.trusted_approvers)
    record_approval(changed.artifacts.bytes, key, caught.value.kind, caught.value.subject, approver="Anna", reason="fewer classes")
    assert take_inventory(changed, ONE).metadata["images"] == 2


def test_each_asset_of_a_day_names_the_digest_of_what_it_was_made_of(context: StageContext, put: Put, photo: Photo) -> None:
    """What an auditor follows in the UI, from materialization to materialization."""
    shop_day(put, photo, count=2)
    inventory, manifest, pack, features = (step(context, ONE) for step in (take_inventory, validate_images, pack_images, measure_images))
    assert manifest.metadata["inventory"] == inventory.artifact.digest
    assert pack.metadata["manifest"] == manifest.artifact.digest
    assert features.metadata["pack"] == pack.artifact.digest
    assert inventory.metadata["accepted_settings"] == inventory.artifact.info["source"]
    assert inventory.metadata["accepted_by"] == "the first value, accepted without a person"
