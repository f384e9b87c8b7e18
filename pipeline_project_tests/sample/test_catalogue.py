"""The sample catalogue: reproducible to the byte, complete by its labels.csv, and damaged only on purpose."""

import csv
import io
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline_project.sample import PRODUCTS, CatalogueSummary, draw_product, generate_catalogue, product_photo

DAYS = [date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 3)]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> CatalogueSummary:
    return generate_catalogue(tmp_path_factory.mktemp("catalogue"), seed=7, days=DAYS, images_per_day=120)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(folder: Path, day: date) -> list[dict[str, str]]:
    with (folder / day.isoformat() / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def readable(content: bytes) -> bool:
    try:
        Image.open(io.BytesIO(content)).convert("RGB")
    except (OSError, SyntaxError):
        return False
    return True


def test_same_seed_days_and_counts_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        generate_catalogue(tmp_path / name, seed=3, days=DAYS[:2], images_per_day=20)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_gives_other_images(tmp_path: Path) -> None:
    for seed in (1, 2):
        generate_catalogue(tmp_path / str(seed), seed=seed, days=DAYS[:1], images_per_day=10, damaged_per_day=0)
    assert not set(contents(tmp_path / "1").values()) & set(contents(tmp_path / "2").values())


def test_a_day_does_not_depend_on_the_days_beside_it(tmp_path: Path) -> None:
    generate_catalogue(tmp_path / "both", seed=5, days=DAYS[:2], images_per_day=10)
    generate_catalogue(tmp_path / "one", seed=5, days=DAYS[1:2], images_per_day=10)
    second = DAYS[1].isoformat()
    assert contents(tmp_path / "one" / second) == contents(tmp_path / "both" / second)


def test_labels_name_every_image_once_and_in_full(catalogue: CatalogueSummary) -> None:
    for day in DAYS:
        table = rows(catalogue.folder, day)
        files = sorted(f"images/{path.name}" for path in (catalogue.folder / day.isoformat() / "images").iterdir())
        assert list(table[0]) == ["image", "label", "title", "price", "brand_tier", "region"]
        assert sorted(row["image"] for row in table) == files
        assert {row["label"] for row in table} == set(PRODUCTS)
        assert {row["brand_tier"] for row in table} == {"budget", "standard", "premium"}
        assert {row["region"] for row in table} == {"eu", "us", "apac"}
        assert all(float(row["price"]) > 0 and row["title"] for row in table)
        assert len({row["title"] for row in table}) > len(table) / 2


def test_days_are_balanced_up_to_jitter(catalogue: CatalogueSummary) -> None:
    for day in DAYS:
        counts = Counter(row["label"] for row in rows(catalogue.folder, day))
        assert all(abs(count - 24) <= 8 for count in counts.values())
    assert sum(catalogue.images_per_class.values()) == catalogue.images == 360


def test_exactly_the_named_files_are_damaged(catalogue: CatalogueSummary) -> None:
    files = {name: content for name, content in contents(catalogue.folder).items() if name.endswith(".jpg")}
    assert {name for name, content in files.items() if not readable(content)} == set(catalogue.damaged)
    broken = [files[name] for name in catalogue.damaged]
    assert len(broken) == len(DAYS)
    assert any(not content for content in broken), "an empty file"
    assert any(content.startswith(b"\xff\xd8") for content in broken), "a truncated photo"
    assert any(content.startswith(b"404") for content in broken), "a text file"


def test_duplicates_are_what_they_are_said_to_be(catalogue: CatalogueSummary) -> None:
    files = contents(catalogue.folder)
    assert catalogue.exact_duplicates and catalogue.near_duplicates
    for copy, original in catalogue.exact_duplicates.items():
        assert files[copy] == files[original]
    for copy, original in catalogue.near_duplicates.items():
        pixels = [np.asarray(Image.open(io.BytesIO(files[name])), dtype=np.float64) for name in (copy, original)]
        assert files[copy] != files[original]
        assert np.abs(pixels[0] - pixels[1]).mean() < 8


def test_photos_vary_in_size_and_nothing_unfinished_is_left(catalogue: CatalogueSummary) -> None:
    files = contents(catalogue.folder)
    sizes = {Image.open(io.BytesIO(content)).size for name, content in files.items() if name.endswith(".jpg") and readable(content)}
    assert len(sizes) > 50
    assert all(120 <= side <= 200 for size in sizes for side in size)
    assert not [name for name in files if name.endswith(".part")]


@pytest.mark.parametrize("label", PRODUCTS)
def test_fresh_traffic_is_a_jpeg_of_its_class(label: str) -> None:
    with Image.open(io.BytesIO(product_photo(label, np.random.default_rng(1)))) as image:
        assert image.format == "JPEG"


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(PRODUCTS)), st.integers(0, 2**32), st.integers(32, 120), st.integers(32, 120))
def test_a_drawing_has_the_wanted_size_and_shows_something(label: str, seed: int, width: int, height: int) -> None:
    image = draw_product(label, np.random.default_rng(seed), (width, height))
    assert (image.mode, image.size) == ("RGB", (width, height))
    assert np.asarray(image).std() > 3
    assert image.tobytes() == draw_product(label, np.random.default_rng(seed), (width, height)).tobytes()


def test_an_unknown_class_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'garden'.*electronics"):
        draw_product("garden", np.random.default_rng(0), (64, 64))


@pytest.mark.parametrize(("images", "damaged"), [(0, 0), (5, 6), (5, -1)])
def test_counts_out_of_range_are_refused(tmp_path: Path, images: int, damaged: int) -> None:
    with pytest.raises(ValueError, match="images_per_day"):
        generate_catalogue(tmp_path, seed=0, days=DAYS, images_per_day=images, damaged_per_day=damaged)


def test_a_day_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        generate_catalogue(tmp_path, seed=0, days=[DAYS[0], DAYS[0]], images_per_day=5)
