"""The dataset versions that the store holds: `pipeline data list`, and finding one by the beginning of its digest (R47)."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from pipeline_project.contracts import SPLITS, Digest, Record, Split
from pipeline_project.dataset.reading import load_version
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact, ArtifactStore
from pipeline_project.storage.artifacts import ZONES
from pipeline_project.tables import parquet_to_frame

NEWEST = "newest"
_SHORT = 12


class VersionEntry(Record):
    """One dataset version. `made`: UTC; `run`: the Dagster run that made it; `models`: the trained models that learned from it."""

    digest: Digest
    newest: bool
    made: str
    run: str | None
    days: list[str]
    images: dict[Split, int]
    left_out_images: int
    parent: Digest | None
    models: list[Digest]


def list_versions(context: StageContext) -> list[VersionEntry]:
    """Every stored version, the newest first. Raises `ValueError` where a record was changed by another hand."""
    artifacts = context.artifacts
    newest = artifacts.find("dataset_splits")
    models: dict[str, list[str]] = defaultdict(list)
    for model in stored_versions(artifacts, "trained_model"):
        models[str(model.info.get("dataset"))].append(model.digest)
    found = []
    for artifact in reversed(_in_order(artifacts)):
        version = load_version(artifact)
        found.append(
            VersionEntry(
                digest=artifact.digest,
                newest=newest is not None and newest.digest == artifact.digest,
                made=artifact.created,
                run=artifact.run,
                days=list(version.days),
                images={split: sum(version.counts[split].values()) for split in SPLITS},
                left_out_images=len(version.left_out_images),
                parent=version.parent,
                models=models[artifact.digest],
            )
        )
    return found


def render_versions(entries: Sequence[VersionEntry]) -> str:
    """The list for a terminal."""
    if not entries:
        return "There is no dataset version yet. Materialize dataset_splits first.\n"
    rows = [("version", "made (UTC)", "run", "days", *SPLITS, "parent", "models")]
    for e in entries:
        days = f"{len(e.days)}: {e.days[0]} to {e.days[-1]}" if len(e.days) > 1 else "".join(e.days)
        models = ", ".join(model[:_SHORT] for model in e.models) or "-"
        mark = " *" if e.newest else ""
        counts = [f"{e.images[split]:,}" for split in SPLITS]
        rows.append(
            (e.digest[:_SHORT] + mark, e.made[:19].replace("T", " "), (e.run or "-")[:8], days, *counts, (e.parent or "-")[:_SHORT], models)
        )
    return aligned(rows) + "* the newest; the beginning of a digest names a version, as does the word newest.\n"


def find_version(context: StageContext, name: str) -> Artifact:
    """The dataset version that a digest, the beginning of one (4 digits or more), or the word `newest` names.

    Raises:
        ValueError: none or several.
        ArtifactMissingError: there is no version at all.
    """
    if name == NEWEST:
        return context.artifacts.latest("dataset_splits")
    found = [a for a in _in_order(context.artifacts) if len(name) >= 4 and a.digest.startswith(name.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(f"No dataset version begins with {name!r}. `pipeline data list` shows all of them.")
    raise ValueError(f"{name!r} is the beginning of {', '.join(a.digest[:24] for a in found)}. Give more digits.")


def versions_with(context: StageContext, image_ids: Collection[str]) -> list[VersionEntry]:
    """The versions that hold any of these images, the newest first."""
    wanted = set(image_ids)
    return [
        entry
        for entry in list_versions(context)
        if wanted & set(parquet_to_frame(context.artifacts.version("dataset_splits", entry.digest).read("splits.parquet"))["image_id"])
    ]


def stored_versions(artifacts: ArtifactStore, name: str) -> list[Artifact]:
    """Every stored version of an asset without partitions, oldest first."""
    prefix = f"{ZONES.get(name, 'artifacts')}/{name}/all/"
    keys = [key for key in artifacts.bytes.list(prefix) if key.endswith("/artifact.json")]
    return sorted((artifacts.version(name, key.split("/")[-2]) for key in keys), key=lambda a: (a.created, a.digest))


def aligned(rows: Sequence[Sequence[Any]]) -> str:
    """Rows of cells as lines of aligned columns; the first row is the head."""
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    return "".join("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows)


def _in_order(artifacts: ArtifactStore) -> list[Artifact]:
    """Oldest first; of two that were made in one second the parent comes first."""
    found = {artifact.digest: artifact for artifact in stored_versions(artifacts, "dataset_splits")}
    parents = {digest: load_version(artifact).parent for digest, artifact in found.items()}

    def depth(digest: str) -> int:
        count, seen = 0, {digest}
        while (parent := parents.get(digest)) in found and parent not in seen:
            digest, count = str(parent), count + 1
            seen.add(digest)
        return count

    return sorted(found.values(), key=lambda a: (a.created, depth(a.digest), a.digest))
