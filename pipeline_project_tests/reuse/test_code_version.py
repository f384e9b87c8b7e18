"""Which code a step's result depends on: what its module reaches by imports, and nothing else."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline_project
from pipeline_project.code_version import _imports, code_version, files_of, libraries_of

ROOT = Path(pipeline_project.__file__).parent
STEPS = ["ingest.manifest", "ingest.pack", "ingest.features", "dataset.versions", "training.tuning", "training.final", "evaluation.report"]


def test_a_module_depends_on_what_it_imports_directly_or_through_others() -> None:
    files = files_of("training.final")
    assert {"training/final.py", "training/loop.py", "training/augmentation.py", "statistics/paired.py"} <= files.keys()
    assert not any(name.startswith(("serving/", "evaluation/", "packaging/", "sample/")) for name in files)
    readers = {"ingest/packs.py", "ingest/erasure.py", "ingest/decoding/shards.py", "ingest/decoding/rows.py"}  # of pixels
    assert {name for name in files if name.startswith("ingest/")} == readers


def test_a_name_that_a_package_passes_on_leads_to_the_module_that_defines_it() -> None:
    files = files_of("dataset.reading")
    assert "imaging/measure.py" in files
    assert "imaging/decode.py" not in files


def test_plumbing_does_not_count() -> None:
    for step in STEPS:
        plumbing = ("storage/", "settings/", "trust/", "stage.py", "reuse.py", "plots.py", "contracts.py", "defs/")
        assert not any(name.startswith(plumbing) for name in files_of(step)), step


def test_libraries_are_those_that_the_code_uses() -> None:
    assert "torch" in libraries_of("training.final")
    assert libraries_of("ingest.pack").keys() == {"numpy", "opencv-python-headless", "pandas", "pyarrow"}
    assert not any("+" in version for version in libraries_of("training.final").values())


def test_an_unknown_module_is_named() -> None:
    with pytest.raises(ValueError, match=r"no module 'training\.finale'"):
        files_of("training.finale")


def imports_by_ast(file: Path) -> set[tuple[str, str]]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {(node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
    return found


def test_every_import_of_every_module_is_seen() -> None:
    """Against Python's own parser; what a docstring says after a line break and `from` may be seen too much, never too little."""
    for file in ROOT.rglob("*.py"):
        seen = {(source, name) for source, names in _imports(file) for name in names or ("",)}
        assert imports_by_ast(file) <= seen, file


@pytest.mark.parametrize(
    ("changed", "moved", "still"),
    [
        ("training/loop.py", ["training.tuning", "training.final"], ["ingest.pack", "dataset.versions"]),
        ("imaging/decode.py", ["ingest.manifest"], ["ingest.pack", "training.final", "dataset.versions"]),
        ("ingest/features.py", ["ingest.features"], ["ingest.pack", "ingest.manifest", "training.final"]),
        ("plots.py", [], STEPS),
        ("evaluation/slices.py", ["evaluation.report"], ["training.final", "ingest.pack"]),
    ],
)
def test_one_changed_line_moves_exactly_the_steps_that_reach_it(tmp_path: Path, changed: str, moved: list[str], still: list[str]) -> None:
    copy = tmp_path / "pipeline_project"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / changed).open("a") as file:
        file.write("# one more line\n")
    code = f"from pipeline_project.code_version import code_version\nprint(*[code_version(s) for s in {STEPS!r}])"
    environment = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    then = dict(zip(STEPS, done.stdout.split(), strict=True))
    assert [step for step in moved if then[step] == code_version(step)] == []
    assert [step for step in still if then[step] != code_version(step)] == []
