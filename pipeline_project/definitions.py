"""The code location: everything under defs/, with the executor of the settings' profile. No logic here.

The folder loader (`load_from_defs_folder`) is not used: it imports every installed Dagster integration to list their components,
which costs each process about two seconds; the package loaders find the same definitions.
"""

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, checks, jobs, schedules and sensors."""
    from pipeline_project import defs as graph
    from pipeline_project.defs import automation
    from pipeline_project.defs.governance.approve import approve
    from pipeline_project.defs.k8s import executor_for
    from pipeline_project.defs.resources import project_settings, resources

    return dg.Definitions(
        assets=dg.load_assets_from_package_module(graph),
        asset_checks=dg.load_asset_checks_from_package_module(graph),
        jobs=[*automation.JOBS, approve],
        schedules=automation.SCHEDULES,
        sensors=automation.SENSORS,
        executor=executor_for(project_settings().profile),
        resources=resources(),
    )
