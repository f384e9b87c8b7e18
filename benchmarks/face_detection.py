"""Cost and recall of face detection: CPU milliseconds an image on photographs, and the recall that the report states."""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.imaging import DecodeLimits, decode_image
from pipeline_project.ingest.privacy import mask_faces, open_face_finder
from pipeline_project.ingest.privacy.recall import face_picture, face_recall
from pipeline_project.settings import Settings, load_settings


def measure(photos: Sequence[Path] = (), *, settings: Settings | None = None, images: int = 60, seed: int = 1) -> dict[str, Any]:
    """Find and mask faces in photographs as the decoding workers do, and measure the CPU time of it alone.

    Args:
        photos: JPEG, PNG or WebP files, of which `images` are drawn with the seed; without any, the composites behind the recall.
        settings: whose detector and image size; default: the product settings.
        images: how many.
        seed: which.

    Returns:
        {detector, images, faces, images_with_faces, ms_an_image (median CPU milliseconds), ms_p95, images_a_second_a_core, recall}.
    """
    settings = settings or load_settings("product_images", environment={})
    finder = open_face_finder(settings.privacy, endpoint_url=settings.store.endpoint_url)
    if finder is None:
        raise ValueError("privacy.faces is off: there is nothing to measure. Give settings with privacy.faces mask or report.")
    pictures = _decoded(photos, settings, images, seed) if photos else [face_picture(seed + n, face=n % 2 == 0)[0] for n in range(images)]
    spent, faces, with_faces = [], 0, 0
    mask_faces(pictures[0], finder.find(pictures[0]))  # the first one loads what the library loads late
    for rgb in pictures:
        start = time.process_time()
        found = finder.find(rgb)
        mask_faces(rgb, found)
        spent.append((time.process_time() - start) * 1000)
        faces += len(found)
        with_faces += bool(found)
    return {
        "detector": finder.name,
        "images": len(pictures),
        "faces": faces,
        "images_with_faces": with_faces,
        "ms_an_image": round(statistics.median(spent), 2),
        "ms_p95": round(float(np.percentile(spent, 95)), 2),
        "images_a_second_a_core": round(1000 / statistics.fmean(spent), 1),
        "recall": face_recall(finder),
    }


def _decoded(photos: Sequence[Path], settings: Settings, images: int, seed: int) -> list[NDArray[np.uint8]]:
    """Pixels as the workers get them: decoded at the scale that the image size allows."""
    chosen = np.random.default_rng(seed).choice(len(photos), min(images, len(photos)), replace=False)
    limits = DecodeLimits.from_settings(settings.ingest)
    return [decode_image(photos[int(n)].read_bytes(), limits, settings.image.size).pixels for n in np.sort(chosen)]


if __name__ == "__main__":
    photos = sorted(path for folder in sys.argv[1:] for path in Path(folder).rglob("*.jpg"))  # none: composites
    print(json.dumps(measure(photos)))
