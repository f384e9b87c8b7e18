"""How long it takes to find the near duplicates among many images, on hashes as real catalogues have them and on ill-natured ones."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.dataset.duplicates import near_duplicate_groups

Hashes = NDArray[np.uint64]
DISTANCES = (3, 8)


def measure(photos: Path | None = None, images: int = 100_000, seed: int = 0) -> dict[str, Any]:
    """Seconds for each kind of hashes and distance; `near_duplicate_s_100k` is the slowest at distance 3, `..._distance_8` at 8."""
    rng = np.random.default_rng(seed)
    kinds = {"catalogue": _catalogue(rng, images), "skewed": _skewed(rng, images), "dense": _flipped(rng, np.zeros(images, np.uint64), 6)}
    if photos is not None:
        kinds["like_the_photos"] = _like(rng, _hashes_of(photos), images)
    found: dict[str, Any] = {}
    for kind, values in kinds.items():
        texts = [f"{int(value):016x}" for value in values]
        for distance in DISTANCES:
            begin = time.perf_counter()
            groups = near_duplicate_groups(texts, distance)
            found[f"{kind}_{distance}"] = {
                "seconds": round(time.perf_counter() - begin, 3),
                "groups": len(np.unique(groups)),
                "largest": int(np.bincount(groups).max()),
            }
    slowest = {d: max(found[f"{kind}_{d}"]["seconds"] for kind in kinds) for d in DISTANCES}
    return {"near_duplicate_s_100k": slowest[3], "near_duplicate_s_100k_distance_8": slowest[8], "near_duplicates": found}


def _uniform(rng: np.random.Generator, count: int) -> Hashes:
    return rng.integers(0, 2**64, count, dtype=np.uint64, endpoint=False)


def _flipped(rng: np.random.Generator, values: Hashes, bits: int) -> Hashes:
    for _ in range(bits):
        values = values ^ (np.uint64(1) << rng.integers(0, 64, len(values), dtype=np.uint64))
    return values


def _catalogue(rng: np.random.Generator, count: int) -> Hashes:
    """A fifth of the images in several takes of a product, 5% blank (one hash), the others by themselves."""
    takes = _uniform(rng, count // 15)
    values = np.concatenate(
        [
            np.full(count // 20, 1 << 63, np.uint64),
            _flipped(rng, takes[rng.integers(0, len(takes), count // 5)], 2),
            _uniform(rng, count - count // 20 - count // 5),
        ]
    )
    return rng.permutation(values)


def _skewed(rng: np.random.Generator, count: int) -> Hashes:
    """Half of the bits are nearly always set, so many images share the chunks that are compared."""
    return _packed(rng.random((count, 64)) < np.r_[np.full(16, 0.97), np.full(16, 0.9), np.full(32, 0.5)])


def _like(rng: np.random.Generator, real: Hashes, count: int) -> Hashes:
    """Each the bits of one real photo, a quarter of them those of another: their frequencies, and most of how they hang together."""
    first, second = real[rng.integers(0, len(real), count)], real[rng.integers(0, len(real), count)]
    mask = _packed(rng.random((count, 64)) < 0.25)
    return (first & ~mask) | (second & mask)


def _packed(bits: NDArray[np.bool_]) -> Hashes:
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def _hashes_of(photos: Path) -> Hashes:
    from pipeline_project.imaging import DecodeLimits, decode_image, perceptual_hash, to_pixels
    from pipeline_project.settings import load_settings

    limits = DecodeLimits.from_settings(load_settings("sample").ingest)
    files = sorted(photos.rglob("*.jpg"))
    hashes = [perceptual_hash(to_pixels(decode_image(file.read_bytes(), limits, 224).pixels, 224)) for file in files]
    return np.array([int(text, 16) for text in hashes], np.uint64)
