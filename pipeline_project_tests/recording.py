"""What a step really reads: settings and upstream artefacts, noted while it runs, to be held against its recipe."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline_project.settings import Settings
from pipeline_project.settings.tree import Section
from pipeline_project.storage import ArtifactStore

NEVER_COUNT = ("home", "name", "store.", "tracking.", "trust.")  # where things lie, and whom to believe


@dataclass
class Recording:
    """{step: what it read}, for the step that `step` names at the moment."""

    step: str = ""
    settings: dict[str, set[str]] = field(default_factory=dict)
    artifacts: dict[str, set[str]] = field(default_factory=dict)

    def undeclared(self, step: str, declared: tuple[str, ...]) -> set[str]:
        """Settings that a step read although it declares neither them nor their section."""
        known = tuple(f"{path}." for path in declared)
        read = self.settings.get(step, set())
        return {path for path in read if path not in declared and not path.startswith((*known, *NEVER_COUNT))}


@contextmanager
def recorded(settings: Settings) -> Iterator[Recording]:
    """Note what is read of this settings tree and of any artefact store while the block runs."""
    recording = Recording()
    paths: dict[int, tuple[str, ...]] = {}

    def walk(section: Section, path: tuple[str, ...]) -> None:
        paths[id(section)] = path
        for name in type(section).model_fields:
            value = getattr(section, name)
            if isinstance(value, Section):
                walk(value, (*path, name))

    def read(self: Section, name: str) -> Any:
        value = object.__getattribute__(self, name)
        path = paths.get(id(self))
        if path is not None and not isinstance(value, Section):
            noted = recording.settings.setdefault(recording.step, set())
            if name in type(self).model_fields:
                noted.add(".".join((*path, name)))
            elif name == "model_dump" and path:
                noted.update(".".join((*path, below)) for below in type(self).model_fields)
        return value

    originals = {name: getattr(ArtifactStore, name) for name in ("latest", "find")}

    def look(method: str) -> Any:
        def looked(self: ArtifactStore, name: str, partition: str | None = None) -> Any:
            recording.artifacts.setdefault(recording.step, set()).add(name)
            return originals[method](self, name, partition)

        return looked

    walk(settings, ())
    Section.__getattribute__ = read  # type: ignore[method-assign]
    for method in originals:
        setattr(ArtifactStore, method, look(method))
    try:
        yield recording
    finally:
        del Section.__getattribute__
        for method, original in originals.items():
            setattr(ArtifactStore, method, original)
