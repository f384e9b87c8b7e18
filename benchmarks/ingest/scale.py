"""What one machine bears: near duplicates among 100,000 images, a manifest of a million rows, sensor ticks, the cost of faces."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import say

_ROWS = 1_000_000


def near_duplicates(photos: Path | None) -> dict[str, Any]:
    """Groups among 100,000 hashes of several kinds."""
    from benchmarks.ingest.near_duplicates import measure

    return measure(photos)


def manifest_of_a_million() -> dict[str, Any]:
    """Peak memory of the steps of a day with a million images; their pixels, which are looked at a shard at a time, left out."""
    with tempfile.TemporaryDirectory(prefix="bench-million-") as folder:
        found = {}
        for step in ("write", "inventory", "join"):
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.ingest.million", step, folder, str(_ROWS)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[step] = json.loads(done.stdout.splitlines()[-1])
            say(f"a million rows, {step}: {found[step]['seconds']} s, {found[step]['rss_mb']} MB")
    del found["write"]
    return {"manifest_1m_rss_mb": max(step["rss_mb"] for step in found.values()), "manifest_1m": found}


def sensor_tick() -> dict[str, Any]:
    """The longest tick of the sensor over a listing of 100,000 keys."""
    from benchmarks.sensor_tick import measure

    return measure()


def faces(photos: Path | None) -> dict[str, Any]:
    """What looking for faces costs an image, beside everything else."""
    from benchmarks.face_detection import measure

    found = measure([] if photos is None else sorted(photos.rglob("*.jpg")))
    say(f"faces: {found['ms_an_image']} ms an image")
    return {"face_detection_ms": found["ms_an_image"], "face_detection": found}
