"""`make bench-ingest`: the speed of ingest, and how it grows.

Rounds interleave ours (the four steps as the assets call them), ours again (the A/A control), the same work written plainly, and three
bare decoders; each in a fresh process with as many worker processes, modules loaded and workers up before the clock starts. Before a
ratio counts, both sides must reject the same files and agree on the pixels, statistics and hashes of a sample. Then: unchanged and 1%
changed data, 40,000 against 10,000 images, near duplicates among 100,000, a manifest of a million rows, sensor ticks over 100,000 keys,
and the cost of looking for faces. The last line is one JSON object.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.ingest import scale
from benchmarks.ingest.corpus import write_corpus
from benchmarks.ingest.equality import agreement, found_in_flipped
from benchmarks.report import interval, machine, say

_SPEED = ("ours", "plain", "ours_again", "decode_simplejpeg", "decode_opencv", "decode_pillow")
_SMALL = 96  # pixels a side
_DECODERS = tuple(side for side in _SPEED if side.startswith("decode_"))


def main() -> None:
    """Parse arguments, run the parts, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="a folder of photographs (JPEG); without one: drawn ones, as the report says")
    parser.add_argument("--images", type=int, default=3409, help="of the comparison")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--workers", type=int, default=2, help="processes of each side")
    parser.add_argument("--parts", default="speed,again,linearity,scale,sensor,faces")
    parser.add_argument("--keep", type=Path, help="folder for the raw values")
    arguments = parser.parse_args()
    parts = set(arguments.parts.split(","))
    report: dict[str, Any] = {"benchmark": "ingest"}
    with tempfile.TemporaryDirectory(prefix="bench-ingest-") as place:
        folder = Path(place)
        if "speed" in parts:
            report |= speed(folder, arguments)
        if "again" in parts:
            report |= unchanged(folder, arguments)
        if "linearity" in parts:
            report |= linearity(folder, arguments)
        if "scale" in parts:
            report |= scale.near_duplicates(arguments.photos) | scale.manifest_of_a_million()
        if "sensor" in parts:
            report |= scale.sensor_tick()
        if "faces" in parts:
            report |= scale.faces(arguments.photos)
    report["machine"] = machine()
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        (arguments.keep / f"ingest-{datetime.now(UTC):%Y%m%dT%H%M%S}.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report))


def run(side: str, source: Path, home: Path, arguments: argparse.Namespace, size: int | None = None) -> dict[str, Any]:
    """One side in a fresh process; its home is removed afterwards."""
    numbers = [str(size or arguments.size), str(arguments.workers)]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.ingest.sides", side, str(source), str(home), *numbers]
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def speed(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Ours against the plain way and against the bare decoders, in rotating order."""
    corpus = write_corpus(folder / "speed", arguments.photos, arguments.images)
    say(f"{corpus.images} images ({corpus.photos}), {len(corpus.damaged)} damaged; first: do both sides agree?")
    agreed = agreement(corpus, arguments.size)
    seconds: dict[str, list[float]] = {side: [] for side in _SPEED}
    digests: list[dict[str, str]] = []
    steps: list[dict[str, float]] = []
    for number in range(arguments.rounds):
        order = _SPEED[number % len(_SPEED) :] + _SPEED[: number % len(_SPEED)]
        rejected: dict[str, list[str]] = {}
        for side in order:
            found = run(side.removesuffix("_again"), corpus.folder, folder / "home", arguments)
            seconds[side].append(found["seconds"])
            if "rejected" in found:
                rejected[side] = found["rejected"]
            if "digests" in found:
                digests.append(found["digests"])
                steps.append(found["by_step"])
        if len({json.dumps(keys) for keys in rejected.values()}) != 1 or set(rejected["ours"]) != set(corpus.damaged):
            sys.exit("the sides reject different files, so no ratio counts: " + json.dumps(rejected)[:2000])
        told = ", ".join(f"{side} {arguments.images / values[-1]:.0f}" for side, values in seconds.items())
        say(f"round {number + 1}, images a second: {told}")
    if any(found != digests[0] for found in digests):
        sys.exit("payload digests differ between rounds, so no ratio counts")
    fastest = min(_DECODERS, key=lambda side: statistics.median(seconds[side]))
    ratios = [plain / statistics.mean(own) for plain, *own in zip(seconds["plain"], seconds["ours"], seconds["ours_again"], strict=True)]
    shares = [bare / statistics.mean(own) for bare, *own in zip(seconds[fastest], seconds["ours"], seconds["ours_again"], strict=True)]
    control = [one / other for one, other in zip(seconds["ours"], seconds["ours_again"], strict=True)]
    shutil.rmtree(corpus.folder)
    return {
        "photos": corpus.photos,
        "images": corpus.images,
        "damaged": len(corpus.damaged),
        "speedup_vs_pillow": round(statistics.median(ratios), 3),
        "speedup_vs_pillow_interval": interval(ratios),
        "share_of_decoder": round(statistics.median(shares), 3),
        "share_of_decoder_interval": interval(shares),
        "fastest_decoder": fastest.removeprefix("decode_"),
        "control_ratio": round(statistics.median(control), 3),
        "control_ratio_interval": interval(control),
        "rejects_equal": True,
        **agreed,
        "images_a_second": {side: [round(arguments.images / value) for value in values] for side, values in seconds.items()},
        "seconds": {side: [round(value, 3) for value in values] for side, values in seconds.items()},
        "seconds_by_step": [{name: round(value, 3) for name, value in step.items()} for step in steps],
        "workers": arguments.workers,
        "size": arguments.size,
        "bit_flips": found_in_flipped(arguments.photos),
    }


def unchanged(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Cold against unchanged, and 1% changed."""
    corpus = write_corpus(folder / "again", arguments.photos, 10_000)
    found = run("again", corpus.folder, folder / "home", arguments)
    shutil.rmtree(corpus.folder)
    ratio = found["cold"] / statistics.median(found["unchanged"])
    say(f"unchanged: {ratio:.0f} times faster; of 1% changed ({found['one_percent_changed']}), decoded {found['one_percent_decoded']}")
    return {
        "unchanged_speedup": round(ratio, 1),
        "unchanged_images": corpus.images,
        "unchanged_decoded": found["unchanged_decoded"],
        "one_percent_changed": found["one_percent_changed"],
        "one_percent_decoded": found["one_percent_decoded"],
        "one_percent_speedup": round(found["cold"] / found["one_percent"], 1),
        "unchanged_seconds": {"cold": found["cold"], "unchanged": found["unchanged"], "one_percent": found["one_percent"]},
        "unchanged_by_step": found["unchanged_by_step"],
    }


def linearity(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """40,000 images over 10,000, the large run between two small ones; of small pixels, so that no disk is filled faster than it writes."""
    seconds: dict[int, list[float]] = {10_000: [], 40_000: []}
    for images in (10_000, 40_000):
        write_corpus(folder / str(images), arguments.photos, images, seed=images)
    for images in (10_000, 40_000, 10_000):
        seconds[images].append(run("ours", folder / str(images), folder / "home", arguments, _SMALL)["seconds"])
        say(f"{images} images: {seconds[images][-1]:.1f} s")
    for images in seconds:
        shutil.rmtree(folder / str(images))
    ratio = statistics.mean(seconds[40_000]) / statistics.mean(seconds[10_000])
    return {
        "linearity": round(ratio, 3),
        "linearity_size": _SMALL,
        "linearity_seconds": {str(images): values for images, values in seconds.items()},
    }


if __name__ == "__main__":
    random.seed(0)
    main()
