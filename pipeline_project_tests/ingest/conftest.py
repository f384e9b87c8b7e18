"""A source folder of real, tiny photos, and a context on it."""

import io
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline_project.ingest.features import measure_images
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact

Open = Callable[..., StageContext]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def open_context(tmp_path: Path, source: Path) -> Open:
    """Opens a context; arguments are overrides such as `DATA__CLASSES="[a, b]"`."""

    def opened(**overrides: str) -> StageContext:
        environment = {"PIPELINE_HOME": str(tmp_path / "home"), "PIPELINE__DATA__SOURCE": str(source)}
        environment |= {f"PIPELINE__{name}": value for name, value in overrides.items()}
        return StageContext.open(load_settings("sample", environment=environment))

    return opened


@pytest.fixture
def context(open_context: Open) -> StageContext:
    return open_context()


@pytest.fixture
def photo() -> Callable[..., bytes]:
    """A photo of its own for every seed."""

    def drawn(seed: int, width: int = 32, height: int = 24) -> bytes:
        buffer = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
        return buffer.getvalue()

    return drawn


@pytest.fixture
def put(source: Path) -> Callable[[str, bytes | str], Path]:
    """Writes one object of the source."""

    def written(key: str, data: bytes | str) -> Path:
        path = source / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return written


@pytest.fixture
def ingest_day() -> Callable[[StageContext, date], dict[str, Artifact]]:
    """All four assets of a day, through the stage's own functions."""

    def ingested(context: StageContext, day: date) -> dict[str, Artifact]:
        steps = (take_inventory, validate_images, pack_images, measure_images)
        made = [step(context, day).artifact for step in steps]
        return {artifact.name: artifact for artifact in made}

    return ingested
