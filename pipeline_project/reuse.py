"""Second runs: a step whose content, code and configuration are unchanged is not computed again, and says so.

The key of a result is the digest of everything that decides it: the digests of its inputs, the code that its module reaches, the
versions of the libraries that the code uses, and the values of the settings that it declares. No path, time or machine is in it, so
every executor finds what any other made. What was made under a key is remembered in the store beside the artefacts.

A remembered result counts only while its bytes are whole: a damaged or removed artefact is made anew. A run can ask for that, too
(`StageContext.recompute`).
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol

from pipeline_project.code_version import files_of, libraries_of
from pipeline_project.digests import digest_of
from pipeline_project.settings import Settings
from pipeline_project.stage import Markdown, Metadata, Picture, StageContext, StepResult, Table
from pipeline_project.storage import Artifact, ArtifactMissingError

P = ParamSpec("P")
Inputs = Sequence[str] | Callable[..., Mapping[str, str]]
MADE = "artifacts/made"
_SHOWN = 3


@dataclass(frozen=True)
class Recipe:
    """What decides a result. Two equal recipes give the same payload, on any machine."""

    asset: str
    partition: str | None
    inputs: Mapping[str, str]
    code: Mapping[str, str]
    libraries: Mapping[str, str]
    settings: Mapping[str, Any]

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """The recipe as JSON."""
        found = {"inputs": self.inputs, "code": self.code, "libraries": self.libraries, "settings": self.settings}
        return {name: dict(part) for name, part in found.items()}

    @property
    def key(self) -> str:
        """64 hexadecimal digits that name the result."""
        return digest_of({"asset": self.asset, "partition": self.partition, **self.parts})


class ReusableStep(Generic[P]):
    """A stage step that looks before it computes. Called like the step itself.

    Args:
        make: the step.
        asset: what it publishes.
        inputs: names of the upstream artefacts (of the step's own partition, if it has one), or a function with the step's arguments
            that gives {name: digest}.
        settings: dotted paths of all settings that can change the payload; a path to a section stands for the whole of it.
        code: further modules that the result depends on, where no import says so (a program that is started).
        newest_only: reuse only what is the newest version now, because the step continues from it.
        sound: an additional condition of a stored result; False makes it anew.
    """

    def __init__(
        self,
        make: Callable[Concatenate[StageContext, P], StepResult],
        asset: str,
        inputs: Inputs,
        settings: Sequence[str],
        code: Sequence[str] = (),
        newest_only: bool = False,
        sound: Callable[[StageContext, Artifact], bool] = lambda _context, _artifact: True,
    ) -> None:
        self.asset, self.settings = asset, tuple(settings)
        self._make, self._inputs, self._newest_only, self._sound = make, inputs, newest_only, sound
        self._code = (make.__module__.partition(".")[2], *code)
        update_wrapper(self, make)

    def __call__(self, context: StageContext, *args: P.args, **kwargs: P.kwargs) -> StepResult:
        """The remembered result, or a new one."""
        recipe = self.recipe(context, *args, **kwargs)
        found = None if context.recompute else self.find(context, recipe)
        if found is not None:
            return found
        reason = _why_made(context, recipe)
        context.log(f"{recipe.asset}: {reason}")
        return _remember(context, recipe, self._make(context, *args, **kwargs), reason)

    def recipe(self, context: StageContext, *args: P.args, **kwargs: P.kwargs) -> Recipe:
        """What decides the result of a call. Raises `ArtifactMissingError` when an input was not made yet."""
        partition = _partition(args)
        if callable(self._inputs):
            inputs = dict(self._inputs(context, *args, **kwargs))
        else:
            inputs = {name: context.artifacts.latest(name, partition).digest for name in self._inputs}
        return Recipe(
            self.asset, partition, inputs, files_of(*self._code), libraries_of(*self._code), _values(context.settings, self.settings)
        )

    def find(self, context: StageContext, recipe: Recipe) -> StepResult | None:
        """What was made under a recipe, made the newest version again; None when there is nothing whole."""
        try:
            record = context.artifacts.bytes.read_json(_record_key(recipe))
            artifact = context.artifacts.version(recipe.asset, record["digest"], recipe.partition)
            artifact.verify()
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        newest = context.artifacts.find(recipe.asset, recipe.partition)
        if self._newest_only and (newest is None or newest.digest != artifact.digest):
            return None
        artifact = replace(artifact, info=record["info"])
        if not self._sound(context, artifact):
            return None
        if newest is None or (newest.digest, newest.info) != (artifact.digest, artifact.info):
            try:
                artifact = context.artifacts.publish_again(artifact, record["info"])
            except ArtifactMissingError:
                return None  # removed as not needed, in this very moment
        by = f" by run {artifact.run[:8]}" if artifact.run else ""
        reason = f"reused: content, code and configuration are those of the result made {artifact.created}{by}"
        context.log(f"{recipe.asset}: {reason}")
        return StepResult(artifact, {**_decode(record["metadata"]), **_reuse_metadata(True, recipe, reason)})


class _Wrap(Protocol):
    def __call__(self, make: Callable[Concatenate[StageContext, P], StepResult], /) -> ReusableStep[P]:
        """Wrap a step."""


def reusable(
    asset: str,
    *,
    inputs: Inputs,
    settings: Sequence[str] = (),
    code: Sequence[str] = (),
    newest_only: bool = False,
    sound: Callable[[StageContext, Artifact], bool] = lambda _context, _artifact: True,
) -> "_Wrap":
    """Make a stage step reusable; the arguments are those of `ReusableStep`."""

    def wrap(make: Callable[Concatenate[StageContext, P], StepResult], /) -> ReusableStep[P]:
        return ReusableStep(make, asset, inputs, settings, code, newest_only, sound)

    return wrap


def _partition(args: Sequence[Any]) -> str | None:
    """The partition that a step's first argument names: a day, or a text such as "fold-1"."""
    first = args[0] if args else None
    if isinstance(first, date):
        return first.isoformat()
    return first if isinstance(first, str) else None


def _values(settings: Settings, paths: Sequence[str]) -> dict[str, Any]:
    """{dotted path: value} of settings; sections are taken apart, so that a changed leaf can be named."""
    tree: dict[str, Any] = settings.model_dump(mode="json")
    found: dict[str, Any] = {}

    def take(path: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, below in value.items():
                take(f"{path}.{key}", below)
        else:
            found[path] = value

    for path in paths:
        value: Any = tree
        for part in path.split("."):
            value = value[part]
        take(path, value)
    return found


def _why_made(context: StageContext, recipe: Recipe) -> str:
    """Why a result is made now, from the parts of the newest one made before."""
    if context.recompute:
        return "made anew: the run asks for it"
    try:
        before: dict[str, dict[str, Any]] = context.artifacts.bytes.read_json(_newest_key(recipe))["parts"]
    except FileNotFoundError:
        return "made for the first time"
    except (ValueError, KeyError, TypeError):
        return "made anew: the record of what was made before cannot be read"
    changes = []
    for name, part in recipe.parts.items():
        was = before.get(name, {})
        differing = sorted(key for key in part.keys() | was.keys() if part.get(key) != was.get(key))
        shown = [_change(name, key, was.get(key), part.get(key)) for key in differing[:_SHOWN]]
        more = [f"{len(differing) - _SHOWN} more"] if len(differing) > _SHOWN else []
        if differing:
            changes.append(f"{name}: {', '.join(shown + more)}")
    if changes:
        return f"made: changed {'; '.join(changes)}"
    return "made anew: what was made before under this key is missing, damaged, or may not be used again"


def _change(part: str, key: str, before: Any, now: Any) -> str:
    if part == "code":
        return key
    if part == "inputs":
        return f"{key} ({str(before or 'none')[:8]} to {str(now or 'none')[:8]})"
    return f"{key} from {before!r} to {now!r}"


def _remember(context: StageContext, recipe: Recipe, result: StepResult, reason: str) -> StepResult:
    record = {
        "version": 1,
        "asset": recipe.asset,
        "partition": recipe.partition,
        "digest": result.artifact.digest,
        "info": dict(result.artifact.info),
        "parts": recipe.parts,
        "metadata": _encode(result.metadata),
    }
    data = json.dumps(record, sort_keys=True, default=str).encode()
    context.artifacts.bytes.write(_record_key(recipe), data)
    context.artifacts.bytes.write_json(_newest_key(recipe), {"version": 1, "key": recipe.key, "parts": recipe.parts})
    return StepResult(result.artifact, {**result.metadata, **_reuse_metadata(False, recipe, reason)})


def _reuse_metadata(reused: bool, recipe: Recipe, reason: str) -> dict[str, Any]:
    return {"reused": reused, "reuse_reason": reason, "reuse_key": recipe.key}


def _record_key(recipe: Recipe) -> str:
    return f"{MADE}/{recipe.asset}/{recipe.partition or 'all'}/{recipe.key[:32]}.json"


def _newest_key(recipe: Recipe) -> str:
    return f"{MADE}/{recipe.asset}/{recipe.partition or 'all'}/newest.json"


def _encode(metadata: Metadata) -> dict[str, Any]:
    return {name: _encode_value(value) for name, value in metadata.items()}


def _encode_value(value: Any) -> dict[str, Any]:
    if isinstance(value, Table):
        return {"table": [dict(row) for row in value.rows]}
    if isinstance(value, Picture):
        return {"picture": base64.b64encode(value.data).decode(), "media_type": value.media_type}
    if isinstance(value, Markdown):
        return {"markdown": value.text}
    return {"plain": value}


def _decode(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: _decode_value(value) for name, value in stored.items()}


def _decode_value(value: Mapping[str, Any]) -> Any:
    if "table" in value:
        return Table(value["table"])
    if "picture" in value:
        return Picture(base64.b64decode(value["picture"]), value["media_type"])
    return Markdown(value["markdown"]) if "markdown" in value else value["plain"]
