"""Bad input as a user meets it: through the real assets on a real Dagster instance, in processes of their own."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline_project.settings import Settings, load_settings
from pipeline_project.stage import StageContext

INGEST = ["raw_images", "validated_manifest", "image_pack", "image_features"]
CLASSES = ["books", "toys"]


def photo(seed: int, width: int = 32, height: int = 24, form: str = "JPEG") -> bytes:
    """A photo of its own for every seed."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


@dataclass
class Run:
    """What the UI shows of a run: whether it succeeded, what the failed steps and each check say, the metadata of what was made."""

    day: str
    assets: list[str]
    success: bool
    failures: dict[str, str]
    checks: dict[str, dict[str, Any]]
    made: dict[str, dict[str, Any]]

    def failed(self) -> dict[str, str]:
        """What the failed checks say, by name."""
        return {name.split(".")[1]: check["says"] for name, check in self.checks.items() if not check["passed"]}

    def says(self, check: str) -> str:
        """The description of a check."""
        return next(found["says"] for name, found in self.checks.items() if name.split(".")[1] == check)


class Shop:
    """A project with a source folder; `day` fills it, `materialize` runs assets on it."""

    def __init__(self, folder: Path, **sections: dict[str, Any]) -> None:
        self.folder, self.source, self.home, self.config = folder, folder / "photos", folder / "home", folder / "shop.yaml"
        self.source.mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {
            "extends": "sample",
            "name": "shop",
            "data": {"source": "photos", "start_date": "2026-01-01", "classes": CLASSES},
            "image": {"size": 16},
            "training": {"threads": 1},
        }
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section}
        self.config.write_text(yaml.safe_dump(values))

    def put(self, key: str, data: bytes | str) -> Path:
        path = self.source / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def day(self, day: str, count: int = 10, labels: dict[int, str] | None = None, extra: str = "") -> None:
        """Good photos, half of each class; `labels` says otherwise for some."""
        lines = ["image,label"]
        for number in range(count):
            self.put(f"{day}/{number}.jpg", photo(int(day.replace("-", "")) * 100 + number))
            lines.append(f"{number}.jpg,{(labels or {}).get(number, CLASSES[number % 2])}")
        self.put(f"{day}/labels.csv", "\n".join(lines) + f"\n{extra}")

    def environment(self, **more: str) -> dict[str, str]:
        dagster = self.home / "dagster"
        dagster.mkdir(parents=True, exist_ok=True)
        (dagster / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        own = {"PIPELINE_HOME": str(self.home), "PIPELINE_CONFIG": str(self.config), "DAGSTER_HOME": str(dagster)}
        return {**os.environ, **own, "DO_NOT_TRACK": "1", **more}

    def command(self, runs: Sequence[Sequence[str]], *days: str) -> list[str]:
        return [sys.executable, "-W", "ignore", "-m", "pipeline_project_tests.bad_input.materialize", json.dumps(runs), *days]

    def start(self, runs: Sequence[Sequence[str]], *days: str, **more: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(runs, *days), env=self.environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def materialize(self, runs: Sequence[Sequence[str]], *days: str, **more: str) -> list[Run]:
        """One run for each list of assets and day."""
        process = self.start(runs, *(days or ("-",)), **more)
        out, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors[-3000:]
        return [Run(**json.loads(line.removeprefix("RUN "))) for line in out.splitlines() if line.startswith("RUN ")]

    def settings(self) -> Settings:
        return load_settings(self.config, environment={"PIPELINE_HOME": str(self.home)})

    def context(self) -> StageContext:
        return StageContext.open(self.settings())


@pytest.fixture
def open_shop(tmp_path: Path) -> Callable[..., Shop]:
    """Opens a shop; keywords are settings sections."""
    return lambda **sections: Shop(tmp_path, **sections)


@pytest.fixture
def shop(open_shop: Callable[..., Shop]) -> Shop:
    return open_shop()
