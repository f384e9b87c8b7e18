"""What every stage step is given and gives back, so that the asset layer, a bare script and tests call them alike.

A step is a plain function `(StageContext, ...) -> StepResult`: it reads its inputs from the artefact store by name, computes, publishes
one artefact and describes it. A check is a plain function `(StageContext, ...) -> list[CheckOutcome]` over published artefacts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline_project.settings import Settings
from pipeline_project.storage import Artifact, ArtifactStore, open_artifacts


@dataclass(frozen=True)
class StageContext:
    """Settings, the store, where progress lines go, and whether results made before are to be made anew."""

    settings: Settings
    artifacts: ArtifactStore
    log: Callable[[str], None]
    recompute: bool = False

    @classmethod
    def open(
        cls, settings: Settings, log: Callable[[str], None] = lambda _: None, *, run: str | None = None, recompute: bool = False
    ) -> "StageContext":
        """A context on the store that the settings name. `run` is kept with what is published; `recompute` switches reuse off."""
        return cls(settings, open_artifacts(settings, run), log, recompute)


@dataclass(frozen=True)
class Table:
    """Rows for people, all with the same keys."""

    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Picture:
    """An encoded picture, at most about 100 kB: it is kept in the event log."""

    data: bytes
    media_type: str = "image/png"


@dataclass(frozen=True)
class Markdown:
    """Text with Markdown marks."""

    text: str


MetadataValue = str | int | float | bool | Sequence[Any] | Mapping[str, Any] | Table | Picture | Markdown
Metadata = Mapping[str, MetadataValue]


@dataclass(frozen=True)
class StepResult:
    """The artefact that a step published, and what is worth looking at."""

    artifact: Artifact
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class CheckOutcome:
    """One check's verdict. `detail` says what was found and what to do; `metadata` holds the numbers."""

    name: str
    passed: bool
    detail: str
    metadata: Metadata = field(default_factory=dict)
