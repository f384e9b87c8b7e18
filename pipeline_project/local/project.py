"""A project on this machine: a name, a settings file and a runtime home, `.pipeline/NAME/`. `.pipeline/current` names the last one."""

import itertools
import math
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import yaml

from pipeline_project.digests import sha256_bytes
from pipeline_project.settings import Settings, load_settings
from pipeline_project.settings.tree import DataSettings

if TYPE_CHECKING:
    from pipeline_project.contracts import LabelRow

RUNTIME = ".pipeline"
SAMPLE_DAYS = 5
SAMPLE_IMAGES_A_DAY = 240
SAMPLE_SEED = 0
_RESERVED = ("sample", "current")


class ProjectError(ValueError):
    """The user's folder or file cannot be used."""


def sample_project(root: Path) -> tuple[Path, Settings]:
    """The project of the generated catalogue: its settings file (made once) and its settings."""
    home = root / RUNTIME / "sample"
    config = home / "settings.yaml"
    if not config.exists():
        last = datetime.now(UTC).date() - timedelta(days=1)
        first = last - timedelta(days=SAMPLE_DAYS - 1)
        write_settings(config, {"extends": "sample", "data": {"source": "catalogue", "start_date": first}})
        (home / "catalogue").mkdir(parents=True, exist_ok=True)
    return config, load_settings(config, environment=_environment(home))


def draw_sample(settings: Settings) -> None:
    """Draw the sample catalogue unless its last day is complete (labels.csv is written last)."""
    from pipeline_project.sample.catalogue import generate_catalogue

    days = [settings.data.start_date + timedelta(days=n) for n in range(SAMPLE_DAYS)]
    folder = settings.data.folder
    assert folder is not None
    missing = [day for day in days if not (folder / day.isoformat() / settings.data.labels_file).exists()]
    if missing:
        generate_catalogue(folder, seed=SAMPLE_SEED, days=missing, images_per_day=SAMPLE_IMAGES_A_DAY)


def own_project(root: Path, source: str | None, config: Path | None) -> tuple[Path, Settings]:
    """The project of a user's folder, or of a user's settings file, or of both.

    For a folder, a settings file is written into the runtime home: the folder's classes and first day over the user's file (where that
    does not say them itself), or over the sample profile.

    Raises:
        ProjectError: the folder has no readable labels.csv.
        SettingsError: the file is wrong.
    """
    if config is not None and source is None:
        settings = load_settings(config)
        return config.absolute(), settings
    assert source is not None
    if config is None:
        folder = Path(source).expanduser().resolve()
        name = project_name(root, folder)
        home = root / RUNTIME / name
        written = home / "settings.yaml"
        if not written.exists():
            write_settings(written, {"extends": "sample", "name": name, "data": describe_folder(folder)})
        return written, load_settings(written, environment=_environment(home))
    folder = Path(source).expanduser().resolve()
    mine = load_settings(config)
    home = root / RUNTIME / mine.name
    both = home / "settings.yaml"
    said = (yaml.safe_load(config.read_text("utf-8")) or {}).get("data", {})
    data = {key: value for key, value in describe_folder(folder, mine).items() if key == "source" or key not in said}
    write_settings(both, {"extends": str(config.absolute()), "data": data})
    return both, load_settings(both, environment=_environment(home))


def project_name(root: Path, folder: Path) -> str:
    """A name for a folder's project: the folder's own, in plain letters; with a part of its path's digest where that name is taken."""
    slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.name.lower()).strip("-")[:40]
    written = root / RUNTIME / slug / "settings.yaml"
    said = yaml.safe_load(written.read_text("utf-8")) if written.is_file() else {"data": {"source": str(folder)}}
    free = slug and slug not in _RESERVED and said.get("data", {}).get("source") == str(folder)
    return slug if free else f"{slug or 'photos'}-{sha256_bytes(str(folder).encode())[:6]}"


def describe_folder(folder: Path, settings: Settings | None = None) -> dict[str, object]:
    """The `data` section for a folder of images with labels.csv: source, classes, start_date, slices.

    Args:
        settings: how the label file and its columns are called, default: as in the sample profile.

    Raises:
        ProjectError: no labels.csv, it cannot be read, or it names fewer than two classes.
    """
    from pipeline_project.ingest.sources import FolderSource, day_folder

    data = (settings or load_settings("sample", environment={})).data
    if not folder.is_dir():
        raise ProjectError(f"{folder}: no such folder. Name the folder that holds your images and their {data.labels_file}.")
    listed = FolderSource(folder).list_all()
    rows = _label_rows(folder, data)
    classes = sorted({row.label for row in rows if row.label})
    if len(classes) < 2:
        named = f" ({classes[0]})" if classes else ""
        raise ProjectError(
            f"{folder}: the labels name {len(classes)} class{named}; at least 2 are needed. "
            f"Add labelled images of another class to {data.labels_file}."
        )
    _require_distinct(folder, classes, data)
    columns = {column for row in rows for column in row.attributes}
    first: date = min(day_folder(o.key) or o.modified.astimezone(UTC).date() for o in listed)
    return {
        "source": str(folder),
        "classes": classes,
        "start_date": first,
        "slice_columns": [c for c in data.slice_columns if c in columns],
        "text_columns": [c for c in data.text_columns if c in columns],
    }


def require_enough_images(settings: Settings) -> None:
    """Refuse in seconds what training would refuse after hours: classes with too few images for the splits and the folds.

    A source that is no local folder, or has no label file yet, is not looked at.

    Raises:
        ProjectError: with the number of images of each such class.
    """
    from pipeline_project.ingest.sources import FolderSource

    folder, data = settings.data.folder, settings.data
    if folder is None or not folder.is_dir():
        return
    keys = [o.key for o in FolderSource(folder).list_all()]
    if not any(PurePosixPath(key).name == data.labels_file for key in keys):
        return
    labels = {row.image: row.label for row in _label_rows(folder, data)}
    counts = Counter(labels[key] for key in keys if key in labels)
    folds = settings.cross_validation.folds
    needed = max(3, math.ceil(folds / (1 - settings.dataset.test)))
    few = ", ".join(f"{name} ({counts[name]})" for name in data.classes if counts[name] < needed)
    if few:
        absent = len(labels.keys() - set(keys))
        note = f" {absent} images that {data.labels_file} names are not there." if absent else ""
        raise ProjectError(
            f"{folder}: too few images of {few}; every class needs at least {needed}, for {folds} folds (cross_validation.folds) "
            f"beside a test split.{note} Add images of these classes, or remove the classes."
        )


def _label_rows(folder: Path, data: DataSettings) -> "list[LabelRow]":
    from pipeline_project.ingest.labels import in_few_words, parse_labels
    from pipeline_project.ingest.sources import FolderSource

    source = FolderSource(folder)
    files = [o.key for o in source.list_all() if PurePosixPath(o.key).name == data.labels_file]
    if not files:
        columns = f"{data.image_column},{data.label_column}"
        raise ProjectError(f"{folder}: no {data.labels_file} found. Put one there with the columns {columns} (paths below the folder).")
    found = []
    for file in files:
        rows, problems = parse_labels(file, source.read(file), data)
        if problems and not rows:
            raise ProjectError(f"{folder / file}: {in_few_words([problem.detail for problem in problems])}")
        found += rows
    return found


def _require_distinct(folder: Path, classes: list[str], data: DataSettings) -> None:
    from pipeline_project.ingest.labels import same_but_for_case

    for one, other in itertools.combinations(classes, 2):
        if same_but_for_case(one, other):
            raise ProjectError(
                f"{folder}: the labels {one!r} and {other!r} differ only in upper and lower case, spaces or Unicode form. "
                f"Write them alike in {data.labels_file}."
            )


def write_settings(path: Path, values: dict[str, object]) -> None:
    """Write a settings file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120), "utf-8")
    draft.replace(path)


def remember(root: Path, config: Path, settings: Settings) -> None:
    """Make a project the current one, for `make dev` and `make stop`."""
    (root / RUNTIME).mkdir(exist_ok=True)
    write_settings(root / RUNTIME / "current", {"config": str(config), "home": str(settings.home)})


def current_project(root: Path) -> tuple[Path, Settings] | None:
    """The project last used here, or None."""
    file = root / RUNTIME / "current"
    if not file.is_file():
        return None
    said = yaml.safe_load(file.read_text("utf-8"))
    return Path(said["config"]), load_settings(said["config"], environment=_environment(Path(said["home"])))


def _environment(home: Path) -> dict[str, str]:
    from pipeline_project.settings.loading import overrides

    return {**overrides(), "PIPELINE_HOME": str(home)}
