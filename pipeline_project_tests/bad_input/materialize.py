"""Materializes real assets with their checks on a real Dagster instance, in a process of its own, and prints what the UI would show.

    python -m pipeline_project_tests.bad_input.materialize '[["raw_images", ...], ...]' DAY [DAY ...]

Each list of assets is a run of its own, for each day ("-" for assets without days). One JSON line a run.
"""

import json
import sys
from typing import Any

import dagster as dg

from pipeline_project.definitions import defs


def shown(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    failures, checks, metadata = {}, {}, {}
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            said = event.step_failure_data.user_failure_data
            failures[event.step_key] = (said.description if said else None) or (error.message if error else "")
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            found = event.asset_check_evaluation_data
            checks[f"{found.asset_key.to_user_string()}.{found.check_name}"] = {"passed": found.passed, "says": found.description}
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            made = event.materialization
            metadata[made.asset_key.to_user_string()] = {
                name: value.value for name, value in made.metadata.items() if isinstance(value.value, str | int | float | dict | list)
            }
    return {"success": result.success, "failures": failures, "checks": checks, "made": metadata}


def main() -> None:
    runs, days = json.loads(sys.argv[1]), sys.argv[2:]
    instance = dg.DagsterInstance.get()
    job = defs().get_repository_def().get_implicit_global_asset_job_def()
    for day in days:
        for assets in runs:
            found = job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey(name) for name in assets],
                partition_key=None if day == "-" else day,
                raise_on_error=False,
            )
            sys.stdout.write("RUN " + json.dumps({"day": day, "assets": assets, **shown(found)}, default=str) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
