"""A tuning whose worker is killed in the middle of its trials publishes what an undisturbed one publishes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_project.sample import generate_catalogue
from pipeline_project.stage import StageContext
from pipeline_project_tests.training.test_steps import DAYS, open_project, prepare, tune

pytestmark = pytest.mark.slow
WORKER = """
import sys
from pathlib import Path
from pipeline_project.training.tuning import run_trials
from pipeline_project_tests.training.test_steps import open_project
run_trials(open_project(Path(sys.argv[1]), sys.argv[2]), 0)
"""


def test_killed_tuning_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    generate_catalogue(tmp_path / "photos", seed=5, days=DAYS, images_per_day=80)
    calm = prepared(tmp_path, "calm")
    tune(calm)
    rough = prepared(tmp_path, "rough")
    for lines in (4, 9):  # in the first trial; in the second one
        kill_when_written(rough, tmp_path, lines)
    tune(rough)
    one, other = (context.artifacts.latest("tuned_hyperparameters") for context in (calm, rough))
    assert other.json("study.json") == one.json("study.json")
    assert other.digest == one.digest
    assert [path.suffix for path in (rough.settings.home / "studies").iterdir()] == [".journal"], "no lock is left"


def prepared(folder: Path, home: str) -> StageContext:
    context = open_project(folder, home)
    prepare(context)
    return context


def kill_when_written(context: StageContext, folder: Path, lines: int) -> None:
    """Start a worker, and kill it once the journal has a number of lines."""
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", WORKER, str(folder), context.settings.home.name])
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        written = sum(path.read_bytes().count(b"\n") for path in context.settings.home.glob("studies/*.journal"))
        if written >= lines:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait(30) == -signal.SIGKILL, "it was killed before it was done"
