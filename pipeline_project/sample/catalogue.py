"""Writes the sample catalogue: dated folders of JPEG photos with a labels.csv, and on purpose a few duplicates and damaged files."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from pipeline_project.sample.drawing import PRODUCTS, draw_kind, draw_product

COLUMNS = ("image", "label", "title", "price", "brand_tier", "region")

_SIDES = (120, 201)  # pixels; half-open
_QUALITY = (62, 96)  # JPEG; half-open
_DUPLICATE_SHARE = 1 / 120  # of a day, for exact and near duplicates each
_PRICE_USD = {"electronics": (280.0, 0.7), "clothing": (38.0, 0.5), "home": (55.0, 0.6), "books": (16.0, 0.4), "toys": (24.0, 0.5)}
_TIERS = {"budget": 0.35, "standard": 0.45, "premium": 0.20}
_REGIONS = {"eu": 0.4, "us": 0.35, "apac": 0.25}
_BRANDS = ("Aldera", "Brightwell", "Corvo", "Dunmore", "Elmtree", "Fjordline", "Granby", "Halcyon", "Ivorel", "Junip", "Korsa", "Lumenta")
_STYLES = ("classic", "compact", "everyday", "modern", "original", "slim", "vintage", "deluxe", "essential", "limited edition")
_EXTRAS = ("", "", "", ", gift box", ", new arrival", ", best seller", ", recycled material", ", second season", ", set of two")


@dataclass(frozen=True)
class CatalogueSummary:
    """What was written. Paths are relative to `folder`, such as `2026-11-01/images/p11010007.jpg`."""

    folder: Path
    days: tuple[date, ...]
    images: int
    """files in the images folders, damaged ones included"""
    images_per_class: dict[str, int]
    damaged: tuple[str, ...]
    exact_duplicates: dict[str, str]
    """copy -> original"""
    near_duplicates: dict[str, str]
    """re-encoded copy -> original"""


@dataclass(frozen=True)
class _Item:
    name: str
    label: str
    content: bytes
    row: tuple[str, ...]
    damaged: bool = False
    copied_from: str | None = None
    re_encoded: bool = False


def generate_catalogue(folder: Path, *, seed: int, days: Sequence[date], images_per_day: int, damaged_per_day: int = 1) -> CatalogueSummary:
    """Draw a catalogue and write it day by day.

    A day depends on the seed, its date and the counts alone: the same call gives byte-identical files, and another list of days leaves
    the days they share as they were. labels.csv is written last, so a day with one is complete.

    Args:
        folder: made if missing; days already there are overwritten.
        seed: 0 or above.
        days: distinct dates.
        images_per_day: all files of a day, damaged ones and duplicates included.
        damaged_per_day: unreadable files among them, labelled like any other: empty, truncated, or a text file.

    Raises:
        ValueError: a count is out of range or a date is said twice.
    """
    if images_per_day < 1 or not 0 <= damaged_per_day <= images_per_day:
        raise ValueError(
            f"sample catalogue: images_per_day={images_per_day}, damaged_per_day={damaged_per_day} are out of range. "
            "Give at least one image a day, and no more damaged files than images."
        )
    if len(set(days)) != len(days):
        raise ValueError("sample catalogue: a day is listed twice; its folder would be written twice. List each date once.")
    per_class: Counter[str] = Counter()
    damaged: list[str] = []
    copies: dict[bool, dict[str, str]] = {False: {}, True: {}}
    for day in days:
        items = _draw_day(seed, day, images_per_day, damaged_per_day)
        _write_day(folder / day.isoformat(), items)
        prefix = f"{day.isoformat()}/images/"
        per_class.update(item.label for item in items)
        damaged += [prefix + item.name for item in items if item.damaged]
        for item in items:
            if item.copied_from is not None:
                copies[item.re_encoded][prefix + item.name] = prefix + item.copied_from
    counts = {label: per_class[label] for label in PRODUCTS}
    return CatalogueSummary(folder, tuple(days), sum(counts.values()), counts, tuple(damaged), copies[False], copies[True])


def product_photo(label: str, rng: Generator) -> bytes:
    """A fresh JPEG photo of one class, with the sizes and qualities of the catalogue: traffic for a running endpoint.

    Raises:
        ValueError: there is no such class.
    """
    return _encode(draw_product(label, rng, _photo_size(rng)), rng)


def _draw_day(seed: int, day: date, count: int, damaged: int) -> list[_Item]:
    rng = np.random.default_rng([seed, day.toordinal()])
    labels = _balanced_labels(rng, count)
    copies = round(count * _DUPLICATE_SHARE)
    # Copies are drawn from the first half, so that an original always comes before its copy, and damage spares originals.
    roles = dict(zip(rng.permutation(np.arange(count // 2, count)).tolist(), ["exact"] * copies + ["near"] * copies, strict=False))
    free = [index for index in range(count // 2, count) if index not in roles]
    broken = {int(index): (day.toordinal() + turn) % 3 for turn, index in enumerate(rng.permutation(free or np.arange(count))[:damaged])}
    items: list[_Item] = []
    for index in range(count):
        name = f"p{day:%m%d}{index:04d}.jpg"
        original = items[int(rng.integers(count // 2))] if index in roles else None
        label = original.label if original else labels[index]
        kinds = list(PRODUCTS[label])
        kind = kinds[int(rng.integers(len(kinds)))]
        row = (f"images/{name}", label, *_sales_columns(rng, label, kind))
        if original is None:
            content = _encode(draw_kind(label, kind, rng, _photo_size(rng)), rng)
        else:
            content = original.content if roles[index] == "exact" else _re_encode(original.content, rng)
        if index in broken:
            content = (b"", content[: len(content) // 2], b"404 Not Found: the photo has moved\n")[broken[index]]
        items.append(_Item(name, label, content, row, index in broken, original.name if original else None, roles.get(index) == "near"))
    return items


def _balanced_labels(rng: Generator, count: int) -> list[str]:
    names = list(PRODUCTS)
    labels = [names[index % len(names)] for index in range(count)]
    for index in rng.permutation(count)[: count // 25]:  # a few per cent of jitter: real days are never exactly even
        labels[index] = names[int(rng.integers(len(names)))]
    return [labels[index] for index in rng.permutation(count)]


def _sales_columns(rng: Generator, label: str, kind: str) -> tuple[str, str, str, str]:
    title = f"{_pick(rng, _BRANDS)} {_pick(rng, _STYLES)} {kind}{_pick(rng, _EXTRAS)}"
    median, spread = _PRICE_USD[label]
    price = float(rng.lognormal(np.log(median), spread))
    tier = str(rng.choice(list(_TIERS), p=list(_TIERS.values())))
    region = str(rng.choice(list(_REGIONS), p=list(_REGIONS.values())))
    return title, f"{price:.2f}", tier, region


def _pick(rng: Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _photo_size(rng: Generator) -> tuple[int, int]:
    width, height = rng.integers(*_SIDES, size=2).tolist()
    return width, height


def _encode(image: Image.Image, rng: Generator) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(*_QUALITY)))
    return buffer.getvalue()


def _re_encode(content: bytes, rng: Generator) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        return _encode(image.convert("RGB"), rng)


def _write_day(folder: Path, items: Sequence[_Item]) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for item in items:
        _replace(folder / "images" / item.name, item.content)
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(item.row for item in items)
    _replace(folder / "labels.csv", table.getvalue().encode("utf-8"))


def _replace(path: Path, content: bytes) -> None:
    """Write under a hidden name, then rename: a reader sees the whole file or none."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    temporary.replace(path)
