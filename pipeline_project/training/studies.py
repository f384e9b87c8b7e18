"""The study behind a tuning: where its trials are kept, who may work on it, and what each trial tries.

A worker may be killed at any moment. Its lock is the kernel's, so nobody waits for the dead. Its unfinished trial is repeated with the
same values, because what a trial tries depends only on the seed, the worker, the trial's place in the worker's share and the trials
that were finished before it. So a tuning that was interrupted chooses what an undisturbed one chooses.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipeline_project.settings import Settings

if TYPE_CHECKING:
    import optuna

_SEEDS_A_WORKER = 100_003  # more trials than anybody runs: no two trials of two workers share a seed


def open_study(settings: Settings, name: str) -> "optuna.Study":
    """A study in the storage of the settings, made on first use. Its sampler is set for each trial, see `sampler_of`."""
    import optuna

    pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2)
    storage = settings.tuning.storage or _journal(settings.home / "studies" / f"{name}.journal")
    return optuna.create_study(study_name=name, storage=storage, pruner=pruner, direction="maximize", load_if_exists=True)


def sampler_of(settings: Settings, worker: int, index: int) -> "optuna.samplers.BaseSampler":
    """What chooses the values of a worker's trial number `index` (from 0), the same whenever and wherever it is asked.

    The very first trial takes the settings' own values, where they lie in the search's ranges: tuning then never does worse knowingly.
    """
    import optuna

    own = _own_values(settings)
    if worker == index == 0 and own is not None:
        return _given(own)
    seed = settings.training.seed + worker * _SEEDS_A_WORKER + index
    if settings.tuning.method == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    startup = max(2, min(10, settings.tuning.trials // 3))
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, multivariate=False)


def fail_abandoned(settings: Settings, study: "optuna.Study", worker: int) -> None:
    """Mark what a killed process of this worker left running. Call it with the worker's lock held: then nobody else runs it.

    Not in a database, whose workers may be elsewhere and cannot see our lock; a trial left running there counts for nothing.
    """
    from optuna.trial import TrialState

    if settings.tuning.storage:
        return
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("worker") == worker:
            study.tell(trial.number, state=TrialState.FAIL)


@contextmanager
def worker_lock(settings: Settings, name: str, worker: int, log: Callable[[str], None]) -> Iterator[None]:
    """One process at a time works as this worker of a study; a second one waits, and then finds the trials done.

    The kernel releases the lock when its holder dies, however it dies. The file is removed when the work is done.
    """
    path = settings.home / "studies" / f"{name}-worker-{worker}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"worker {worker}: another run works on the same study; waiting until it has ended")
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            break
        file.close()  # its last holder removed the file between our opening and our locking it
    try:
        yield
    finally:
        path.unlink()
        file.close()


def _own_values(settings: Settings) -> dict[str, float] | None:
    tuning = settings.tuning
    values = {
        "learning_rate": settings.training.learning_rate,
        "batch_size": settings.training.batch_size,
        "dropout": settings.model.dropout,
    }
    inside = (
        tuning.learning_rate[0] <= values["learning_rate"] <= tuning.learning_rate[1]
        and values["batch_size"] in tuning.batch_size
        and tuning.dropout[0] <= values["dropout"] <= tuning.dropout[1]
    )
    return values if inside else None


def _given(values: dict[str, float]) -> "optuna.samplers.BaseSampler":
    import optuna

    class Given(optuna.samplers.RandomSampler):  # type: ignore[misc]
        """Chooses what it was given."""

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return values[param_name]

    return Given(seed=0)


def _journal(path: Path) -> Any:
    """A file of the runtime home. Optuna's own locks are files that a killed process leaves behind, and others wait 30 s for them."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class KernelLock:
        """A lock on the journal itself, which the kernel releases with its holder. The next one mends a line that was cut short."""

        def __init__(self) -> None:
            self._file: IO[bytes] | None = None

        def acquire(self) -> bool:
            self._file = path.open("r+b")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            _drop_cut_line(self._file)
            return True

        def release(self) -> None:
            if self._file is not None:
                self._file.close()
                self._file = None

    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    lock = KernelLock()
    lock.acquire()
    lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _drop_cut_line(journal: IO[bytes]) -> None:
    """Remove a last line without an end: its writer was killed, and what is appended to it could never be read."""
    size = journal.seek(0, os.SEEK_END)
    if size == 0:
        return
    journal.seek(size - 1)
    if journal.read(1) == b"\n":
        return
    journal.seek(0)
    journal.truncate(journal.read().rfind(b"\n") + 1)
