"""Numbers of a report to MLflow (R158, R173, R174): one run a report, never one a prediction (D8).

A report is worth more than its entry in MLflow: a tracking server that does not answer costs a warning, not the report.
"""

import math
from collections.abc import Mapping

from pipeline_project.stage import StageContext
from pipeline_project.training.tracking import TrackingError, prepare_tracking, require_reachable, shown_address

_REPORT_TAG = "pipeline.report"


def log_report(
    context: StageContext, run_name: str, report: str, metrics: Mapping[str, float | None], tags: Mapping[str, str] | None = None
) -> str:
    """Log a report's numbers as one finished run of the experiment.

    Args:
        run_name: what people see, such as "drift-2026-11-05".
        report: digest of the report. A run that has it already is reused, so making the same report again adds nothing.
        metrics: numbers; None and not-a-number are left out.

    Returns:
        The run's id, or "" when MLflow could not be reached (a warning line says why).
    """
    settings = context.settings
    uri = settings.tracking_uri
    try:
        require_reachable(uri)
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        experiment_id = prepare_tracking(settings)
        found = client.search_runs([experiment_id], f"tags.`{_REPORT_TAG}` = '{report}' and attributes.status = 'FINISHED'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        run_id = str(client.create_run(experiment_id, run_name=run_name, tags={_REPORT_TAG: report, **(tags or {})}).info.run_id)
        status = "FAILED"
        try:
            for name, value in metrics.items():
                if value is not None and math.isfinite(value):
                    client.log_metric(run_id, name, float(value))
            status = "FINISHED"
        finally:
            client.set_terminated(run_id, status)
    except Exception as error:  # noqa: BLE001, RUF100 - MLflow raises many kinds; none of them may cost the report
        words = error.why if isinstance(error, TrackingError) else str(error) or type(error).__name__
        reason = words.splitlines()[0].replace(uri, shown_address(uri))
        where = shown_address(uri)
        context.log(f"warning: {run_name} is not in MLflow ({where}): {reason}. The report itself is complete; make it again to log it.")
        return ""
    return run_id
