"""data_profile over days that the real ingest made."""

import io
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline_project.dataset.profile import profile_data
from pipeline_project.digests import canonical_json
from pipeline_project.ingest.features import measure_images
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.plots import MAX_PICTURE_BYTES
from pipeline_project.settings import load_settings
from pipeline_project.stage import Picture, StageContext, StepResult, Table

DAYS = [date(2026, 11, 1), date(2026, 11, 2)]
TITLE = '<script>x</script> "shirt" $1 & co'


def photo(seed: int, width: int = 40, height: int = 30) -> bytes:
    """A smooth picture of its own for every seed: smooth, so that a copy in another format is a near duplicate."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return encoded(small.resize((width, height), Image.Resampling.BICUBIC), "PNG")


def encoded(image: Image.Image, format_: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, lossless=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageContext, StepResult]:
    """Two days of 25 images: one black image, one damaged file, one near duplicate under another label."""
    folder = tmp_path_factory.mktemp("profile")
    for day in DAYS:
        rows = ["image,label,brand_tier,region,title"]
        place = folder / "source" / day.isoformat() / "images"
        place.mkdir(parents=True)
        for n in range(25):
            (place / f"{n}.png").write_bytes(photo(day.day * 100 + n))
            tier = "" if n % 3 == 0 else "premium"
            title = '"' + TITLE.replace('"', '""') + '"' if n == 0 else ""
            rows.append(f"images/{n}.png,{'clothing' if n % 2 else 'home'},{tier},eu,{title}")
        if day == DAYS[0]:
            (place / "black.png").write_bytes(encoded(Image.new("RGB", (40, 30)), "PNG"))
            (place / "copy.webp").write_bytes(encoded(Image.open(io.BytesIO(photo(day.day * 100 + 1))), "WEBP"))
            (place / "bad.png").write_bytes(photo(1)[:60])
            rows += ["images/black.png,home,,eu,", "images/copy.webp,toys,,eu,mail a.b@example.com", "images/bad.png,toys,,eu,"]
        (place.parent / "labels.csv").write_text("\n".join(rows) + "\n")
    environment = {"PIPELINE_HOME": str(folder / "home"), "PIPELINE__DATA__SOURCE": str(folder / "source")}
    context = StageContext.open(load_settings("sample", environment=environment))
    for day in DAYS:
        for step in (take_inventory, validate_images, pack_images, measure_images):
            step(context, day)
    return context, profile_data(context)


def test_the_payload_counts_what_there_is(made: tuple[StageContext, StepResult]) -> None:
    profile = made[1].artifact.json("profile.json")
    assert profile["images"] == 52
    assert profile["labels"] == {"clothing": 24, "home": 27, "toys": 1}
    assert profile["by_day_and_label"]["2026-11-02"] == {"clothing": 12, "home": 13}
    assert profile["rejected"] == {"corrupt": 1}
    assert profile["rejected_by_day"] == {"2026-11-01": {"corrupt": 1}}
    assert profile["formats"] == {"PNG": 51, "WEBP": 1}
    assert profile["attributes"]["brand_tier"] == {"missing": 20, "distinct": 1, "most_frequent": [["premium", 32]]}
    assert profile["personal_data"]["columns"]["title"]["found: email"] == 1
    for feature in profile["features"].values():
        assert sum(feature["histogram"]["counts"]) == 52
        assert feature["min"] <= feature["p25"] <= feature["median"] <= feature["p75"] <= feature["max"]


def test_the_planted_noise_and_outlier_are_found(made: tuple[StageContext, StepResult]) -> None:
    profile = made[1].artifact.json("profile.json")
    (noise,) = profile["suspected_label_noise"]
    assert noise["keys"] == ["2026-11-01/images/1.png", "2026-11-01/images/copy.webp"]
    assert noise["labels"] == ["clothing", "toys"]
    assert profile["near_duplicates"] == {"groups": 1, "images": 2, "largest": 2, "label_noise_groups": 1}
    assert profile["outliers"]["worst"][0]["key"] == "2026-11-01/images/black.png"


def test_the_verdict_says_what_to_look_at(made: tuple[StageContext, StepResult]) -> None:
    shown = made[1].metadata
    table = shown["look_at"]
    assert isinstance(table, Table)
    told = " ".join(str(row["what"]) for row in table.rows)
    assert "1 group of nearly equal images carries different labels" in told
    assert "Fewer than 20 images: toys (1)" in told
    assert "have no brand_tier" in told
    assert "No image of" in told
    assert str(shown["verdict"]).startswith(f"52 images of 2 days in 3 classes. {len(table.rows)} things to look at")


def test_pictures_are_small_enough_for_the_event_log(made: tuple[StageContext, StepResult]) -> None:
    pictures = {name: value for name, value in made[1].metadata.items() if isinstance(value, Picture)}
    assert set(pictures) == {"class_balance", "contact_sheet", "distributions", "worst_outliers", "rejected_by_day", "label_noise"}
    for picture in pictures.values():
        assert len(picture.data) <= MAX_PICTURE_BYTES
        Image.open(io.BytesIO(picture.data)).verify()


def test_the_page_is_whole_and_escaped(made: tuple[StageContext, StepResult]) -> None:
    document = made[1].artifact.sidecar("profile.html").decode()
    assert "<script" not in document
    assert "&lt;script&gt;" in document, "the title is shown as text"
    assert "a.b@example.com" not in document
    assert not [part for part in ("http://", "https://", "url(", "@import") if part in document]
    assert document.index("52 images") < document.index("group of nearly equal") < document.index("<section")
    assert Path(str(made[1].metadata["page"])).is_file()


def test_the_payload_is_the_same_when_made_anew(made: tuple[StageContext, StepResult]) -> None:
    context, first = made
    again = profile_data(StageContext(context.settings, context.artifacts, lambda _: None, recompute=True))
    assert again.artifact.digest == first.artifact.digest
    assert profile_data(context).metadata["reused"] is True


def test_a_day_whose_parts_do_not_belong_together_is_left_out_and_named(made: tuple[StageContext, StepResult]) -> None:
    context, _ = made
    store = context.artifacts
    old = store.latest("image_features", "2026-11-02")
    payload = {name: old.read(name) for name in old.files}
    try:
        store.publish("image_features", {**payload, "origin.json": canonical_json({"pack": "0", "manifest": "0"})}, partition="2026-11-02")
        profile: dict[str, Any] = json.loads(profile_data(context).artifact.read("profile.json"))
    finally:
        store.publish("image_features", payload, partition="2026-11-02")
    assert profile["images"] == 27
    assert list(profile["left_out_days"]) == ["2026-11-02"]


def test_without_a_measured_image_the_next_step_is_named(tmp_path: Path) -> None:
    context = StageContext.open(load_settings("sample", environment={"PIPELINE_HOME": str(tmp_path)}))
    step: Callable[[StageContext], StepResult] = profile_data
    with pytest.raises(ValueError, match="Materialize image_features"):
        step(context)
