"""From YAML files and environment variables to a `Settings`, with errors that name the line, the reason and what is allowed.

A file may start with `extends: product_images` (or `sample`, or another file's path); it then needs only what differs.
`PIPELINE_CONFIG` names the file, `PIPELINE_HOME` the runtime folder, and `PIPELINE__TRAINING__EPOCHS=3` overrides one value.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipeline_project.settings.tree import Settings

CONFIG_FOLDER = Path(__file__).parent.parent / "config"
_OVERRIDE_PREFIX = "PIPELINE__"
_PATH_KEYS = {("data", "source"), ("model", "weights_uri")}  # relative to the file that says them

KeyPath = tuple[str, ...]


class SettingsError(ValueError):
    """The settings cannot be used; the message says where, why and what is allowed."""


def load_settings(config: str | Path | None = None, *, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings tree.

    Args:
        config: a YAML file, or the name of a shipped profile (`product_images`, `sample`). Default: `PIPELINE_CONFIG`, else `sample`.
        environment: stands in for `os.environ`.

    Raises:
        SettingsError: a file is missing or not YAML, a key is unknown or missing, or a value has the wrong type or range.
    """
    env = os.environ if environment is None else environment
    values, origins = _read(_locate(str(config or env.get("PIPELINE_CONFIG") or "sample"), Path.cwd()), seen=())
    _apply_overrides(values, origins, env)
    if "home" in values:
        raise SettingsError(f"{origins[('home',)]}: home is not a setting of the file. Set PIPELINE_HOME instead.")
    home = Path(env.get("PIPELINE_HOME") or Path.cwd() / ".pipeline" / str(values.get("name", "unnamed")))
    try:
        return Settings.model_validate({**values, "home": home.absolute()})
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None


def named_config() -> str | None:
    """The settings file (or profile) that this process's environment names, or None. A runtime home alone names the sample profile."""
    return os.environ.get("PIPELINE_CONFIG") or ("sample" if os.environ.get("PIPELINE_HOME") else None)


def overrides() -> dict[str, str]:
    """The `PIPELINE__...` variables of this process."""
    return {name: value for name, value in os.environ.items() if name.startswith(_OVERRIDE_PREFIX)}


def secret_address(address: str) -> str:
    """What an address `env:NAME` stands for: an environment variable, so that a password stays out of settings files and records.

    Raises:
        SettingsError: the variable is not set.
    """
    name = address.removeprefix("env:")
    value = os.environ.get(name, "")
    if not value:
        raise SettingsError(
            f"environment variable {name}: not set, and {address} needs it. Set it, such as postgresql://user:password@host/database."
        )
    return value


def child_environment(settings: Settings, config: str | Path | None = None) -> dict[str, str]:
    """The environment of a process that is to read the same settings: this one's, with the runtime home (and the file) named.

    OpenMP threads wait without spinning: beside a webserver and endpoints, spinning made epochs of training several times slower.
    """
    environment = {**os.environ, "PIPELINE_HOME": str(settings.home), "DAGSTER_HOME": str(settings.home / "dagster")}
    if config is not None:
        environment["PIPELINE_CONFIG"] = str(config)
    return environment | {
        "OMP_WAIT_POLICY": "PASSIVE",
        "DO_NOT_TRACK": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }


def take_environment(environment: Mapping[str, str]) -> None:
    """Make this process's environment that of its parent: one that a fork server started has it as it was when that server began."""
    os.environ.clear()
    os.environ.update(environment)


def _locate(name: str, beside: Path) -> Path:
    shipped = CONFIG_FOLDER / f"{name}.yaml"
    path = shipped if shipped.exists() and "/" not in name else (beside / name)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in CONFIG_FOLDER.glob("*.yaml")))
        raise SettingsError(f"{path}: no such settings file. Give a YAML file's path, or one of: {names}.")
    return path


def _read(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """The merged values of a file and what it extends, and for each key where it was said (`file:line`)."""
    if path.resolve() in seen:
        raise SettingsError(f"{path}: extends itself, through {' -> '.join(p.name for p in seen)}. Remove one `extends`.")
    try:
        node = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
        own = yaml.safe_load(path.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not readable as UTF-8 YAML: {error}") from None
    if not isinstance(own, dict):
        raise SettingsError(f"{path}:1: settings must be `key: value` lines, not {type(own).__name__}.")
    origins: dict[KeyPath, str] = {}
    if isinstance(node, yaml.MappingNode):
        _note_lines(node, path, (), origins)
    parent = own.pop("extends", None)
    for section, key in _PATH_KEYS:
        value = own.get(section, {}).get(key) if isinstance(own.get(section), dict) else None
        if isinstance(value, dict):
            own[section][key] = {name: _absolute(below, path.parent) for name, below in value.items()}
        elif value is not None:
            own[section][key] = _absolute(value, path.parent)
    if parent is None:
        return own, origins
    values, inherited = _read(_locate(str(parent), path.parent), (*seen, path.resolve()))
    return _merge(values, own), inherited | origins


def _absolute(address: Any, folder: Path) -> Any:
    """A path as an absolute one; other addresses (`s3://...`, `env:NAME`) and what is no text as they are."""
    if not isinstance(address, str) or "://" in address or address.startswith("env:"):
        return address
    return str((folder / Path(address).expanduser()).resolve())


def _note_lines(node: yaml.MappingNode, path: Path, prefix: KeyPath, origins: dict[KeyPath, str]) -> None:
    said: set[str] = set()
    for key_node, value_node in node.value:
        key, where = str(key_node.value), f"{path}:{key_node.start_mark.line + 1}"
        if key in said:
            raise SettingsError(f"{where}: {'.'.join((*prefix, key))} is said twice in this file. Keep one.")
        said.add(key)
        origins[(*prefix, key)] = where
        if isinstance(value_node, yaml.MappingNode):
            _note_lines(value_node, path, (*prefix, key), origins)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _apply_overrides(values: dict[str, Any], origins: dict[KeyPath, str], env: Mapping[str, str]) -> None:
    for variable in sorted(v for v in env if v.startswith(_OVERRIDE_PREFIX)):
        keys = tuple(part.lower() for part in variable.removeprefix(_OVERRIDE_PREFIX).split("__"))
        branch = values
        for key in keys[:-1]:
            branch = branch.setdefault(key, {})
            if not isinstance(branch, dict):
                raise SettingsError(f"environment variable {variable}: {key} is a value, not a section.")
        try:
            branch[keys[-1]] = yaml.safe_load(env[variable])
        except yaml.YAMLError as error:
            raise SettingsError(f"environment variable {variable}: not a YAML value: {error}") from None
        origins[keys] = f"environment variable {variable}"


def _explain(error: ValidationError, origins: dict[KeyPath, str]) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        keys = tuple(str(part) for part in problem["loc"])
        where = next((origins[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in origins), "settings")
        section = _section_at(keys[:-1])
        if problem["type"] == "extra_forbidden" and section is not None:
            allowed = [name for name in section.model_fields if name != "home"]
            close = difflib.get_close_matches(keys[-1], allowed, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            reason = f"unknown key; {hint}allowed here: {', '.join(allowed)}"
        elif problem["type"] == "missing":
            reason = "missing; add it, or start the file with `extends: product_images`"
        else:
            reason = f"{problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r})"
            field = section.model_fields.get(keys[-1]) if section else None
            if field is not None and field.description:
                reason += f"; {keys[-1]}: {field.description}"
        lines.append(f"{where}: {'.'.join(keys)}: {reason}")
    return "\n".join(lines)


def _section_at(keys: KeyPath) -> type[BaseModel] | None:
    """The model class of a branch, or None where the path leaves the tree."""
    section: type[BaseModel] = Settings
    for key in keys:
        field = section.model_fields.get(key)
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        below = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if below is None:
            return None
        section = below
    return section
