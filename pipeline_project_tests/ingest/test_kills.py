"""`make test-kill`: ingest killed with SIGKILL at 20 random moments and started again ends with the digests of an undisturbed run."""

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project.tables import parquet_to_frame

pytestmark = pytest.mark.slow
DAY = date(2026, 11, 1)
PROGRAM = Path(__file__).with_name("ingest_day.py")
IMAGES = 900  # several shards
KILLS = 20
SEED = 0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day of photos: some damaged, some doubled, some without a label."""
    folder = tmp_path_factory.mktemp("photos") / DAY.isoformat()
    folder.mkdir()
    rng, lines = np.random.default_rng(SEED), ["image,label,title"]
    for number in range(IMAGES):
        buffer = io.BytesIO()
        pixels = np.repeat(np.repeat(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), 20, axis=0), 20, axis=1)
        Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
        data = buffer.getvalue()
        if number % 50 == 7:
            data = data[: len(data) // 2]
        if number % 50 == 9:
            data = (folder / f"{number - 1:04d}.jpg").read_bytes()
        (folder / f"{number:04d}.jpg").write_bytes(data)
        if number % 100 != 11:
            lines.append(f"{number:04d}.jpg,{('books', 'toys')[number % 2]},call 555-010-{number:04d} or write to a{number}@example.org")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder.parent


def environment(photos: Path, home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PIPELINE_HOME": str(home),
        "PIPELINE__DATA__SOURCE": str(photos),
        "PIPELINE__DATA__CLASSES": "[books, toys]",
        "PIPELINE__DATA__TEXT_COLUMNS": "[title]",
        "PIPELINE__DATA__START_DATE": DAY.isoformat(),
        "PIPELINE__INGEST__MAX_REJECT_RATE": "0.2",
    }


def start(photos: Path, home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", str(PROGRAM), DAY.isoformat()]
    return subprocess.Popen(command, env=environment(photos, home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def context_of(photos: Path, home: Path) -> StageContext:
    return StageContext.open(load_settings("sample", environment=environment(photos, home)))


def digests(context: StageContext) -> dict[str, str]:
    names = ("raw_images", "validated_manifest", "image_pack", "image_features")
    return {name: context.artifacts.latest(name, DAY.isoformat()).digest for name in names}


def descendants(pid: int) -> Iterator[psutil.Process]:
    try:
        yield from psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return


def test_killed_at_random_moments_ingest_ends_with_the_same_digests(photos: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    finish(start(photos, tmp_path / "calm"))
    whole = time.monotonic() - begin
    expected = digests(context_of(photos, tmp_path / "calm"))

    chance, home, kills, completed, orphans = random.Random(SEED), tmp_path / "rough", 0, 0, []
    while kills < KILLS:
        process = start(photos, home)
        deadline = time.monotonic() + chance.uniform(0.1, 1.0) * whole
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        workers = list(descendants(process.pid))
        if chance.random() < 0.3 and workers:  # a decoder dies, not the run: nothing may be lost by that
            chance.choice(workers).send_signal(signal.SIGKILL)
            finish(process)
        elif process.poll() is None:
            process.kill()
            process.communicate()
        else:
            finish(process)
        if process.returncode == 0:
            assert digests(context_of(photos, home)) == expected
            completed += 1
            shutil.rmtree(home)  # done before or in spite of the kill: begin anew
        if process.returncode == -signal.SIGKILL or workers:
            kills += 1
        orphans += workers
    finish(start(photos, home))
    context = context_of(photos, home)
    assert digests(context) == expected
    _, alive = psutil.wait_procs(orphans, timeout=20)
    assert not alive

    manifest = context.artifacts.latest("validated_manifest", DAY.isoformat())
    accepted = parquet_to_frame(manifest.read("manifest.parquet"))["key"].tolist()
    rejected = parquet_to_frame(manifest.read("rejects.parquet"))["key"].tolist()
    keys = sorted(f"{DAY}/{path.name}" for path in (photos / DAY.isoformat()).glob("*.jpg"))
    assert sorted(accepted + rejected) == keys  # none lost, none taken twice
