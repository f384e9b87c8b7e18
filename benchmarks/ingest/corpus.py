"""The photos of the benchmark: real ones where a folder of them is named, drawn ones otherwise; some damaged, each unique."""

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

DAY = date(2026, 11, 1)
CLASSES = ("first", "second", "third", "fourth", "fifth")
DAMAGED_SHARE = 0.02
_DRAWN = 400
_SIDES = (400, 533)


@dataclass(frozen=True)
class Corpus:
    """A source folder with one day. `photos` says where the pictures come from; `damaged` are the keys that were spoilt."""

    folder: Path
    photos: str
    images: int
    damaged: tuple[str, ...]


def write_corpus(folder: Path, photos: Path | None, images: int, *, seed: int = 0) -> Corpus:
    """Write `images` JPEGs of one day with their labels.csv.

    Where there are fewer photos than images, they repeat, each made unique by a JPEG comment: other bytes, the same pixels.
    """
    originals = _originals(photos)
    chance = random.Random(seed)
    target = folder / DAY.isoformat()
    target.mkdir(parents=True)
    spoilt = set(chance.sample(range(images), round(images * DAMAGED_SHARE)))
    damaged, lines = [], ["image,label,title"]
    for number in range(images):
        data = _unique(originals[number % len(originals)], number // len(originals))
        name = f"{number:07d}.jpg"
        if number in spoilt:
            data = _damage(data, chance)
            damaged.append(f"{DAY}/{name}")
        (target / name).write_bytes(data)
        lines.append(f"{name},{CLASSES[number % len(CLASSES)]},product {number}")
    (target / "labels.csv").write_text("\n".join(lines) + "\n")
    return Corpus(folder, str(photos) if photos else "drawn", images, tuple(damaged))


def flip_bits(data: bytes, chance: random.Random, flips: int = 8) -> bytes:
    """The same JPEG with some bits of its entropy-coded data turned over."""
    spoilt = bytearray(data)
    start = data.index(b"\xff\xda") + 16
    for _ in range(flips):
        spoilt[chance.randrange(start, len(data) - 2)] ^= 1 << chance.randrange(8)
    return bytes(spoilt)


def change_some(corpus: Corpus, share: float, chance: random.Random) -> list[str]:
    """Give a share of the intact images other bytes. Returns their keys."""
    intact = sorted(
        {f"{DAY}/{path.name}" for path in (corpus.folder / DAY.isoformat()).glob("*.jpg")} - set(corpus.damaged),
    )
    chosen = sorted(chance.sample(intact, max(1, round(corpus.images * share))))
    for key in chosen:
        path = corpus.folder / key
        path.write_bytes(_unique(path.read_bytes(), chance.randrange(1 << 30)))
    return chosen


def _originals(photos: Path | None) -> Sequence[bytes]:
    if photos is None:
        return [_drawn(number) for number in range(_DRAWN)]
    found = [path.read_bytes() for path in sorted(photos.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]
    if not found:
        raise SystemExit(f"{photos} holds no .jpg file. Name a folder of photographs, or none for drawn ones.")
    return found


def _drawn(number: int) -> bytes:
    import io

    from pipeline_project.sample.drawing import draw_product

    rng = np.random.default_rng(number)
    label = ("electronics", "clothing", "home", "books", "toys")[number % 5]
    buffer = io.BytesIO()
    draw_product(label, rng, _SIDES).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _unique(data: bytes, number: int) -> bytes:
    if number == 0:
        return data
    text = f"copy {number}".encode()
    return data[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + data[2:]


def _damage(data: bytes, chance: random.Random) -> bytes:
    """One of the kinds of damage that each decoder can see."""
    kind = chance.randrange(5)
    if kind == 0:
        return data[: chance.randrange(200, len(data) - 200)]  # an upload that broke off
    if kind == 1:
        return b""
    if kind == 2:
        return b"<!doctype html><title>404 Not Found</title>"
    if kind == 3:
        return chance.randbytes(len(data))
    return data[:2] + chance.randbytes(400) + data[402:]  # the header overwritten
