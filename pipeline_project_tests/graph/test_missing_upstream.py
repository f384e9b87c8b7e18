"""An asset alone, before its upstream was ever made: a clear failure that names what to materialize first, never a silent success."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline_project_tests.graph.conftest import Platform
from pipeline_project_tests.small_project import DAYS, LOW, Project

pytestmark = pytest.mark.slow
DAY = DAYS[0].isoformat()
FIRST = {  # asset: what its refusal names
    "validated_manifest": "raw_images",
    "image_pack": "validated_manifest",
    "image_features": "image_pack",
    "data_profile": "image_features",
    "dataset_splits": "validated_manifest",
    "tuned_hyperparameters": "dataset_splits",
    "cross_validation_report": "dataset_splits",
    "trained_model": "dataset_splits",
    "model_package": "trained_model",
    "evaluation_report": "model_package",
    "load_test_report": "model_package",
    "release_gate": "model_package",
    "registered_model": "model_package",
    "staging_endpoint": "registered_model",
    "deployed_endpoint": "registered_model",
    "batch_predictions": "deployed_endpoint",
    "drift_report": "prediction_log",
    "performance_report": "prediction_log",
    "ab_report": "deployed_endpoint",
    "audit_dossier": "deployed_endpoint",
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Each asset alone in an empty home."""
    project = Project(tmp_path_factory.mktemp("empty"), DAYS[:1])
    project.write(LOW)
    environment = {**os.environ, "PIPELINE_HOME": str(project.home), "PIPELINE_CONFIG": str(project.config)}
    program = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("materialize_alone.py")), DAY, *FIRST]
    root = Path(__file__).parents[2]
    done = subprocess.run(program, check=False, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("asset", FIRST)
def test_an_asset_without_its_upstream_fails_and_names_it(alone: dict[str, dict[str, Any]], asset: str) -> None:
    found = alone[asset]
    assert not found["success"]
    assert found["materialized"] == []
    assert FIRST[asset] in found["why"], found["why"]
    assert "materialize" in found["why"].lower(), found["why"]


def test_every_asset_with_an_upstream_is_covered(platform: Platform) -> None:
    nodes = platform.ui.ask("{ assetNodes { assetKey { path } dependencyKeys { path } } }")["assetNodes"]
    dependent = {node["assetKey"]["path"][-1] for node in nodes if node["dependencyKeys"]}
    assert dependent - set(FIRST) == {"prediction_log", "ground_truth"}  # a day without traffic is an empty log


def test_a_day_without_photos_fails_from_the_ui_too(platform: Platform) -> None:
    ui, day = platform.ui, platform.empty_day
    pack, features = ui.wait(ui.materialize("image_pack", partition=day), ui.materialize("image_features", partition=day))
    assert pack.status == features.status == "FAILURE"
    assert f"validated_manifest of {day}" in pack.why
    assert f"image_pack of {day}" in features.why
    assert pack.materialized == features.materialized == []
