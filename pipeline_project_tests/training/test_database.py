"""The local MLflow database: made whole or not at all, whoever is killed and whoever comes at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_project.settings import load_settings
from pipeline_project.training.tracking import prepare_tracking, tracked_run

pytestmark = pytest.mark.slow
MAKER = """
import sys
from pathlib import Path
import mlflow.store.tracking.sqlalchemy_store
from pipeline_project.training.tracking import create_database
print("go", flush=True)
create_database(Path(sys.argv[1]))
print("made", flush=True)
"""


def make(database: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "ignore", "-c", MAKER, str(database)]
    made = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert made.stdout is not None
    assert "go\n" in iter(made.stdout.readline, "")
    return made


def test_killed_while_its_tables_are_made_it_is_made_by_the_next(tmp_path: Path) -> None:
    settings = load_settings("sample", environment={"PIPELINE_HOME": str(tmp_path)})
    database = tmp_path / "mlflow.db"
    unfinished = 0
    for seconds in (0.02, 0.1, 0.3, 0.6):
        maker = make(database)
        try:
            maker.wait(seconds)
        except subprocess.TimeoutExpired:
            maker.kill()
            maker.wait()
        unfinished += not database.exists()
    assert unfinished >= 1, "no kill met the making"
    prepare_tracking(settings)
    with tracked_run(settings, "after the kills") as tracker:
        tracker.log_metrics({"accuracy": 0.5})
    assert not [path.name for path in tmp_path.glob(".*mlflow.db*")], "drafts and locks are gone"


def test_two_that_come_at_once_make_one_database(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    makers = [make(database) for _ in range(2)]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.read().endswith("made\n")
    settings = load_settings("sample", environment={"PIPELINE_HOME": str(tmp_path)})
    assert prepare_tracking(settings) == prepare_tracking(settings)
