"""The real definitions on a source folder of real, tiny photos: what schedules and sensors ask for, and running it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
from PIL import Image

from pipeline_project.defs.resources import project_settings
from pipeline_project.settings import Settings
from pipeline_project.stage import StageContext


@dataclass
class Shop:
    """A source, a runtime home and a Dagster instance of their own."""

    source: Path
    instance: dg.DagsterInstance

    def __post_init__(self) -> None:
        from pipeline_project.definitions import defs

        self.defs = defs()
        self.repository = self.defs.get_repository_def()

    @property
    def settings(self) -> Settings:
        return project_settings()

    @property
    def context(self) -> StageContext:
        return StageContext.open(self.settings)

    @property
    def alerts(self) -> list[str]:
        """The lines of logs/alerts.log."""
        log = self.settings.home / "logs" / "alerts.log"
        return log.read_text("utf-8").splitlines() if log.exists() else []

    def arrive(self, day: date, *, seed: int = 0, labels: bool = True) -> None:
        """Four photos of a day, of two classes, with or without their labels."""
        folder = self.source / day.isoformat()
        folder.mkdir(exist_ok=True)
        names = [f"{seed}-{n}.jpg" for n in range(4)]
        for n, name in enumerate(names):
            pixels = np.random.default_rng((day.toordinal(), seed, n)).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG")
            (folder / name).write_bytes(buffer.getvalue())
        if labels:
            rows = [f"{path.name},{('toys', 'books')[n % 2]}" for n, path in enumerate(sorted(folder.glob("*.jpg")))]
            (folder / "labels.csv").write_text("\n".join(["image,label", *rows]) + "\n")

    def sense(self, name: str, cursor: str | None = None) -> Any:
        """One tick of a sensor."""
        with dg.build_sensor_context(instance=self.instance, cursor=cursor, repository_def=self.repository) as context:
            return self.repository.get_sensor_def(name).evaluate_tick(context)

    def schedule(self, name: str, moment: datetime) -> Any:
        """One tick of a schedule."""
        arguments = {"scheduled_execution_time": moment, "repository_def": self.repository}
        with dg.build_schedule_context(instance=self.instance, **arguments) as context:
            return self.repository.get_schedule_def(name).evaluate_tick(context)

    def run(self, job: str, requests: Sequence[dg.RunRequest]) -> list[dg.ExecuteInProcessResult]:
        """Run what was asked for, with its tags."""
        definition = self.repository.get_job(job)
        return [
            definition.execute_in_process(instance=self.instance, partition_key=r.partition_key, tags=dict(r.tags), raise_on_error=False)
            for r in requests
        ]

    def start(self, *assets: str, day: date | None = None, job: str = "__ASSET_JOB", **tags: str) -> dg.DagsterRun:
        """A run that has started and does not end; of assets chosen in the UI, or of a job."""
        keys = {dg.AssetKey(name) for name in assets}
        definition = self.repository.get_job(job)
        chosen = definition.get_subset(asset_selection=keys) if keys else definition
        tags |= {"dagster/partition": day.isoformat()} if day else {}
        return self.instance.create_run_for_job(
            chosen, asset_selection=frozenset(keys) or None, tags=tags, status=dg.DagsterRunStatus.STARTED
        )


def days_ago(count: int) -> date:
    return datetime.now(UTC).date() - timedelta(days=count)
