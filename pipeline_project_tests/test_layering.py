"""The house rules, as imports: nothing imports what stands above it, stages know nothing of Dagster, the server needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline_project

ROOT = Path(pipeline_project.__file__).parent

# From the top floor down; a module may import from its own floor and from those below.
FLOORS = [
    ["definitions", "cli"],
    ["local", "defs"],
    ["governance"],
    ["monitoring"],
    ["release"],
    ["evaluation"],
    ["serving"],
    ["packaging"],
    ["training"],
    ["dataset"],
    ["ingest"],
    ["sample"],
    ["imaging"],
    ["statistics"],
    ["trust"],
    ["plots", "provenance"],
    ["reuse"],
    ["stage"],
    ["storage", "tables"],
    ["settings"],
    ["contracts"],
    ["code_version"],
    ["digests"],
]
HEIGHT = {room: len(FLOORS) - level for level, rooms in enumerate(FLOORS) for room in rooms}
# Packaging's building half reads trained models; evaluation starts the real server: both downward. What serving may load:
HEAVY = {"torch", "torchvision", "mlflow", "evidently", "onnxruntime", "sklearn", "boto3", "kubernetes", "matplotlib", "optuna"}
SERVING_FORBIDDEN = ("torch", "dagster", "mlflow", "pandas", "scipy", "sklearn", "matplotlib", "evidently")


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_down_the_floors(path: Path) -> None:
    here = room_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "pipeline_project" and len(parts) > 1:
            there = parts[1]
            assert there in HEIGHT, f"{there} has no floor in FLOORS"
            assert HEIGHT[there] <= HEIGHT[here], f"{path.name} of {here} imports {name}, which stands above it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_asset_layer_imports_dagster(path: Path) -> None:
    if room_of(path) in ("defs", "definitions"):
        return
    used = {name for name in imports_of(path) if name.split(".")[0].startswith("dagster")}
    assert not used


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_settings_reads_the_environment(path: Path) -> None:
    if room_of(path) == "settings":
        return
    if path.name == "loop.py":  # sets what cuBLAS asks for, reads nothing
        return
    names = [node.attr for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)]
    assert "environ" not in names
    assert "getenv" not in names


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())


def test_the_code_location_loads_without_heavy_libraries() -> None:
    loaded = loaded_after("from pipeline_project.definitions import defs; defs().get_repository_def()")
    assert "dagster" in loaded
    assert not loaded & HEAVY


def test_the_server_loads_without_training_libraries() -> None:
    loaded = loaded_after("import pipeline_project.serving.supervisor, pipeline_project.serving.worker, pipeline_project.serving.app")
    assert "fastapi" in loaded
    assert not loaded & set(SERVING_FORBIDDEN)
