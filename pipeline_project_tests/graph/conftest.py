"""One live platform for the whole folder: real webserver, daemon, queue and endpoints on a small project, trained and released once.

The cases share it. Each leaves it in service, with the settings of `GATES` and a passing verdict of the newest package.
"""

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psutil
import pytest
import yaml

from pipeline_project.contracts import Environment
from pipeline_project.local import services
from pipeline_project.local.dagster_client import DagsterClient
from pipeline_project.serving.process import find_server
from pipeline_project.stage import StageContext
from pipeline_project.trust.signing import load_or_create_key
from pipeline_project_tests.graph.pages import RunLog
from pipeline_project_tests.graph.ui import Ui
from pipeline_project_tests.small_project import LOW, OUT_OF_REACH, Project

GATES = LOW
NO_GO = {**LOW, **OUT_OF_REACH}
INGEST = ("raw_images", "validated_manifest", "image_pack", "image_features")
TRAIN = ("data_profile", "dataset_splits", "tuned_hyperparameters", "trained_model", "model_package")
RELEASE = ("registered_model", "staging_endpoint", "deployed_endpoint")
JUDGE = ("evaluation_report", "load_test_report", "release_gate")
APPROVER = "ada"


@dataclass
class Platform:
    """The running platform: its project, its UI, and the logs of the runs that brought it into service."""

    project: Project
    ui: Ui
    first: dict[str, list[RunLog]] = field(default_factory=dict)
    """ingest, refused (everything from the data set to production, where an approval is missing), approved, deployed (from failure)"""

    @property
    def days(self) -> list[str]:
        return [day.isoformat() for day in self.project.days]

    @property
    def empty_day(self) -> str:
        """A partition before the first photo."""
        return (self.project.days[0] - timedelta(days=1)).isoformat()

    @property
    def context(self) -> StageContext:
        return self.project.context()

    def digest(self, asset: str, partition: str | None = None) -> str:
        """The newest version in the store."""
        return self.context.artifacts.latest(asset, partition).digest

    def run(self, *assets: str, partition: str | None = None, tags: dict[str, str] | None = None) -> RunLog:
        """Materialize assets, with their checks, and wait."""
        return self.ui.wait(self.ui.materialize(*assets, partition=partition, tags=tags))[0]

    def approve(self, kind: str, subject: str, approver: str = APPROVER) -> RunLog:
        """The job `approve` from the launchpad."""
        config = {"kind": kind, "subject": subject, "approver": approver, "reason": "looked at the change"}
        ops = {op: {"config": config} for op in self.ui.ops_of("approve")}
        return self.ui.wait(self.ui.launch_job("approve", config={"ops": ops}))[0]

    def approve_as_told(self, refused: RunLog) -> RunLog:
        """The launchpad of `approve` with the config that a refusal prints, a name and a reason filled in."""
        told = re.search(r"ops: \{.*\}", refused.why)
        assert told, refused.why
        config = yaml.safe_load(told.group())
        for op in config["ops"].values():
            op["config"] |= {"approver": APPROVER, "reason": "looked at the change"}
        return self.ui.wait(self.ui.launch_job("approve", config=config))[0]

    def judge_with(self, gates: dict[str, float]) -> list[RunLog]:
        """Change the gates' settings, be refused, approve as the refusal says, judge again. Returns the three runs."""
        self.write(gates)
        refused = self.run("release_gate")
        asked_approval(refused, "compliance_configuration_changes")
        return [refused, self.approve_as_told(refused), self.run("release_gate")]

    def write(self, gates: dict[str, float] = GATES, **sections: dict[str, Any]) -> None:
        """Write the settings file; a run reads it when it starts."""
        data = {"start_date": self.empty_day, **sections.pop("data", {})}
        self.project.write(gates, data=data, **sections)

    def released(self) -> dict[str, Any]:
        """What is registered and deployed: the heads of the release assets and every deployment document."""
        store = self.context.artifacts.bytes
        names = ("registered_model", "staging_endpoint", "deployed_endpoint")
        heads = {name: found.digest if (found := self.context.artifacts.find(name)) else None for name in names}
        return {**heads, "documents": sorted(key for key in store.list("artifacts/deployments/"))}

    def start_endpoint(self, environment: Environment) -> str:
        return services.start_endpoint(self.project.settings(), environment)

    def stop_endpoint(self, environment: Environment) -> None:
        """Stop a server by its process id, and wait until it is gone."""
        server = find_server(self.project.settings(), environment)
        assert server is not None
        process = psutil.Process(server.pid)
        os.kill(server.pid, signal.SIGTERM)
        process.wait(30)


def asked_approval(log: RunLog, kind: str) -> str:
    """The subject that a refusal asks to approve."""
    assert log.status == "FAILURE", log
    found = re.search(rf"{kind} ([0-9a-f]{{64}})", log.why)
    assert found, log.why
    return found.group(1)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The platform after its first start: photos of the last three days, nothing materialized."""
    today = datetime.now(UTC).date()
    days: list[date] = [today - timedelta(days=n) for n in (2, 1, 0)]
    project = Project(tmp_path_factory.mktemp("graph"), days)
    platform = Platform(project, Ui(f"http://127.0.0.1:{project.ports[0]}"))
    platform.write()
    settings = project.settings()
    load_or_create_key(settings.home / "keys" / f"{APPROVER}.pem", settings.trusted_approvers)
    wanted = services.dagster_services(settings)
    try:
        for service in wanted:
            services.start(settings, service, project.config)
        platform.start_endpoint("staging")
        platform.start_endpoint("production")
        for service in wanted:
            services.wait_ready(settings, service)
        DagsterClient(platform.ui.url, lambda _: None).wait_loaded()
        yield platform
    finally:
        services.stop_all(settings)


@pytest.fixture(scope="session")
def platform(bare: Platform) -> Platform:
    """The platform in service: three days taken in, a model trained, judged, approved and deployed, all from the UI."""
    ui, first = bare.ui, bare.first
    first["ingest"] = ui.wait(*[ui.materialize(*INGEST, partition=day) for day in bare.days])
    _succeeded(first["ingest"])
    first["refused"] = [bare.run(*TRAIN, *JUDGE, *RELEASE)]
    asked_approval(first["refused"][0], "production_deployment")
    first["approved"] = [bare.approve_as_told(first["refused"][0])]
    first["deployed"] = ui.wait(ui.reexecute(first["refused"][0].run_id))
    _succeeded(first["approved"] + first["deployed"])
    return bare


def _succeeded(logs: list[RunLog]) -> None:
    for log in logs:
        assert log.status == "SUCCESS", log
