"""Dagster's own launcher of one machine, and whether a launched run still lives: Dagster's cannot tell.

A killed run is reported by the code server that started it. When that died with it, the run would stay "started" for ever.
"""

import logging
import time

from dagster import DagsterInstance, DagsterRun
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus

_REPORT_S = 2.0


class LocalRunLauncher(DefaultRunLauncher):
    """Starts runs as Dagster's launcher does. Run monitoring asks it for each run in progress, and marks dead ones as failed.

    dagster.yaml names it.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """It can tell."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process lives. A living code server is given two seconds to report the death of its run first."""
        from pipeline_project.defs.instance import worker_processes

        instance: DagsterInstance = self._instance
        workers = worker_processes(instance)
        if workers.get(run.run_id) is not None or run.run_id not in workers:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        time.sleep(_REPORT_S)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its process was killed")

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run, after ending what killed runs left behind.

        A code server that is killed while it starts a run may leave a process that goes on. Then the run, which is in the queue again
        by now, has started already.
        """
        from pipeline_project.defs.instance import orphans, worker_processes
        from pipeline_project.local.processes import end

        run_id = context.dagster_run.run_id
        if worker_processes(self._instance).get(run_id) is not None:
            self._instance.report_engine_event("The run goes on in the process that was started before.", context.dagster_run)
            return
        ended = end(orphans(self._instance))
        if ended:
            logging.getLogger("dagster").warning("ended orphaned processes %s", [process.pid for process in ended])
        super().launch_run(context)

    def terminate(self, run_id: str) -> bool:
        """Cancel a run, also one whose code server is gone."""
        from pipeline_project.defs.instance import interrupt, worker_processes

        try:
            if super().terminate(run_id):  # type: ignore[no-untyped-call]
                return True
        except DagsterUserCodeUnreachableError:
            pass
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        process = worker_processes(self._instance).get(run_id)
        if process is not None and interrupt(process):
            return True
        self._instance.report_run_canceled(run, "Cancelled: its process was gone already.")
        return True
