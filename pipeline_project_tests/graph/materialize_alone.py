"""A program: materialize assets one by one, each alone in an empty runtime home, and print what became of each as JSON.

The environment names settings and home, as for a code server: `python materialize_alone.py DAY ASSET...`.
"""

import json
import sys

import dagster as dg


def main(day: str, names: list[str]) -> None:
    from pipeline_project.definitions import defs

    definitions = defs()
    graph = definitions.resolve_asset_graph()
    job = definitions.resolve_implicit_global_asset_job_def()
    found = {}
    for name in names:
        key = dg.AssetKey(name)
        daily = graph.get(key).partitions_def is not None
        with dg.DagsterInstance.ephemeral() as instance:
            result = job.execute_in_process(
                instance=instance, asset_selection=[key], partition_key=day if daily else None, raise_on_error=False
            )
            failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
            found[name] = {
                "success": result.success,
                "materialized": [event.asset_key.to_user_string() for event in result.get_asset_materialization_events()],
                "why": "\n".join(f.user_failure_data.description if f.user_failure_data else str(f.error) for f in failures),
            }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
