"""Whether both sides of the comparison make the same of an image, within what their different resizers allow."""

import io
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ingest.corpus import Corpus, flip_bits, write_corpus
from benchmarks.ingest.sides import plain_statistics, project_settings
from pipeline_project.imaging import DecodeLimits, ImageRejectedError, decode_image, measure, perceptual_hash, to_pixels

_SAMPLE = 200
_MAX_PIXEL_DIFFERENCE = 4.0  # mean over an image, of 255: two antialiasing filters
_MAX_STATISTIC_DIFFERENCE = {"entropy": 0.1}  # bits; grey is rounded to 8 bits in ours
_MAX_OTHER_DIFFERENCE = 0.01
_MAX_HASH_BITS = 8


def agreement(corpus: Corpus, size: int) -> dict[str, Any]:
    """The largest differences between the sides over a sample; ends the program where they are no longer the same work."""
    import imagehash
    from PIL import Image, ImageOps

    limits = DecodeLimits.from_settings(project_settings(corpus.folder, corpus.folder.parent / "equality", size, 1).ingest)
    keys = sorted({str(path.relative_to(corpus.folder)) for path in corpus.folder.rglob("*.jpg")} - set(corpus.damaged))
    pixel, bits, statistic = 0.0, [], 0.0
    for key in random.Random(0).sample(keys, min(_SAMPLE, len(keys))):
        data = (corpus.folder / key).read_bytes()
        small = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        mine = to_pixels(decode_image(data, limits, size).pixels, size)
        theirs = np.asarray(small)
        pixel = max(pixel, float(np.abs(mine.astype(int) - theirs).mean()))
        bits.append((int(perceptual_hash(mine), 16) ^ int(str(imagehash.phash(small)), 16)).bit_count())
        expected, found = plain_statistics(mine), measure(mine, 1.0)  # of the same pixels: the resizers differ, the definitions must not
        for name, value in expected.items():
            statistic = max(statistic, abs(found[name] - value) / _MAX_STATISTIC_DIFFERENCE.get(name, _MAX_OTHER_DIFFERENCE))
    if pixel > _MAX_PIXEL_DIFFERENCE or max(bits) > _MAX_HASH_BITS or statistic > 1:
        told = f"pixels {pixel:.2f}, hash bits {max(bits)}, statistics {statistic:.2f} of what is allowed"
        sys.exit(f"the sides disagree, so no ratio counts: {told}")
    return {
        "largest_mean_pixel_difference": round(pixel, 3),
        "hash_bits_different": {"mean": round(float(np.mean(bits)), 3), "most": max(bits)},
        "largest_statistic_difference_of_tolerance": round(statistic, 3),
    }


def found_in_flipped(photos: Path | None, images: int = 200) -> dict[str, int]:
    """Of JPEGs with some bits of their pixel data turned over, how many each side refuses."""
    import tempfile

    from PIL import Image

    chance, found = random.Random(0), {"images": images, "ours": 0, "pillow": 0}
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "flips", photos, images)
        limits = DecodeLimits.from_settings(project_settings(corpus.folder, Path(folder) / "home", 224, 1).ingest)
        intact = sorted({str(p.relative_to(corpus.folder)) for p in corpus.folder.rglob("*.jpg")} - set(corpus.damaged))
        found["images"] = len(intact)
        for key in intact:
            data = flip_bits((corpus.folder / key).read_bytes(), chance)
            try:
                decode_image(data, limits, 224)
            except ImageRejectedError:
                found["ours"] += 1
            try:
                Image.open(io.BytesIO(data)).load()
            except Exception:
                found["pillow"] += 1
    return found
