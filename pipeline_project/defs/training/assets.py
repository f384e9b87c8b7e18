"""tuned_hyperparameters, cross_validation_report (both with dynamic steps), trained_model."""

from collections.abc import Iterator

import dagster as dg

from pipeline_project.code_version import code_version
from pipeline_project.defs.common import (
    ML_TEAM,
    STORE_RETRIES,
    TRAINING_POOL,
    TRAINING_RETRIES,
    materialized,
    stage_context,
    step_metadata,
)
from pipeline_project.defs.dataset.assets import dataset_splits
from pipeline_project.defs.errors import user_errors
from pipeline_project.defs.k8s import GPU_STEP
from pipeline_project.defs.resources import project_settings
from pipeline_project.defs.training.mlflow import training_run
from pipeline_project.stage import StepResult


@dg.op(ins={"dataset_splits": dg.In(dg.Nothing)}, out=dg.DynamicOut(int), retry_policy=STORE_RETRIES)
def plan_workers(context: dg.OpExecutionContext) -> Iterator[dg.DynamicOutput[int]]:
    """One dynamic step for each tuning worker; none when the study was concluded before."""
    from pipeline_project.training.tuning import workers_needed

    with user_errors():
        workers = workers_needed(stage_context(context))
    for worker in workers:
        yield dg.DynamicOutput(worker, mapping_key=f"worker_{worker}")


@dg.op(tags=GPU_STEP, retry_policy=TRAINING_RETRIES, pool=TRAINING_POOL)
def run_worker(context: dg.OpExecutionContext, worker: int) -> int:
    """A worker's share of the trials."""
    from pipeline_project.training.tuning import run_trials

    with user_errors():
        return run_trials(stage_context(context), worker)


@dg.op(retry_policy=STORE_RETRIES)
def choose_best_trial(context: dg.OpExecutionContext, trials: list[int]) -> dg.Output[str]:
    """The best trial of all workers."""
    from pipeline_project.training.tuning import finish_study

    context.log.info(f"{sum(trials)} trials run now")
    with user_errors():
        return _output(finish_study(stage_context(context)))


@dg.graph_asset(
    ins={"dataset_splits": dg.AssetIn(dataset_splits.key, dagster_type=dg.Nothing)},
    group_name="training",
    kinds={"optuna", "pytorch", "mlflow"},
    owners=[ML_TEAM],
    code_version=code_version("training.tuning"),
)
def tuned_hyperparameters(dataset_splits: None) -> str:
    """The best trial of a Bayesian search with pruning; every trial is kept. Workers are dynamic steps."""
    return choose_best_trial(plan_workers(dataset_splits).map(run_worker).collect())  # type: ignore[no-any-return]


@dg.op(
    ins={"dataset_splits": dg.In(dg.Nothing), "tuned_hyperparameters": dg.In(dg.Nothing)},
    out=dg.DynamicOut(int),
    retry_policy=STORE_RETRIES,
)
def plan_folds(context: dg.OpExecutionContext) -> Iterator[dg.DynamicOutput[int]]:
    """One dynamic step for each fold; none when the report was made before."""
    from pipeline_project.training.cross_validation import folds_needed

    with user_errors():
        folds = folds_needed(stage_context(context))
    for fold in folds:
        yield dg.DynamicOutput(fold, mapping_key=f"fold_{fold}")


@dg.op(tags=GPU_STEP, retry_policy=TRAINING_RETRIES, pool=TRAINING_POOL)
def train_fold(context: dg.OpExecutionContext, fold: int) -> str:
    """Train on the other folds, score this one."""
    from pipeline_project.training.cross_validation import run_fold

    with user_errors():
        return run_fold(stage_context(context), fold).digest


@dg.op(retry_policy=STORE_RETRIES)
def summarise_folds(context: dg.OpExecutionContext, folds: list[str]) -> dg.Output[str]:
    """Mean and spread over the folds."""
    from pipeline_project.training.cross_validation import finish_folds

    context.log.info(f"{len(folds)} folds done")
    with user_errors():
        return _output(finish_folds(stage_context(context)))


@dg.graph_asset(
    ins={
        "dataset_splits": dg.AssetIn(dataset_splits.key, dagster_type=dg.Nothing),
        "tuned_hyperparameters": dg.AssetIn("tuned_hyperparameters", dagster_type=dg.Nothing),
    },
    group_name="training",
    kinds={"pytorch", "scikitlearn"},
    owners=[ML_TEAM],
    code_version=code_version("training.cross_validation"),
)
def cross_validation_report(dataset_splits: None, tuned_hyperparameters: None) -> str:
    """Stratified folds with the tuned values: how far results depend on the draw of the data. Each fold is a dynamic step."""
    return summarise_folds(plan_folds(dataset_splits=dataset_splits, tuned_hyperparameters=tuned_hyperparameters).map(train_fold).collect())  # type: ignore[no-any-return]


@dg.asset(
    deps=[dataset_splits, "tuned_hyperparameters"],
    group_name="training",
    pool=TRAINING_POOL,
    retry_policy=TRAINING_RETRIES,
    kinds={"pytorch", "mlflow"},
    owners=[ML_TEAM],
    code_version=code_version("training.final"),
    op_tags=GPU_STEP,
)
def trained_model(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The best weights of the final fit, its history, and the comparison with baselines. Refuses a changed architecture unapproved."""
    from pipeline_project.training.final import train_model

    with user_errors():
        return materialized(train_model(stage_context(context), lambda: training_run(context, project_settings())))


def _output(result: StepResult) -> dg.Output[str]:
    return dg.Output(result.artifact.digest, metadata=step_metadata(result), data_version=dg.DataVersion(result.artifact.digest))
