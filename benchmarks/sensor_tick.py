"""How long one tick of the new_objects sensor takes over a bucket of 100,000 keys: the real sensor, the real client, synthetic listings.

Two layouts, each with a label file of 100,000 rows: 1,000 dated folders of 100 images, scanned twice in ticks as the settings allow; and
no folders at all (every image goes through the arrival ledger), in ticks of a quarter of the keys. The figure that counts is the longest
single tick of all.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.report import machine, say

KEYS = 100_000
DAYS = 1_000


def measure(keys: int = KEYS) -> dict[str, Any]:
    """Run every layout. `sensor_tick_s_100k` is the longest tick, in seconds of wall time."""
    runs = {"dated": _run(keys, DAYS, None, 2), "flat_in_ticks": _run(keys, 0, keys // 4, 1)}
    for name, run in runs.items():
        say(f"{name}: ticks of {', '.join(f'{seconds:.2f}' for seconds in run['tick_s'])} s, cursor at most {run['cursor_bytes']:,} bytes")
    return {
        "sensor_tick_s_100k": round(max(max(run["tick_s"]) for run in runs.values()), 3),
        "sensor_ticks_100k": {name: len(run["tick_s"]) for name, run in runs.items()},
        "sensor_scans_s_100k": {name: run["scans_s"] for name, run in runs.items()},
        "sensor_cursor_bytes_100k": max(run["cursor_bytes"] for run in runs.values()),
    }


def _run(keys: int, days: int, limit: int | None, scans: int) -> dict[str, Any]:
    """Scans in a fresh process, against a server in another one."""
    with tempfile.TemporaryDirectory(prefix="sensor-tick-") as folder, _server(keys, days) as port:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIPELINE", "AWS_"))}
        environment |= {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
            "PIPELINE_HOME": f"{folder}/home",
            "PIPELINE__DATA__SOURCE": "s3://photos/",
            "PIPELINE__DATA__START_DATE": "2022-12-31",
            "PIPELINE__STORE__ROOT": f"{folder}/store",
            "PIPELINE__STORE__ENDPOINT_URL": f"http://127.0.0.1:{port}",
            **({"PIPELINE__INGEST__SCAN_KEYS": str(limit)} if limit else {}),
        }
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sensor_tick", "ticks", folder, str(scans)]
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the ticks failed:\n{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


@contextmanager
def _server(keys: int, days: int) -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.listing_server", str(keys), str(days)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["port"]
    finally:
        server.kill()
        server.wait()


def _ticks(folder: Path, wanted: int) -> dict[str, Any]:
    """Ticks of the real sensor until so many scans are through."""
    import dagster as dg

    from pipeline_project.definitions import defs
    from pipeline_project.defs.resources import project_settings
    from pipeline_project.ingest.scanning import ScanState, scan_identity

    repository = defs().get_repository_def()
    sensor, identity = repository.get_sensor_def("new_objects"), scan_identity(project_settings())
    (folder / "dagster").mkdir()
    seconds: list[float] = []
    scans_s: list[float] = []
    cursor, longest, scans = None, 0, 0
    with dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
        while scans < wanted:
            context = dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository)
            started = time.perf_counter()
            cursor = sensor.evaluate_tick(context).cursor
            seconds.append(round(time.perf_counter() - started, 3))
            longest = max(longest, len(cursor or ""))
            state = ScanState.load(cursor, identity)
            if state.scans > scans:
                scans_s.append(round(sum(seconds) - sum(scans_s), 3))
                scans = state.scans
        assert len(state.changes) == DAYS, f"{len(state.changes)} days were found, not {DAYS}"
    return {"tick_s": seconds, "scans_s": scans_s, "cursor_bytes": longest}


if __name__ == "__main__":
    if sys.argv[1:2] == ["ticks"]:
        print(json.dumps(_ticks(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        print(json.dumps({**measure(), "machine": machine()}))
