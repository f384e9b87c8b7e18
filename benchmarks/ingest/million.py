"""A day of a million images without its pixels: `python -m benchmarks.ingest.million STEP FOLDER ROWS`, each step in a process of its own.

`write` makes labels.csv and the facts that decoding gives; `inventory` reads the label file and summarises it as raw_images does; `join`
joins, encodes and publishes as validated_manifest does. The last line is a JSON object with the seconds and the peak memory.
"""

import json
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.ingest.corpus import CLASSES, DAY
from benchmarks.ingest.sides import project_settings
from pipeline_project.digests import canonical_json
from pipeline_project.ingest.decoding.shards import SCHEMA
from pipeline_project.ingest.inventory import attributes_text
from pipeline_project.ingest.inventory_summary import DayLabels, summarise
from pipeline_project.ingest.labels import read_rows
from pipeline_project.ingest.manifest_join import join_day
from pipeline_project.stage import StageContext
from pipeline_project.tables import parquet_to_table, table_to_parquet

_REJECTED = 0.02


def write(folder: Path, rows: int) -> None:
    """labels.csv, and facts.parquet: 2% of the images are rejected, 1% are copies."""
    chance, rng = random.Random(0), np.random.default_rng(0)
    keys = [f"{DAY}/{number:08d}.jpg" for number in range(rows)]
    with (folder / "labels.csv").open("w") as file:
        file.write("image,label,title\n")
        file.writelines(f"{number:08d}.jpg,{CLASSES[number % 5]},product number {number} in blue\n" for number in range(rows))
    raw = rng.bytes(32 * rows)
    ids = [raw[32 * number : 32 * number + 32].hex() for number in range(rows)]
    for number in range(1, rows, 100):
        ids[number] = ids[number - 1]
    code = [("corrupt" if chance.random() < _REJECTED else None) for _ in range(rows)]
    columns = {
        "key": keys,
        "image_id": ids,
        "size": rng.integers(10_000, 60_000, rows),
        "format": ["JPEG"] * rows,
        "mode": ["RGB"] * rows,
        "width": np.full(rows, 400),
        "height": np.full(rows, 533),
        "notes": ["[]"] * rows,
        "perceptual_hash": [ids[number][:16] for number in range(rows)],
        "faces": pa.nulls(rows, pa.int64()),
        "code": code,
        "detail": [None if one is None else "it starts like a JPEG, but cannot be decoded to its end" for one in code],
    }
    facts = pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names if name in columns})
    (folder / "facts.parquet").write_bytes(table_to_parquet(facts))


def inventory(folder: Path, rows: int) -> None:
    """From the label file's bytes to labels.parquet and the summary."""
    settings = project_settings(folder, folder / "home", 224, 2)
    found, problems = read_rows(f"{DAY}/labels.csv", (folder / "labels.csv").read_bytes(), settings.data)
    columns: dict[str, list[object]] = {name: [] for name in ("file", "line", "image", "label", "attributes")}
    for row in found:
        for name, value in zip(columns, ("labels.csv", row.line, row.image, row.label, attributes_text(row.attributes)), strict=True):
            columns[name].append(value)
    frame = pd.DataFrame(columns).astype({name: "int64" if name == "line" else object for name in columns})
    facts = parquet_to_table((folder / "facts.parquet").read_bytes(), ["key", "size", "image_id", "format"])
    objects = facts.rename_columns(["key", "size", "etag", "announced"])
    listed = [{"file": p.file, "code": p.code, "detail": p.detail} for p in problems]
    summary = summarise(DAY, objects, DayLabels(frame, [f"{DAY}/labels.csv"], listed), settings.data.classes)
    assert summary["objects"] == rows
    labels = pa.table({name: pa.array(frame[name], pa.string()) for name in ("image", "label", "attributes")})
    (folder / "labels.parquet").write_bytes(table_to_parquet(labels))


def join(folder: Path, rows: int) -> None:
    """From facts and labels to the published manifest."""
    context = StageContext.open(project_settings(folder, folder / "home", 224, 2))
    facts, labels = (parquet_to_table((folder / name).read_bytes()) for name in ("facts.parquet", "labels.parquet"))
    joined = join_day(facts, labels, context.settings.data.classes)
    assert joined.manifest.num_rows + joined.rejects.num_rows == rows
    payload = {
        "manifest.parquet": table_to_parquet(joined.manifest),
        "rejects.parquet": table_to_parquet(joined.rejects),
        "personal_data.json": canonical_json({}),
    }
    context.artifacts.publish("validated_manifest", payload, partition=DAY.isoformat())


STEPS: dict[str, Callable[[Path, int], None]] = {"write": write, "inventory": inventory, "join": join}


def main() -> None:
    """Run one step and print its cost."""
    step, folder, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    begin = time.perf_counter()
    STEPS[step](folder, rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": round(time.perf_counter() - begin, 1), "rss_mb": round(peak)}))


if __name__ == "__main__":
    main()
