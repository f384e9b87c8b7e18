"""The documents against what they describe: links, commands, settings, and the diagram of the graph."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from pipeline_project.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "k8s" / "README.md"]
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def code_of(document: Path) -> str:
    """What stands between backticks, in blocks and in lines."""
    text = document.read_text("utf-8")
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))])


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_relative_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(there), f"{target}: no such heading"


@each_document
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", code_of(document)))
    assert named <= targets, f"not in the Makefile: {sorted(named - targets)}"


@each_document
def test_pipeline_commands_exist(document: Path) -> None:
    from typer.main import get_command

    from pipeline_project.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    for first, second in re.findall(r"(?<![\w-])pipeline ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", code_of(document)):
        assert first in commands, f"pipeline {first} does not exist"
        below = getattr(commands[first], "commands", None)
        assert below is None or second in below, f"pipeline {first} {second} does not exist"


@each_document
def test_settings_keys_exist(document: Path) -> None:
    """`section.key` in backticks, where the section is one of the settings' own, and PIPELINE__SECTION__KEY."""
    text = code_of(document)
    dotted = set(re.findall(r"^([a-z_]+(?:\.[a-z_0-9]+)+)(?:: .*)?$", text, re.MULTILINE))
    overrides = {name.lower().replace("__", ".") for name in re.findall(r"PIPELINE__([A-Z_0-9]+)", text)} - {"section.key"}
    for name in dotted | overrides:
        section: type[BaseModel] = Settings
        keys = name.split(".")
        if keys[0] not in Settings.model_fields or (document.parent / name).exists():  # a file
            continue
        for key in keys:
            assert key in section.model_fields, f"{name}: no such setting"
            below = section.model_fields[key].annotation
            section = below if isinstance(below, type) and issubclass(below, BaseModel) else BaseModel


@each_document
def test_settings_examples_load(document: Path, tmp_path: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", document.read_text("utf-8"), re.DOTALL):
        if "extends" in (yaml.safe_load(block) or {}):
            (tmp_path / "example.yaml").write_text(block)
            load_settings(tmp_path / "example.yaml", environment={})


@each_document
def test_documents_are_plain_and_narrow(document: Path) -> None:
    text = document.read_text("utf-8")
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 140


def test_the_diagram_is_the_graph() -> None:
    from pipeline_project.definitions import defs

    block = re.search(r"```mermaid\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    drawn_groups = {
        name: group for group, names in re.findall(r"subgraph (\w+)\n(.*?)\n  end", block[1], re.DOTALL) for name in names.split()
    }
    drawn_edges = set(re.findall(r"^  (\w+) --> (\w+)$", block[1], re.MULTILINE))
    drawn_daily = {name for names in re.findall(r"class (\S+) daily", block[1]) for name in names.split(",")}

    graph = defs().resolve_asset_graph()
    nodes = {key.to_user_string(): graph.get(key) for key in graph.materializable_asset_keys}
    assert drawn_groups == {name: node.group_name for name, node in nodes.items()}
    assert drawn_edges == {(parent.to_user_string(), name) for name, node in nodes.items() for parent in node.parent_keys}
    assert drawn_daily == {name for name, node in nodes.items() if node.partitions_def is not None}


def test_the_readme_draws_every_asset_in_its_group() -> None:
    from pipeline_project.definitions import defs

    block = re.search(r"```mermaid\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    drawn = {
        name: group for group, names in re.findall(r'(\w+)\["<b>\w+</b>[^<]*<br/>([^"]*)"\]', block[1]) for name in names.split("<br/>")
    }
    graph = defs().resolve_asset_graph()
    assert drawn == {key.to_user_string(): graph.get(key).group_name for key in graph.materializable_asset_keys}


def test_the_tables_of_operations_name_what_there_is() -> None:
    from pipeline_project.definitions import defs
    from pipeline_project.trust.approvals import ApprovalKind

    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    repository = defs().get_repository_def()
    definitions = {d.name: d.job_name for d in repository.schedule_defs}
    definitions |= {d.name: d.targets[0].job_name if d.targets else None for d in repository.sensor_defs}
    rows = dict(
        re.findall(r"^\| `(\w+)`(?: \(sensor\))? \| (.*) \|$", text.split("## Schedules and sensors")[1].split("\n## ")[0], re.MULTILINE)
    )
    assert rows.keys() == definitions.keys()
    for name, job in definitions.items():
        assert job is None or job.startswith("__") or f"`{job}`" in rows[name]
    for kind in ApprovalKind.__args__:  # type: ignore[attr-defined]
        assert f"| `{kind}` |" in text
    local = load_settings("sample", environment={})
    ports = [
        local.local.dagster_port,
        local.local.audit_port,
        local.local.mlflow_port,
        local.serving.production.port,
        local.serving.staging.port,
    ]
    assert all(f"http://127.0.0.1:{port} " in text for port in ports)


def test_the_approvals_table_names_every_setting_that_is_compared() -> None:
    from pipeline_project.evaluation.gates import compliance_settings
    from pipeline_project.ingest.sources import source_identity

    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    settings = load_settings("sample", environment={})
    [told] = re.findall(r"\*\*Compliance settings\*\* are (.*?)\n\n", text, re.DOTALL)
    named = set(re.findall(r"`([a-z_.]+)`", told))
    compared = {f"{section}.{key}" for section, values in compliance_settings(settings).items() for key in values}
    assert {name for name in compared if not {name, name.split(".")[0]} & named} == set(), "compared, but not named"
    left_out = {
        f"{s}.{key}" for s in named & set(type(settings).model_fields) for key in type(getattr(settings, s)).model_fields
    } - compared
    assert {name for name in named if "." in name} == (compared & named) | left_out, "named, but neither compared nor left out"
    [row] = re.findall(r"^\| `data_source_modifications` \|.*$", text, re.MULTILINE)
    assert [word.strip() for word in row.split("|")[3].split(",")] == ["source", "label file", "columns", "classes"]
    assert set(source_identity(settings)) == {"source", "labels_file", "image_column", "label_column", "classes"}


@pytest.mark.parametrize(("default", "status"), [("stopped", "STOPPED"), ("running", "RUNNING")])
def test_what_starts_runs_is_off_on_a_laptop_and_on_in_production(default: str, status: str) -> None:
    """In a process of its own: default statuses are fixed when the code location loads."""
    code = """
import json
from pipeline_project.definitions import defs
repository = defs().get_repository_def()
print(json.dumps({d.name: d.default_status.value for d in [*repository.schedule_defs, *repository.sensor_defs]}))
"""
    environment = {**os.environ, "PIPELINE__AUTOMATION__DEFAULT": default}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)
    assert {found.pop("run_failures"), found.pop("check_failures")} == {"RUNNING"}
    assert set(found.values()) == {status}
    assert load_settings("sample", environment={}).automation.default == "stopped"
    assert load_settings("product_images", environment={}).automation.default == "running"


def test_the_houses_rooms_are_all_described() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rooms = {path.name for path in (ROOT / "pipeline_project").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    missing = {room for room in rooms if f"`{room}/`" not in text}
    assert missing == set()
