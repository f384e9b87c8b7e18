"""tuned_hyperparameters: a Bayesian search with pruning (R88-R90), shared by workers, resumable, every trial kept.

The study's name is the digest of all that decides it (data, settings, code), so a run that was killed goes on where it stopped and a
changed input starts afresh.
"""

from typing import TYPE_CHECKING, Any

from pipeline_project.contracts import Hyperparameters
from pipeline_project.digests import canonical_json, digest_of, sources_digest
from pipeline_project.plots import plot
from pipeline_project.settings import Settings
from pipeline_project.stage import StageContext, StepResult, Table

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes

TUNING_CODE = ("training/tuning.py", "training/loop.py", "training/models.py", "training/augmentation.py", "training/data.py")


def study_name(context: StageContext) -> str:
    """The digest of the data, the settings and the code that decide a study."""
    settings = context.settings
    parts = {
        "dataset": context.artifacts.latest("dataset_splits").digest,
        "settings": settings.model_dump(mode="json", include={"model", "training", "tuning", "augmentation", "image"}),
        "code": sources_digest(*TUNING_CODE),
    }
    return digest_of(parts)[:32]


def run_trials(context: StageContext, worker: int) -> int:
    """One worker's share of the trials. Returns how many it ran now (0 when they were all done before)."""
    import optuna
    from optuna.trial import TrialState

    from pipeline_project.training.data import load_arrays

    settings = context.settings
    study = _open_study(context, worker)
    mine = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get("worker") == worker]
    for trial in mine:
        if trial.state == TrialState.RUNNING:  # its process was killed
            study.tell(trial.number, state=TrialState.FAIL)
    left = _share(settings, worker) - sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in mine)
    if left <= 0:
        return 0
    dataset = context.artifacts.latest("dataset_splits")
    train, validation = (load_arrays(context.artifacts, split, dataset) for split in ("train", "validation"))

    def objective(trial: "optuna.Trial") -> float:
        return _run_trial(context, trial, worker, train, validation)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study.optimize(objective, n_trials=left)
    return left


def conclude_study(context: StageContext) -> StepResult:
    """Choose the best trial (validation accuracy, then loss), log every trial to MLflow, publish the study.

    Payload: hyperparameters.json (`Hyperparameters`), study.json (every trial with its learning curve).

    Raises:
        ValueError: no trial was completed.
    """
    from optuna.trial import TrialState

    settings = context.settings
    trials = _open_study(context, 0).get_trials(deepcopy=False)
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    if not done:
        raise ValueError("No trial was completed. Read the workers' logs for the reason, then materialize tuned_hyperparameters again.")
    best = max(done, key=lambda t: (t.values[0], -t.user_attrs["val_loss"], -t.number))
    chosen = Hyperparameters(**best.params)
    rows = [
        {
            "trial": t.number,
            "worker": t.user_attrs.get("worker", 0),
            "state": t.state.name.lower(),
            **t.params,
            "val_accuracy": t.values[0] if t.values else max(t.intermediate_values.values(), default=0.0),
            "epochs": len(t.intermediate_values),
            "curve": [round(v, 6) for _, v in sorted(t.intermediate_values.items())],
        }
        for t in trials
        if t.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    rows.sort(key=lambda row: (row["worker"], row["trial"]))
    for number, row in enumerate(rows):
        row["trial"] = number  # numbers of parallel workers depend on timing; the order within a worker does not
    run_id = _log_trials(settings, rows, chosen)
    study = {"version": 1, "name": study_name(context), "method": settings.tuning.method, "trials": rows}
    artifact = context.artifacts.publish(
        "tuned_hyperparameters",
        {"hyperparameters.json": canonical_json(chosen.model_dump()), "study.json": canonical_json(study)},
        info={"dataset": context.artifacts.latest("dataset_splits").digest, "mlflow_run_id": run_id},
    )
    pruned = sum(row["state"] == "pruned" for row in rows)
    return StepResult(
        artifact,
        {
            **chosen.model_dump(),
            "best_val_accuracy": best.values[0],
            "trials": len(rows),
            "pruned": pruned,
            "mlflow_run_id": run_id,
            "all_trials": Table([{k: v for k, v in row.items() if k != "curve"} for row in rows]),
            "learning_curves": plot(lambda axes: _draw_curves(axes, rows)),
        },
    )


def _run_trial(context: StageContext, trial: "optuna.Trial", worker: int, train: Any, validation: Any) -> float:
    import optuna

    from pipeline_project.training.data import fit_plan
    from pipeline_project.training.loop import EpochReport, fit

    tuning = context.settings.tuning
    trial.set_user_attr("worker", worker)
    chosen = Hyperparameters(
        learning_rate=trial.suggest_float("learning_rate", *tuning.learning_rate, log=True),
        batch_size=int(trial.suggest_categorical("batch_size", tuning.batch_size)),
        dropout=trial.suggest_float("dropout", *tuning.dropout),
    )

    def report(epoch: EpochReport) -> bool:
        trial.report(epoch.val_accuracy, epoch.epoch)
        return bool(trial.should_prune())

    result = fit(fit_plan(context.settings, chosen, epochs=tuning.epochs), train, validation, on_epoch=report)
    best = result.history[result.best_epoch - 1]
    trial.set_user_attr("val_loss", best.val_loss)
    words = f"lr {chosen.learning_rate:.2g}, batch {chosen.batch_size}, dropout {chosen.dropout:.2f}"
    context.log(f"worker {worker}: trial {trial.number} ({words}): val_accuracy {best.val_accuracy:.3f}, {result.stopped_because}")
    if result.stopped_because == "pruned":
        raise optuna.TrialPruned
    return best.val_accuracy


def _open_study(context: StageContext, worker: int) -> "optuna.Study":
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    settings, name = context.settings, study_name(context)
    if settings.tuning.storage:
        storage: Any = settings.tuning.storage
    else:
        file = settings.home / "studies" / f"{name}.journal"
        file.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(file)))
    seed = settings.training.seed + worker
    startup = max(2, min(10, settings.tuning.trials // 3))
    samplers = optuna.samplers
    sampler: Any = (
        samplers.RandomSampler(seed=seed)
        if settings.tuning.method == "random"
        else samplers.TPESampler(seed=seed, n_startup_trials=startup, multivariate=False)
    )
    pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2)
    study = optuna.create_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner, direction="maximize", load_if_exists=True)
    if worker == 0 and not study.get_trials(deepcopy=False):
        _enqueue_defaults(study, settings)
    return study


def _enqueue_defaults(study: "optuna.Study", settings: Settings) -> None:
    """The settings' own values are the first trial, where they lie in the search's ranges: tuning then never does worse knowingly."""
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
    if inside:
        study.enqueue_trial(values)


def _share(settings: Settings, worker: int) -> int:
    trials, workers = settings.tuning.trials, settings.tuning.workers
    return trials // workers + (worker < trials % workers)


def _log_trials(settings: Settings, rows: list[dict[str, Any]], chosen: Hyperparameters) -> str:
    from pipeline_project.training.tracking import tracked_run

    with tracked_run(settings, "tuning", {"asset": "tuned_hyperparameters"}) as parent:
        parent.log_params(chosen.model_dump())
        for row in rows:
            child = parent.child(f"trial-{row['trial']}")
            child.log_params({name: row[name] for name in Hyperparameters.model_fields})
            for epoch, accuracy in enumerate(row["curve"], 1):
                child.log_metrics({"val_accuracy": accuracy}, epoch)
            child.end("FINISHED" if row["state"] == "complete" else "KILLED")
        parent.log_metrics({"best_val_accuracy": max(row["val_accuracy"] for row in rows), "trials": len(rows)})
        return parent.run_id


def _draw_curves(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    for row in rows:
        style = "-" if row["state"] == "complete" else ":"
        axes.plot(range(1, len(row["curve"]) + 1), row["curve"], style, label=f"{row['trial']}")
    axes.set(xlabel="epoch", ylabel="val_accuracy", title="Trials (dotted: pruned)")
    axes.grid(alpha=0.3)
