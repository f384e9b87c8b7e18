"""One side of a comparison in a fresh process: `python -m benchmarks.ingest.sides SIDE SOURCE HOME SIZE WORKERS`.

The last line is a JSON object with the seconds of the work, imports left out, and what came of it.
"""

import hashlib
import io
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.ingest.corpus import CLASSES, DAY, Corpus, change_some, write_corpus
from pipeline_project.ingest.features import measure_images
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.settings import Settings, load_settings
from pipeline_project.stage import StageContext
from pipeline_project.tables import parquet_to_frame

_CHUNK = 16


def ours(source: Path, home: Path, size: int, workers: int) -> dict[str, Any]:
    """The four ingest steps of the day, as the assets call them."""
    context = warm_context(source, home, size, workers)
    seconds, _ = run_steps(context)
    manifest = context.artifacts.latest("validated_manifest", DAY.isoformat())
    rejects = parquet_to_frame(manifest.read("rejects.parquet"))
    return {
        "seconds": sum(seconds.values()),
        "by_step": seconds,
        "rejected": sorted(rejects[rejects["code"] != "duplicate"]["key"].tolist()),
        "digests": digests(context),
    }


def again(source: Path, home: Path, size: int, workers: int) -> dict[str, Any]:
    """Cold, unchanged five times, and once with 1% of the images changed."""
    context = warm_context(source, home, size, workers)
    cold, decoded = run_steps(context)
    unchanged = [run_steps(context) for _ in range(5)]
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*.jpg"))
    rejects = parquet_to_frame(context.artifacts.latest("validated_manifest", DAY.isoformat()).read("rejects.parquet"))
    corpus = Corpus(source, "", len(names), tuple(rejects["key"]))
    changed = change_some(corpus, 0.01, random.Random(1))
    some, some_decoded = run_steps(context)
    return {
        "cold": sum(cold.values()),
        "cold_decoded": decoded,
        "unchanged": [sum(seconds.values()) for seconds, _ in unchanged],
        "unchanged_by_step": [seconds for seconds, _ in unchanged],
        "unchanged_decoded": [count for _, count in unchanged],
        "one_percent": sum(some.values()),
        "one_percent_changed": len(changed),
        "one_percent_decoded": some_decoded,
    }


def run_steps(context: StageContext) -> tuple[dict[str, float], int]:
    """The seconds of each ingest step, and how many images were decoded."""
    seconds, decoded = {}, 0
    for step in (take_inventory, validate_images, pack_images, measure_images):
        begin = time.perf_counter()
        result = step(context, DAY)
        seconds[step.__name__] = time.perf_counter() - begin
        if step is validate_images and not result.metadata.get("reused"):
            decoded = int(str(result.metadata["decoded"]))
    return seconds, decoded


def warm_context(source: Path, home: Path, size: int, workers: int) -> StageContext:
    """The project's context, after a few images of another project: what is imported once is left out on both sides."""
    few = write_corpus(home / "few", None, 5)
    run_steps(StageContext.open(project_settings(few.folder, home / "warm", size, workers)))
    return StageContext.open(project_settings(source, home / "project", size, workers))


def digests(context: StageContext) -> dict[str, str]:
    """Of what the day's assets hold."""
    names = ("validated_manifest", "image_pack", "image_features")
    return {name: context.artifacts.latest(name, DAY.isoformat()).digest for name in names}


def project_settings(source: Path, home: Path, size: int, workers: int) -> Settings:
    """Settings of a project over the benchmark's photos; faces off: their cost is told apart."""
    home.mkdir(parents=True, exist_ok=True)
    values = {
        "extends": "sample",
        "name": "bench-ingest",
        "data": {
            "source": str(source),
            "classes": list(CLASSES),
            "slice_columns": [],
            "start_date": DAY.isoformat(),
        },
        "image": {"size": size},
        "ingest": {"workers": workers},
    }
    config = home / "settings.yaml"
    config.write_text(yaml.safe_dump(values))
    return load_settings(config, environment={"PIPELINE_HOME": str(home)})


def plain(source: Path, home: Path, size: int, workers: int) -> dict[str, Any]:
    """The same written plainly with Pillow, NumPy and imagehash, in a pool of as many processes."""
    import pandas as pd

    keys = sorted(str(path.relative_to(source)) for path in source.rglob("*.jpg"))
    labels = pd.read_csv(source / DAY.isoformat() / "labels.csv").set_index("image")
    home.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("forkserver").Pool(workers) as pool:
        pool.map(_plain_one, [(str(source / keys[0]), size)] * workers)  # its processes are up, its modules loaded
        begin = time.perf_counter()
        pixels = np.lib.format.open_memmap(home / "pixels.npy", "w+", np.uint8, (len(keys), size, size, 3))
        rows: list[dict[str, Any]] = []
        rejected: list[str] = []
        for key, (facts, image) in zip(keys, pool.imap(_plain_one, [(str(source / key), size) for key in keys], _CHUNK), strict=True):
            if image is None:
                rejected.append(key)
                continue
            pixels[len(rows)] = image
            rows.append({"key": key, "label": labels["label"][key.split("/")[1]], **facts})
        pd.DataFrame(rows).to_parquet(home / "manifest.parquet")
        pixels.flush()
        seconds = time.perf_counter() - begin
    return {"seconds": seconds, "rejected": rejected}


def _plain_one(task: tuple[str, int]) -> tuple[dict[str, Any], Any]:
    import imagehash
    from PIL import Image, ImageOps

    path, size = task
    data = Path(path).read_bytes()
    image_id = hashlib.sha256(data).hexdigest()
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            image.load()
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except Exception:
        return {"image_id": image_id}, None
    small = upright.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(small)
    facts = {"image_id": image_id, "width": width, "height": height, "hash": str(imagehash.phash(small))}
    return facts | plain_statistics(pixels), pixels


def plain_statistics(pixels: np.ndarray) -> dict[str, float]:
    """The measurements of `imaging.measure`, each by its definition in NumPy."""
    rgb = pixels.astype(np.float32) / 255
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    gradient = np.hypot(np.diff(grey, axis=0)[:, :-1], np.diff(grey, axis=1)[:-1, :])
    counts = np.bincount((grey * 63.999).astype(np.intp).ravel(), minlength=64)
    shares = counts[counts > 0] / grey.size
    edge, quarter = max(1, grey.shape[0] // 12), grey.shape[0] // 4
    border = np.concatenate([grey[:edge].ravel(), grey[-edge:].ravel(), grey[:, :edge].ravel(), grey[:, -edge:].ravel()])
    return {
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "red": float(rgb[..., 0].mean()),
        "green": float(rgb[..., 1].mean()),
        "blue": float(rgb[..., 2].mean()),
        "saturation": float((rgb.max(axis=2) - rgb.min(axis=2)).mean()),
        "sharpness": float(np.abs(laplacian).mean()),
        "edge_density": float((gradient > 0.1).mean()),
        "entropy": float(-(shares * np.log2(shares)).sum()),
        "border_brightness": float(border.mean()),
        "centre_contrast": float(grey[quarter:-quarter, quarter:-quarter].std()),
    }


def decoder(name: str) -> Callable[[Path, Path, int, int], dict[str, Any]]:
    """Decoding alone: read the file, decode every pixel, keep nothing."""

    def side(source: Path, home: Path, size: int, workers: int) -> dict[str, Any]:
        paths = sorted(str(path) for path in source.rglob("*.jpg"))
        with multiprocessing.get_context("forkserver").Pool(workers) as pool:
            pool.map(_decode_one, [(name, paths[0])] * workers)
            begin = time.perf_counter()
            decoded = sum(pool.imap_unordered(_decode_one, [(name, path) for path in paths], _CHUNK))
            seconds = time.perf_counter() - begin
        return {"seconds": seconds, "decoded": decoded}

    return side


def _decode_one(task: tuple[str, str]) -> bool:
    name, path = task
    data = Path(path).read_bytes()
    try:
        if name == "simplejpeg":
            import simplejpeg

            simplejpeg.decode_jpeg(data)
        elif name == "opencv":
            import cv2

            cv2.setNumThreads(1)
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) is not None
        else:
            from PIL import Image

            Image.open(io.BytesIO(data)).load()
    except Exception:
        return False
    return True


SIDES: dict[str, Callable[[Path, Path, int, int], dict[str, Any]]] = {
    "ours": ours,
    "again": again,
    "plain": plain,
    **{f"decode_{name}": decoder(name) for name in ("simplejpeg", "opencv", "pillow")},
}


def main() -> None:
    """Run one side and print what came of it."""
    side, source, home, size, workers = sys.argv[1:]
    print(json.dumps(SIDES[side](Path(source), Path(home), int(size), int(workers))))


if __name__ == "__main__":
    main()
