"""The demo: everything from photos to a monitored model, launched through Dagster's queue like any other run."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipeline_project.governance import ledger
from pipeline_project.local import services
from pipeline_project.local.dagster_client import DagsterClient, Run
from pipeline_project.local.project import require_enough_images
from pipeline_project.local.traffic import send_traffic
from pipeline_project.settings import Settings
from pipeline_project.stage import StageContext


class DemoError(ValueError):
    """The demo cannot go on; the message says what was missed."""


@dataclass
class Progress:
    """Lines with the seconds since the start, and the seconds of each part."""

    started: float = field(default_factory=time.monotonic)
    parts: dict[str, float] = field(default_factory=dict)

    def say(self, line: str) -> None:
        """One progress line."""
        print(f"[{time.monotonic() - self.started:6.1f}s] {line}", flush=True)  # noqa: T201 - the terminal is this module's output

    def part(self, title: str) -> None:
        """Start a part."""
        self.parts[title] = time.monotonic() - self.started
        self.say(f"== {title}")


def run_demo(config: Path, settings: Settings, prepare: Callable[[], object]) -> None:
    """Run the whole job on a project.

    Args:
        config: the project's settings file.
        prepare: makes the source where it does not exist yet (the sample catalogue); called while the services start.

    Raises:
        DemoError: a run failed, such as at a gate; every number missed is named, and the evidence is kept.
        ProjectError: a class has too few images.
        ServiceError: a service does not start.
    """
    progress = Progress()
    progress.say(f"project {settings.name}: settings {config}, everything made lies in {settings.home}")
    require_enough_images(settings)
    started = services.dagster_services(settings)
    for service in started:
        services.start(settings, service, config)
    progress.part("source")
    prepare()
    progress.part("services")
    for environment in ("staging", "production"):
        url = services.start_endpoint(settings, "staging" if environment == "staging" else "production", config)
        progress.say(f"{environment} endpoint: {url}")
    for service in started:
        services.wait_ready(settings, service)
    client = DagsterClient(started[0].url, progress.say)
    client.wait_loaded()
    progress.say(f"Dagster UI: {client.url}  (open it now and watch)")
    run_graph(client, settings, progress)
    _farewell(settings, config, progress)


def run_graph(client: DagsterClient, settings: Settings, progress: Progress) -> None:
    """Every asset of the graph, run by run; also what `make bench-platform` measures."""
    context = StageContext.open(settings)
    progress.part("ingest: a run for each new day")
    _ingest(client, context)
    progress.part("train, judge, register, stage")
    _succeed(client, client.launch("train_and_stage"))
    progress.part("approve and deploy")
    approve_for_demo(context, progress.say)
    _succeed(client, client.launch("deploy"))
    progress.part("traffic")
    send_traffic(context, settings.local.demo_requests, progress.say)
    progress.part("monitor")
    today = datetime.now(UTC).date()
    last = context.artifacts.partitions("image_pack")[-1]
    runs = [client.launch("monitor_day", partition=today.isoformat()), client.launch("predict_day", partition=last)]
    _succeed(client, *runs)
    progress.part("done")


def approve_for_demo(context: StageContext, say: Callable[[str], None]) -> None:
    """Record the production approval with a throw-away key (R130). A real project's key belongs to a person."""
    from pipeline_project.trust.approvals import find_approval, record_approval
    from pipeline_project.trust.signing import load_or_create_key

    settings = context.settings
    package = context.artifacts.latest("registered_model").info["package"]
    earlier = find_approval(context.artifacts.bytes, settings.trusted_approvers, "production_deployment", package)
    if earlier is not None:
        say(f"package {package[:12]} was approved for production by {earlier.approval.approver} before")
        return
    key = load_or_create_key(settings.home / "keys" / "demo-approver.pem", settings.trusted_approvers)
    reason = "approved by make demo with a throw-away key"
    record_approval(context.artifacts.bytes, key, "production_deployment", package, approver="demo", reason=reason)
    ledger.append(context.artifacts.bytes, "demo", "approved", package, {"kind": "production_deployment", "reason": reason})
    say(f"production approval of package {package[:12]} recorded, signed with a THROW-AWAY key ({settings.home}/keys/demo-approver.pem)")


def _ingest(client: DagsterClient, context: StageContext) -> None:
    from pipeline_project.ingest.arrivals import changed_days

    days = list(changed_days(context))
    runs = [client.launch("ingest_day", partition=day.isoformat(), tags={"reason": "demo"}) for day in days]
    client.follow(runs)
    failed = [run for run in runs if run.status != "SUCCESS"]
    if failed and len(failed) == len(runs):
        raise DemoError(_why(client, failed))
    # A bad day does not stop the others: dataset_splits leaves it out and says why.


def _succeed(client: DagsterClient, *runs: Run) -> None:
    client.follow(runs)
    failed = [run for run in runs if run.status != "SUCCESS"]
    if failed:
        raise DemoError(_why(client, failed))


def _why(client: DagsterClient, runs: list[Run]) -> str:
    lines = []
    for run in runs:
        lines.append(f"{run.name} ended as {run.status.lower()} ({client.url}/runs/{run.run_id}):")
        lines += [f"  - {reason}" for reason in _told_once(run.failures)] or ["  - see the run's log"]
    lines.append("Nothing further was released. All evidence is kept: open the run in the Dagster UI, or read the artefacts.")
    return "\n".join(lines)


def _told_once(failures: list[str]) -> list[str]:
    """The reasons in the user's words: Dagster's own summary of failed checks repeats what the checks said."""
    words = [failure.removeprefix("dagster._core.definitions.events.Failure: ") for failure in failures]
    telling = [word for word in words if "DagsterAssetCheckFailedError" not in word]
    return list(dict.fromkeys(telling or words))


def _farewell(settings: Settings, config: Path, progress: Progress) -> None:
    ends = [*list(progress.parts.values())[1:], time.monotonic() - progress.started]
    for (title, begun), end in zip(progress.parts.items(), ends, strict=True):
        if title != "done":
            progress.say(f"{end - begun:6.1f} s  {title}")
    url = settings.serving.production.address
    today = datetime.now(UTC).date().isoformat()
    lines = [
        "",
        "Where to look next:",
        f"  the graph, every run, check and plot   http://127.0.0.1:{settings.local.dagster_port}/asset-groups",
        f"  drift report of today                  http://127.0.0.1:{settings.local.dagster_port}/assets/drift_report?partition={today}",
        f"  try the model in the browser           {url}/",
        f"  or from the shell                      curl -F file=@photo.jpg {url}/predict",
        "  MLflow beside it                       make dev",
        "  stop what runs                         make stop",
        f"  settings to change                     {config}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
