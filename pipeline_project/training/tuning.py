"""tuned_hyperparameters: a Bayesian search with pruning (R88-R90), shared by workers, resumable, every trial kept.

The study's name is the digest of all that decides it (data, settings, code), so a run that was killed goes on where it stopped and a
changed input starts afresh.
"""

from typing import TYPE_CHECKING, Any

from pipeline_project.contracts import Hyperparameters
from pipeline_project.digests import canonical_json, digest_of
from pipeline_project.plots import plot
from pipeline_project.reuse import reusable
from pipeline_project.settings import Settings
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.training.recipe import FIT_SETTINGS, fit_inputs
from pipeline_project.training.studies import fail_abandoned, open_study, sampler_of, worker_lock
from pipeline_project.training.tracking import require_reachable

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes


def study_name(context: StageContext) -> str:
    """The key of all that decides a study; a run that makes everything anew has a study of its own."""
    key = conclude_study.recipe(context).key
    return (digest_of([key, context.artifacts.run]) if context.recompute else key)[:32]


def workers_needed(context: StageContext) -> list[int]:
    """The workers that have trials to run: none where the same study was concluded before."""
    recipe = conclude_study.recipe(context)
    concluded = not context.recompute and conclude_study.find(context, recipe) is not None
    return [] if concluded else list(range(context.settings.tuning.workers))


def run_trials(context: StageContext, worker: int) -> int:
    """One worker's share of the trials. Returns how many it ran now (0 when they were all done before)."""
    import optuna
    from optuna.trial import TrialState

    from pipeline_project.training.data import load_arrays

    settings = context.settings
    name = study_name(context)
    with worker_lock(settings, name, worker, context.log):
        study = open_study(settings, name)
        fail_abandoned(settings, study, worker)
        mine = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get("worker") == worker]
        done = sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in mine)
        left = range(done, _share(settings, worker))
        if not left:
            return 0
        require_reachable(settings.tracking_uri)  # before the hours of computing, not after them
        dataset = context.artifacts.latest("dataset_splits")
        train, validation = (load_arrays(context.artifacts, split, dataset) for split in ("train", "validation"))

        def objective(trial: "optuna.Trial") -> float:
            return _run_trial(context, trial, worker, train, validation)

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for index in left:
            study.sampler = sampler_of(settings, worker, index)
            study.optimize(objective, n_trials=1)
        return len(left)


def finish_study(context: StageContext) -> StepResult:
    """Run the trials that no worker has run, and conclude the study.

    When a run was killed while its workers were being planned, its repetition has no step for some of them.
    """
    for worker in workers_needed(context):
        run_trials(context, worker)
    return conclude_study(context)


@reusable(
    "tuned_hyperparameters",
    inputs=lambda context: fit_inputs(context, "dataset_splits"),
    settings=[
        *FIT_SETTINGS,
        "model.dropout",
        "training.batch_size",
        "training.learning_rate",
        *(f"tuning.{name}" for name in ("batch_size", "dropout", "epochs", "learning_rate", "method", "trials", "workers")),
    ],
)
def conclude_study(context: StageContext) -> StepResult:
    """Choose the best trial (validation accuracy, then loss), log every trial to MLflow, publish the study.

    Payload: hyperparameters.json (`Hyperparameters`), study.json (every trial with its learning curve).

    Raises:
        ValueError: no trial was completed, or fewer trials were run than the settings ask for.
    """
    from optuna.trial import TrialState

    settings = context.settings
    trials = open_study(settings, study_name(context)).get_trials(deepcopy=False)
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
    if len(rows) < settings.tuning.trials:
        raise ValueError(
            f"{len(rows)} of the {settings.tuning.trials} trials (tuning.trials) were run. "
            "Materialize tuned_hyperparameters again: it goes on where it stopped."
        )
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
            "dataset": str(artifact.info["dataset"]),
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
