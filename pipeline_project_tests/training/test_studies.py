"""The study behind a tuning survives its workers: locks die with their holders, and a repeated trial tries what the killed one tried."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline_project.settings import Settings, load_settings
from pipeline_project.training.studies import fail_abandoned, open_study, sampler_of, worker_lock

optuna = pytest.importorskip("optuna")
NAME = "study"
TRIALS = 12


def settings_of(home: Path, **tuning: str) -> Settings:
    changes = {f"PIPELINE__TUNING__{key.upper()}": value for key, value in {"trials": str(TRIALS), "workers": "2", **tuning}.items()}
    return load_settings("sample", environment={"PIPELINE_HOME": str(home), **changes})


def objective(trial: Any) -> float:
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    batch = trial.suggest_categorical("batch_size", [16, 32, 64])
    dropout = trial.suggest_float("dropout", 0.1, 0.6)
    return float(-((rate - 0.01) ** 2) - (dropout - 0.3) ** 2 + batch / 1000)


def work(settings: Settings, worker: int, count: int, *, fail_at: int | None = None) -> None:
    """Run a worker's next trials; the one at `fail_at` is abandoned half-way, as by a SIGKILL, and then repeated."""
    study = open_study(settings, NAME)
    fail_abandoned(settings, study, worker)
    done = sum(t.user_attrs.get("worker") == worker and t.state == optuna.trial.TrialState.COMPLETE for t in study.get_trials())
    for index in range(done, count):
        study.sampler = sampler_of(settings, worker, index)
        trial = study.ask()
        trial.set_user_attr("worker", worker)
        value = objective(trial)
        if index == fail_at:
            return
        study.tell(trial, value)


def finished(settings: Settings) -> list[tuple[int, dict[str, Any], float]]:
    trials = open_study(settings, NAME).get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    return [(t.user_attrs["worker"], t.params, t.value) for t in trials]


@pytest.mark.parametrize("method", ["bayesian_optimization", "random"])
def test_killed_trials_are_repeated_with_the_same_values(tmp_path: Path, method: str) -> None:
    calm, rough = settings_of(tmp_path / "calm", method=method), settings_of(tmp_path / "rough", method=method)
    for worker in (0, 1):
        work(calm, worker, TRIALS // 2)
        for index in (0, 3, 3, 5):
            work(rough, worker, TRIALS // 2, fail_at=index)
        work(rough, worker, TRIALS // 2)
    assert finished(rough) == finished(calm)
    assert len(finished(rough)) == TRIALS
    states = {t.state.name for t in open_study(rough, NAME).get_trials()}
    assert states == {"COMPLETE", "FAIL"}, "what was killed is marked, and nothing runs for ever"


def test_the_first_trial_is_the_settings_own_values(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    work(settings, 0, 2)
    (_, first, _), (_, second, _) = finished(settings)
    assert first["learning_rate"] == settings.training.learning_rate
    assert first["batch_size"] == settings.training.batch_size
    assert first["dropout"] == settings.model.dropout
    assert second != first


def test_no_two_trials_try_the_same(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, method="random")
    for worker in (0, 1):
        work(settings, worker, TRIALS // 2)
    tried = [json.dumps(params, sort_keys=True) for _, params, _ in finished(settings)]
    assert len(set(tried)) == TRIALS


HOLDER = """
import sys
from pathlib import Path
from pipeline_project_tests.training.test_studies import NAME, settings_of
from pipeline_project.training.studies import open_study, worker_lock
settings = settings_of(Path(sys.argv[1]))
with worker_lock(settings, NAME, 0, print):
    study = open_study(settings, NAME)
    study.ask().set_user_attr("worker", 0)
    if sys.argv[2] == "in the journal":
        study._storage._backend._lock.acquire()
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(home: Path, where: str = "between trials") -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "ignore", "-c", HOLDER, str(home), where]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("where", ["between trials", "in the journal"])
def test_a_killed_holder_leaves_no_lock(tmp_path: Path, where: str) -> None:
    settings = settings_of(tmp_path)
    said: list[str] = []
    process = holder(tmp_path, where)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with worker_lock(settings, NAME, 0, said.append):
        work(settings, 0, 2)
    assert not said, "nobody had to wait"
    assert len(finished(settings)) == 2
    assert [path.name for path in (tmp_path / "studies").iterdir()] == [f"{NAME}.journal"], "no lock file is left"


@pytest.mark.slow
def test_a_second_run_waits_and_leaves_the_first_ones_trial_alone(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    said: list[str] = []
    process = holder(tmp_path)

    def let_go(line: str) -> None:
        said.append(line)
        running = open_study(settings, NAME).get_trials(states=(optuna.trial.TrialState.RUNNING,))
        assert len(running) == 1, "the first run's trial still runs"
        assert process.stdin is not None
        process.stdin.close()

    with worker_lock(settings, NAME, 1, said.append):
        assert not said, "another worker has a lock of its own"
    with worker_lock(settings, NAME, 0, let_go):
        assert process.wait(30) == 0
    assert said == ["worker 0: another run works on the same study; waiting until it has ended"]


def test_a_line_cut_short_does_not_spoil_the_journal(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    work(settings, 0, 2)
    journal = tmp_path / "studies" / f"{NAME}.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"worker_id":"half a li')
    work(settings, 0, 3)
    assert len(finished(settings)) == 3
    assert journal.read_bytes().startswith(whole)
    for line in journal.read_bytes().splitlines():
        json.loads(line)
