"""The Dagster instance: heart-beats, runs, pools, orphaned processes."""

import time

from pipeline_project.local import services
from pipeline_project.local.probes.finding import Finding
from pipeline_project.settings import Settings

_FIRST_BEATS_S = 60.0


def dagster_instance(settings: Settings) -> list[Finding]:
    """What a crash left in the instance, and whether the daemon's parts beat."""
    from pipeline_project.defs.instance import dead_runs, held_slots, open_instance, orphans, silent_daemons

    where = str(settings.home / "dagster")
    if not (settings.home / "dagster" / "history").is_dir():
        return []  # never started
    found = []
    daemon = services.running(settings, services.DAEMON)
    with open_instance(settings.home) as instance:
        if daemon is not None and time.time() - daemon.started > _FIRST_BEATS_S:
            found += [
                Finding(f"the daemon's {name} is silent", where, why, f"read {settings.home}/logs/dagster-daemon.log; make stop dev")
                for name, why in silent_daemons(instance).items()
            ]
        for run in dead_runs(instance):
            what = f"run {run.run_id[:8]} of {run.job} is {run.status.lower()}, but dead"
            step = "make stop dev: it is marked as failed, and repeated from where it stopped"
            found.append(Finding(what, where, run.why, step, mend=lambda: _repair(settings)))
        for slot in held_slots(instance):
            what, why = f"pool {slot.pool} is held by run {slot.run_id[:8]}", "that run has ended; others wait for it"
            step = "wait half a minute for the daemon, or make stop dev"
            found.append(Finding(what, where, why, step, mend=lambda: _repair(settings)))
        for process in orphans(instance):
            what, why = f"process {process.pid} works for no run", "its run was killed or marked as ended"
            found.append(Finding(what, process.command[:100], why, "make stop", "warning", lambda: _repair(settings)))
    return found


def _repair(settings: Settings) -> str:
    from pipeline_project.defs.instance import repair_home

    return str(repair_home(settings.home)) or "nothing was left to repair"
