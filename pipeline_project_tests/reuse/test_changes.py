"""One change, and exactly what depends on it is made again: in new processes, with the real steps, on a copy of the code."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import pipeline_project
from pipeline_project.dataset.profile import profile_data
from pipeline_project.dataset.versions import make_dataset_version
from pipeline_project.evaluation.report import evaluate_package
from pipeline_project.ingest.features import measure_images
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.packaging.build import build_package
from pipeline_project.reuse import ReusableStep
from pipeline_project.sample import generate_catalogue, product_photo
from pipeline_project.training import final
from pipeline_project.training.cross_validation import conclude_folds, train_fold
from pipeline_project.training.tuning import conclude_study
from pipeline_project_tests.recording import Recording

pytestmark = pytest.mark.slow
PACKAGE = Path(pipeline_project.__file__).parent
DAYS = [date(2026, 11, 1) + timedelta(days=n) for n in range(2)]
FIRST, SECOND = (day.isoformat() for day in DAYS)
OF_A_DAY = ("validated_manifest", "image_pack", "image_features")
DATA = {"data_profile", "dataset_splits"}
TRAINED = {"tuned_hyperparameters", "fold-0", "fold-1", "cross_validation_report", "trained_model", "model_package", "evaluation_report"}
EVERYTHING = {f"{name} {day}" for name in OF_A_DAY for day in (FIRST, SECOND)} | DATA | TRAINED
OF_SECOND = {f"{name} {SECOND}" for name in OF_A_DAY}

# Runs every reusable step as the asset layer would and prints {step: reason} of those that were made, and with RECORD set which settings
# and which upstream artefacts each step really read.
DRIVER = """
import json, os, sys
from datetime import date
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project.dataset.profile import profile_data
from pipeline_project.dataset.versions import make_dataset_version
from pipeline_project.evaluation.report import evaluate_package
from pipeline_project.ingest.features import measure_images
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.packaging.build import build_package
from pipeline_project.training.cross_validation import conclude_folds, folds_needed, train_fold
from pipeline_project.training.final import train_model
from pipeline_project.training.tracking import tracked_run
from pipeline_project.training.tuning import conclude_study, run_trials, workers_needed
from pipeline_project_tests.recording import Recording, recorded

context = StageContext.open(load_settings())
made = {}
recording = recorded(context.settings).__enter__() if os.environ.get("RECORD") else Recording()

def step(name, function, *arguments):
    recording.step = name.split(" ")[0].split("-")[0]
    result = function(*arguments)
    if not result.metadata["reused"]:
        made[name] = result.metadata["reuse_reason"]

for day in sys.argv[1:]:
    recording.step = "raw_images"
    take_inventory(context, date.fromisoformat(day))
    for name, function in (("validated_manifest", validate_images), ("image_pack", pack_images), ("image_features", measure_images)):
        step(f"{name} {day}", function, context, date.fromisoformat(day))
step("data_profile", profile_data, context)
step("dataset_splits", make_dataset_version, context)
recording.step = "tuned_hyperparameters"
for worker in workers_needed(context):
    run_trials(context, worker)
step("tuned_hyperparameters", conclude_study, context)
recording.step = "fold"
for fold in folds_needed(context):
    step(f"fold-{fold}", train_fold, context, f"fold-{fold}")
step("cross_validation_report", conclude_folds, context)
step("trained_model", train_model, context, lambda: tracked_run(context.settings, "training"))
step("model_package", build_package, context)
step("evaluation_report", evaluate_package, context)
heavy = sorted({"torch", "mlflow", "sklearn", "onnxruntime"} & set(sys.modules))
tell = {"made": made, "heavy": heavy, "read": recording.settings, "fetched": recording.artifacts}
print(json.dumps(tell, default=sorted))
"""


STEPS: dict[str, ReusableStep[...]] = {
    "validated_manifest": validate_images,
    "image_pack": pack_images,
    "image_features": measure_images,
    "data_profile": profile_data,
    "dataset_splits": make_dataset_version,
    "tuned_hyperparameters": conclude_study,
    "fold": train_fold,
    "cross_validation_report": conclude_folds,
    "trained_model": final._train,
    "model_package": build_package,
    "evaluation_report": evaluate_package,
}
DO_NOT_COUNT: dict[str, set[str]] = {
    # The inventory's digest stands for the source; threads decode side by side, each image by itself.
    "validated_manifest": {"data.source", "data.labels_file", "training.threads"},
    "image_pack": {"data.source", "training.threads"},
    "tuned_hyperparameters": {"tuning.storage"},
}


@dataclass
class Shop:
    """A project that was run once, and its own copy of the code."""

    folder: Path
    first: dict[str, Any] = field(default_factory=dict)
    """What the very first run told, with all that its steps read."""

    def write(self, **changes: Any) -> None:
        values: dict[str, Any] = {
            "extends": "sample",
            "name": "shop",
            "data": {"source": "photos", "start_date": DAYS[0]},
            "image": {"size": 32},
            "training": {"epochs": 2, "learning_rate": 0.001, "threads": 1},
            "tuning": {"trials": 2, "workers": 1, "epochs": 1, "batch_size": [16]},
            "cross_validation": {"folds": 2, "epochs": 1},
            "evaluation": {"explained_images": 5},
            "packaging": {"max_accuracy_drop": 1.0},
        }
        for name, section in changes.items():
            values[name] = {**values.get(name, {}), **section}
        (self.folder / "shop.yaml").write_text(yaml.safe_dump(values))

    def tell(self, **variables: str) -> dict[str, Any]:
        """Run everything once, in a new process."""
        environment = {
            **os.environ,
            "PYTHONPATH": f"{self.folder / 'code'}{os.pathsep}{PACKAGE.parent}",
            "PIPELINE_HOME": str(self.folder / "home"),
        }
        environment |= {"PIPELINE_CONFIG": str(self.folder / "shop.yaml"), **variables}
        command = [sys.executable, "-W", "ignore", "-c", DRIVER, FIRST, SECOND]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said

    def run(self) -> dict[str, str]:
        """What was made and why."""
        made: dict[str, str] = self.tell()["made"]
        return made

    def code(self, file: str) -> Path:
        return self.folder / "code" / "pipeline_project" / file


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("shop"))
    generate_catalogue(made.folder / "photos", seed=5, days=DAYS, images_per_day=60)
    shutil.copytree(PACKAGE, made.folder / "code" / "pipeline_project", ignore=shutil.ignore_patterns("__pycache__"))
    made.write()
    made.first = made.tell(RECORD="1")
    return made


@pytest.fixture(autouse=True)
def _settings_as_before(shop: Shop) -> None:
    """What a test changed in the photos or the code is settled by its own run; settings go back, to results that are remembered."""
    shop.write()


def test_the_first_run_makes_everything(shop: Shop) -> None:
    assert shop.first["made"].keys() == EVERYTHING
    assert set(shop.first["made"].values()) == {"made for the first time"}


def test_every_setting_that_a_step_reads_is_declared(shop: Shop) -> None:
    read = Recording(settings={name: set(paths) for name, paths in shop.first["read"].items()})
    for name, reusable in STEPS.items():
        undeclared = read.undeclared(name, reusable.settings) - DO_NOT_COUNT.get(name, set())
        assert undeclared == set(), f"{name} reads settings that its recipe does not know"


def test_every_upstream_artefact_that_a_step_looks_up_is_an_input(shop: Shop) -> None:
    graph = json.loads((Path(__file__).parents[1] / "defs" / "graph.json").read_text())["assets"]
    for name in STEPS:
        asset = {"fold": "cross_validation_report"}.get(name, name)
        own = {name, asset, "cross_validation_fold"}
        looked_up = set(shop.first["fetched"].get(name, ())) - own
        assert looked_up <= set(graph[asset]["deps"]) | {"raw_images"}, f"{name} looks up more than the graph shows"


def test_nothing_changed_makes_nothing_and_loads_no_heavy_library(shop: Shop) -> None:
    told = shop.tell()
    assert told["made"] == {}
    assert told["heavy"] == []


def test_photos_that_are_only_copied_again_change_nothing_below_the_inventory(shop: Shop) -> None:
    for photo in (shop.folder / "photos" / SECOND).rglob("*.jpg"):
        os.utime(photo, (1_700_000_000, 1_700_000_000))
    made = shop.run()
    assert made.keys() == {f"validated_manifest {SECOND}"}


def test_one_changed_image(shop: Shop) -> None:
    photo = next(iter(sorted((shop.folder / "photos" / SECOND).rglob("*.jpg"))))
    photo.write_bytes(product_photo("toys", np.random.default_rng(77)))
    made = shop.run()
    assert made.keys() == OF_SECOND | DATA | TRAINED
    assert f"image_pack {SECOND}" in made["dataset_splits"]
    assert "dataset_splits" in made["trained_model"]


def test_one_changed_label(shop: Shop) -> None:
    labels = shop.folder / "photos" / SECOND / "labels.csv"
    head, row, *rest = labels.read_text().splitlines()
    columns = head.split(",")
    values = row.split(",")
    at = columns.index("label")
    values[at] = "home" if values[at] != "home" else "toys"
    labels.write_text("\n".join([head, ",".join(values), *rest]) + "\n")
    made = shop.run()
    assert made.keys() == OF_SECOND | DATA | TRAINED


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("gates", {"accuracy": 0.5}, set()),
        ("training", {"schedule": "0 5 * * 1"}, set()),
        ("serving", {"poll_seconds": 0.9}, set()),
        ("evaluation", {"explained_images": 6}, {"evaluation_report"}),
        ("packaging", {"calibration_images": 64}, {"model_package", "evaluation_report"}),
        ("training", {"epochs": 3}, {"trained_model", "model_package", "evaluation_report"}),
        ("cross_validation", {"epochs": 2}, {"fold-0", "fold-1", "cross_validation_report"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_one_changed_setting(shop: Shop, section: str, values: dict[str, Any], expected: set[str]) -> None:
    base = {"training": {"epochs": 2, "learning_rate": 0.001, "threads": 1}}.get(section, {})
    shop.write(**{section: {**base, **values}})
    made = shop.run()
    assert made.keys() == expected
    for reason in made.values():
        assert "settings: " in reason or "inputs: " in reason


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("storage/byte_store.py", set()),
        ("ingest/features.py", {f"image_features {FIRST}", f"image_features {SECOND}"}),  # the same numbers: nothing below moves
        ("evaluation/slices.py", {"evaluation_report"}),
        ("packaging/build.py", {"model_package"}),  # the same bytes: the report is still about this package
        ("training/final.py", {"trained_model"}),
    ],
)
def test_one_changed_line_of_code(shop: Shop, file: str, expected: set[str]) -> None:
    with shop.code(file).open("a") as code:
        code.write("# one more line\n")
    made = shop.run()
    assert made.keys() == expected
    assert all(f"code: {file}" in reason for reason in made.values())
