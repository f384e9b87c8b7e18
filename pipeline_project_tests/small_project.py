"""A small project for tests that start the real platform: three days of drawn photos, 32 pixels, two trials, two folds."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml

from pipeline_project.sample import generate_catalogue
from pipeline_project.settings import Settings, load_settings
from pipeline_project.stage import StageContext

DAYS = [date(2026, 11, 1) + timedelta(days=n) for n in range(3)]
LOW = {"accuracy": 0.4, "precision_per_class": 0.0, "recall_per_class": 0.0, "macro_f1": 0.3}
NO_HURDLE = {
    "max_slice_gap": 1.0,
    "min_slice_size": 5,
    "max_expected_calibration_error": 1.0,
    "min_corruption_accuracy": 0.0,
    "throughput_rps": 5,
}
OUT_OF_REACH = {"accuracy": 1.0, "macro_f1": 1.0}


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Project:
    """A small project in a folder of its own.

    Args:
        folder: takes the photos, the settings file and the runtime home.
        days: the days that the photos arrive on. The photos are those of `DAYS` whatever the days are called, so that results do not
            depend on the date of the test.
    """

    def __init__(self, folder: Path, days: Sequence[date] = DAYS) -> None:
        self.folder, self.config, self.home = folder, folder / "small.yaml", folder / "home"
        self.photos, self.days = folder / "photos", list(days)
        self.ports = free_ports(5)
        drawn = folder / "drawn"
        generate_catalogue(drawn, seed=3, days=DAYS[: len(self.days)], images_per_day=120)
        self.photos.mkdir()
        for made, day in zip(DAYS, self.days, strict=False):
            shutil.move(drawn / made.isoformat(), self.photos / day.isoformat())

    def write(self, gates: dict[str, float], **sections: dict[str, Any]) -> None:
        """Write the settings file: the gates over ones without any hurdle, and further sections over the small ones."""
        dagster, mlflow, production, staging, audit = self.ports
        values: dict[str, Any] = {
            "extends": "sample",
            "name": "small",
            "data": {"source": "photos", "start_date": self.days[0]},
            "image": {"size": 32},
            "training": {"epochs": 16, "learning_rate": 0.001},
            "tuning": {"trials": 2, "epochs": 2, "batch_size": [16], "learning_rate": [0.001, 0.002]},
            "cross_validation": {"folds": 2, "epochs": 2},
            "evaluation": {"load_test_s": 2, "explained_images": 8},
            "monitoring": {"min_predictions": 50},
            "local": {"dagster_port": dagster, "mlflow_port": mlflow, "audit_port": audit, "demo_requests": 60},
            "serving": {"production": {"port": production, "workers": 1, "step_seconds": 0}, "staging": {"port": staging}},
            "gates": {**NO_HURDLE, **gates},
        }
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section}
        draft = self.config.with_suffix(".draft")
        draft.write_text(yaml.safe_dump(values))
        draft.replace(self.config)  # a run that starts meanwhile reads the old file or the new one

    def pipeline(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PIPELINE_HOME": str(self.home)}
        command = [sys.executable, "-m", "pipeline_project.cli", *arguments]
        return subprocess.run(command, check=False, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=400)

    def settings(self) -> Settings:
        return load_settings(self.config, environment={"PIPELINE_HOME": str(self.home)})

    def context(self) -> StageContext:
        return StageContext.open(self.settings())
