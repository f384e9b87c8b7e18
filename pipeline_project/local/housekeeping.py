"""`pipeline gc`: the store and Dagster's event log of one project, looked through together."""

from datetime import UTC, datetime, timedelta

from pipeline_project.settings import Settings
from pipeline_project.stage import StageContext


def explain_kept(settings: Settings, digest: str) -> str:
    """What keeps a version of an artefact alive, for people. Raises `ValueError` for a digest that names nothing."""
    from pipeline_project.governance.retention import why_kept
    from pipeline_project.governance.retention_text import render_why

    return render_why(why_kept(StageContext.open(settings), digest))


def collect_garbage(settings: Settings, *, apply: bool, by: str) -> str:
    """Plan what nothing needs any more, and remove it if `apply`. Returns the report for people.

    Args:
        by: who removes, for the audit ledger.

    Raises:
        RetentionError: a head or record is damaged, so what is live is not known; nothing is removed.
    """
    from pipeline_project.defs.housekeeping import removable_runs, remove_runs
    from pipeline_project.defs.instance import open_instance
    from pipeline_project.governance.removal import apply_removal
    from pipeline_project.governance.retention import plan_removal
    from pipeline_project.governance.retention_text import megabytes, render_plan

    context = StageContext.open(settings)
    plan = plan_removal(context)
    with open_instance(settings.home) as instance:
        runs = removable_runs(instance, plan.kept_runs, datetime.now(UTC) - timedelta(days=settings.retention.run_days))
        report = render_plan(plan, len(runs))
        if not apply:
            return f"{report}\nNothing was removed. `pipeline gc --apply` removes it; `pipeline gc --why DIGEST` says what keeps a version."
        done = apply_removal(context, plan, actor=by)
        removed = remove_runs(instance, runs)
    spared = f"; {len(done.spared)} spared, they came into use meanwhile" if done.spared else ""
    told = f"removed {len(done.versions)} versions, {len(done.pieces)} other files ({megabytes(done.size)}), {len(removed)} runs{spared}"
    return f"{report}\n{told}"
