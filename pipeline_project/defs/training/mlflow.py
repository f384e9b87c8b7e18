"""The training run in MLflow through dagster-mlflow's resource, for `trained_model` alone.

The resource looks its MLflow run up by the Dagster run's id and keeps it active in the process, so it must not be shared by parallel
steps, and it must not be built before it is needed (MLflow takes seconds to import): it is entered here, lazily, and always ended.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dagster as dg

from pipeline_project.settings import Settings
from pipeline_project.training.tracking import Tracker, TrackingError, prepare_tracking, telling_tracking_errors


@contextmanager
def training_run(context: dg.AssetExecutionContext, settings: Settings) -> Iterator[Tracker]:
    """An MLflow run tagged with the Dagster run; FINISHED, or FAILED when the body raises.

    It is opened before the work: MLflow out of reach costs seconds. Once it is open, MLflow going away costs a warning, never the weights.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")  # dagster-mlflow is beta and uses a context that Dagster means to retire
        prepare_tracking(settings)
        import mlflow
        from dagster_mlflow import mlflow_tracking

        config = {
            "experiment_name": settings.tracking.experiment,
            "mlflow_tracking_uri": settings.tracking_uri,
            "env": {},
            "extra_tags": {},
        }
        opened = dg.build_resources(
            {"mlflow": mlflow_tracking},
            instance=context.instance,
            resource_config={"mlflow": {"config": config}},
            dagster_run=context.run,
            log_manager=context.log,
        )
        with telling_tracking_errors(settings.tracking_uri):
            stack.enter_context(opened)
        active = mlflow.active_run()
        assert active is not None
        tracker = Tracker(settings.tracking_uri, active.info.run_id, context.log.warning)
        status = "FAILED"
        try:
            yield tracker
            status = "FINISHED"
        except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
            status = "KILLED"
            raise
        finally:
            try:
                with telling_tracking_errors(settings.tracking_uri):
                    tracker.end(status)
                    mlflow.end_run(status)
            except TrackingError as error:
                context.log.warning(f"MLflow keeps run {tracker.run_id} open: {error.why}. The trained weights are in the artefact store.")
