"""A folder of one's own becomes a project: a settings file of a few lines, and errors that say what the folder lacks."""

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from pipeline_project.local.project import (
    ProjectError,
    current_project,
    describe_folder,
    own_project,
    project_name,
    remember,
    sample_project,
)
from pipeline_project.settings import SettingsError, load_settings


def shop(folder: Path, labels: str = "image,label,title,brand_tier\na.jpg,mugs,A mug,low\nb.jpg,plates,A plate,high\n") -> Path:
    folder.mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"x")
    (folder / "labels.csv").write_text(labels, "utf-8")
    moment = datetime(2026, 10, 5, 12, tzinfo=UTC).timestamp()
    for path in folder.iterdir():
        os.utime(path, (moment, moment))
    return folder


def test_flat_folder_is_described(tmp_path: Path) -> None:
    assert describe_folder(shop(tmp_path / "shop")) == {
        "source": str(tmp_path / "shop"),
        "classes": ["mugs", "plates"],
        "start_date": date(2026, 10, 5),
        "slice_columns": ["brand_tier"],
        "text_columns": ["title"],
    }


def test_dated_folders_are_described_together(tmp_path: Path) -> None:
    shop(tmp_path / "shop" / "2026-11-02", "image,label\na.jpg,mugs\nb.jpg,\n")
    shop(tmp_path / "shop" / "2026-11-01", "image,label\na.jpg,bowls\nb.jpg,plates\n")
    found = describe_folder(tmp_path / "shop")
    assert found["classes"] == ["bowls", "mugs", "plates"]
    assert found["start_date"] == date(2026, 11, 1)


def test_folder_needs_no_settings_file(tmp_path: Path) -> None:
    config, settings = own_project(tmp_path, str(shop(tmp_path / "My Shop")), None)
    lines = config.read_text("utf-8").splitlines()
    assert len(lines) <= 10
    assert config == tmp_path / ".pipeline" / "my-shop" / "settings.yaml"
    assert settings.name == "my-shop"
    assert settings.home == config.parent
    assert settings.data.classes == ["mugs", "plates"]
    assert settings.data.source == str(tmp_path / "My Shop")
    assert settings == load_settings(config, environment={"PIPELINE_HOME": str(config.parent)})


@pytest.mark.parametrize("label", ["yes", "0012", "null", "a: b", "Bücher & Co.", "'x\"", "# no comment", "1.0"])
def test_any_class_name_survives_the_file(tmp_path: Path, label: str) -> None:
    quoted = label.replace('"', '""')
    folder = shop(tmp_path / "shop", f'image,label\na.jpg,"{quoted}"\nb.jpg,plates\n')
    assert own_project(tmp_path, str(folder), None)[1].data.classes == sorted([label, "plates"])


def test_what_the_user_changed_in_the_written_file_stays(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop")
    config, _ = own_project(tmp_path, str(folder), None)
    config.write_text(config.read_text("utf-8") + "training: {epochs: 3}\n", "utf-8")
    assert own_project(tmp_path, str(folder), None)[1].training.epochs == 3


def test_settings_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("extends: sample\nname: mine\ndata: {source: shop}\n")
    config, settings = own_project(tmp_path, None, Path("mine.yaml"))
    assert config == tmp_path / "mine.yaml"
    assert (settings.name, settings.data.source) == ("mine", str(tmp_path / "shop"))


def test_settings_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: sample\nname: mine\ntraining: {epochs: 4}\ndata: {start_date: 2026-01-01}\n")
    config, settings = own_project(tmp_path, str(shop(tmp_path / "shop")), tmp_path / "mine.yaml")
    assert (settings.name, settings.training.epochs) == ("mine", 4)
    assert settings.data.classes == ["mugs", "plates"], "of the folder"
    assert settings.data.start_date == date(2026, 1, 1), "of the file"
    assert settings.home == config.parent == tmp_path / ".pipeline" / "mine"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (None, "no labels.csv found. Put one there with the columns image,label"),
        ("file,class\na.jpg,mugs\n", "no column image, label; there are file, class"),
        ("image,label\na.jpg,mugs\nb.jpg,mugs\n", "the labels name 1 class (mugs); at least 2 are needed"),
        ("image,label\n", "the labels name 0 class"),
    ],
)
def test_unusable_folder_says_what_it_lacks(tmp_path: Path, labels: str | None, said: str) -> None:
    folder = shop(tmp_path / "shop", labels or "")
    if labels is None:
        (folder / "labels.csv").unlink()
    with pytest.raises(ProjectError) as caught:
        own_project(tmp_path, str(folder), None)
    assert str(folder) in str(caught.value)
    assert said in str(caught.value)
    assert not (tmp_path / ".pipeline").exists(), "nothing is written for a folder that cannot be used"


def test_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"nowhere: no such folder"):
        own_project(tmp_path, str(tmp_path / "nowhere"), None)
    with pytest.raises(SettingsError, match="no such settings file"):
        own_project(tmp_path, None, tmp_path / "nowhere.yaml")


def test_last_project_is_remembered(tmp_path: Path) -> None:
    assert current_project(tmp_path) is None
    config, settings = own_project(tmp_path, str(shop(tmp_path / "shop")), None)
    remember(tmp_path, config, settings)
    assert current_project(tmp_path) == (config, settings)


def test_sample_project_is_made_once(tmp_path: Path) -> None:
    config, settings = sample_project(tmp_path)
    assert len(config.read_text("utf-8").splitlines()) <= 10
    assert settings.data.source == str(tmp_path / ".pipeline" / "sample" / "catalogue")
    assert (datetime.now(UTC).date() - settings.data.start_date).days in (5, 6)
    assert sample_project(tmp_path) == (config, settings)


def test_two_folders_of_one_name_are_two_projects(tmp_path: Path) -> None:
    homes = set()
    for parent in ("a", "b"):
        folder = tmp_path / parent / "photos"
        (folder / "images").mkdir(parents=True)
        (folder / "labels.csv").write_text("image,label\nimages/1.jpg,cat\nimages/2.jpg,dog\n")
        config, settings = own_project(tmp_path, str(folder), None)
        assert settings.data.source == str(folder)
        homes.add(config.parent)
    assert len(homes) == 2


@pytest.mark.parametrize("name", ["sample", "current", "B\u00fccher", "---"])
def test_any_folder_name_gives_a_project_of_its_own(tmp_path: Path, name: str) -> None:
    chosen = project_name(tmp_path, tmp_path / name)
    assert chosen not in ("sample", "current")
    assert load_settings("sample", environment={"PIPELINE__NAME": chosen}).name == chosen
