"""A run that is killed half-way and started again, and two runs of the same assets at once: the same digests as undisturbed ones."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from pipeline_project.ingest.arrivals import changed_days
from pipeline_project_tests.bad_input.conftest import INGEST, Shop

pytestmark = pytest.mark.slow
DAY, OTHER = "2026-01-01", "2026-01-02"
ASSETS = [*INGEST, "dataset_splits"]

_STEPS = """
import json, sys
from datetime import date
from pipeline_project.dataset.versions import make_dataset_version
from pipeline_project.ingest.features import measure_images
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext

for turn in range(int(sys.argv[1])):
    context = StageContext.open(load_settings(), recompute=True)
    made = [step(context, date.fromisoformat(sys.argv[2])) for step in (take_inventory, validate_images, pack_images, measure_images)]
    made.append(make_dataset_version(context))
    print(json.dumps({one.artifact.name: one.artifact.digest for one in made}), flush=True)
"""


def digests(shop: Shop) -> dict[str, str]:
    """Those of the newest versions, each read whole."""
    found = {}
    for name in ASSETS:
        artifact = shop.context().artifacts.find(name, None if name == "dataset_splits" else DAY)
        if artifact is not None:
            artifact.verify()
            found[name] = artifact.digest
    return found


def stored(shop: Shop) -> int:
    """How many files the store holds, drafts too."""
    return sum(len(files) for _, _, files in os.walk(shop.home / "store"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("undisturbed"))
    shop.day(DAY, 30)
    runs = shop.materialize([INGEST], DAY) + shop.materialize([["dataset_splits"]])
    assert all(run.success for run in runs)
    return shop


def another(folder: Path, shop: Shop) -> Shop:
    """Another home on the same source: an inventory tells a copied file from the first one."""
    return Shop(folder, data={"source": str(shop.source)})


@pytest.mark.parametrize("seed", [0, 1])
def test_run_killed_half_way_and_started_again(undisturbed: Shop, tmp_path: Path, seed: int) -> None:
    files = stored(undisturbed)
    shop, chance, kills = another(tmp_path, undisturbed), random.Random(seed), 0
    for _ in range(3):
        limit = stored(shop) + chance.randint(1, max(1, files // 3))
        process = shop.start([INGEST], DAY)
        try:
            while process.poll() is None and stored(shop) < limit:
                time.sleep(0.001)
            time.sleep(chance.random() * 0.02)
        finally:
            finished = process.poll() is not None
            process.send_signal(signal.SIGKILL)
            process.communicate()
        kills += not finished
        artifacts = shop.context().artifacts
        assert not [key for key in artifacts.bytes.list("") if ".draft-" in key]
        whole = digests(shop)
        if not finished and "image_features" not in whole:
            assert date.fromisoformat(DAY) in changed_days(shop.context()), "the day is asked for again"
    assert kills, "no process was killed in the middle: the test tells nothing"
    ingested = shop.materialize([INGEST], DAY)
    splits = shop.materialize([["dataset_splits"]])
    assert all(run.success for run in [*ingested, *splits]), [run.failures for run in [*ingested, *splits]]
    assert digests(shop) == digests(undisturbed)
    assert changed_days(shop.context()) == {}


def test_two_runs_of_the_same_assets_at_once(undisturbed: Shop, tmp_path: Path) -> None:
    shop = another(tmp_path, undisturbed)
    shop.materialize([["raw_images"]], OTHER)  # Dagster's databases are there, as they are beside a running webserver
    both = [shop.start([INGEST], DAY) for _ in range(2)]
    outcomes = [process.communicate(timeout=300) for process in both]
    for process, (out, errors) in zip(both, outcomes, strict=True):
        assert process.returncode == 0, errors[-3000:]
        [line] = [line for line in out.splitlines() if line.startswith("RUN ")]
        assert json.loads(line.removeprefix("RUN "))["success"], line
    both = [shop.start([["dataset_splits"]], "-") for _ in range(2)]
    for process in both:
        out, errors = process.communicate(timeout=300)
        assert '"success": true' in out, out + errors[-3000:]
    assert digests(shop) == digests(undisturbed)


def test_two_processes_many_times_while_others_read(open_shop: Callable[..., Shop]) -> None:
    turns = 8
    shop = open_shop()
    for day in (DAY, OTHER):
        shop.day(day, 16)
        shop.materialize([INGEST], day)
    command = [sys.executable, "-W", "ignore", "-c", _STEPS, str(turns), DAY]
    both = [subprocess.Popen(command, env=shop.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    reads, seen = 0, set()
    while any(process.poll() is None for process in both):
        seen.add(tuple(sorted(digests(shop).items())))  # every head is readable, and names whole bytes, at every moment
        reads += 1
    lines = []
    for process in both:
        out, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
        lines += out.splitlines()
    assert len(lines) == 2 * turns
    assert len(set(lines)) == 1, "every turn of both gave the same digests"
    assert json.loads(lines[0]) == digests(shop)
    assert reads > turns
    assert len({dict(found)["image_pack"] for found in seen}) == 1
