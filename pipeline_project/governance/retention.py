"""What `pipeline gc` removes: versions, step outputs and caches that nothing live needs. Planned here, removed by `removal`.

Age is judged so that a run at work is never robbed: a version stays while it is the newest of its asset and for `retention.days` after it
was replaced, with all that it names. Less than one day is never used, whatever the settings say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pipeline_project.governance.liveness import REMOVABLE, Liveness, LivenessReader
from pipeline_project.governance.stored import CACHES, RetentionError, Snapshot, Version, refuse
from pipeline_project.reuse import MADE
from pipeline_project.stage import StageContext

__all__ = ["Piece", "RemovalPlan", "RetentionError", "Why", "plan_removal", "why_kept"]

Kind = Literal["reuse records", "heads of caches", "step outputs", "unfinished writes", "local cache", "tuning studies"]
MIN_AGE = timedelta(days=1)
_STEPS = "artifacts/steps/"


@dataclass(frozen=True)
class Piece:
    """Something to remove that is no version: a key of the store, or a file of the runtime home. `size` in bytes."""

    kind: Kind
    place: str
    size: int


@dataclass(frozen=True)
class RemovalPlan:
    """What may go, as it was at `made`. Nothing that was in use after `horizon` is in it.

    `kept_runs`: ids of the Dagster runs that made what is kept.
    """

    made: datetime
    horizon: datetime
    remove: tuple[Version, ...]
    keep: tuple[Version, ...]
    pieces: tuple[Piece, ...]
    kept_runs: frozenset[str]

    @property
    def size(self) -> int:
        """Bytes that it frees."""
        return sum(version.size for version in self.remove) + sum(piece.size for piece in self.pieces)

    def rows(self) -> list[dict[str, str | int]]:
        """A table for people: a row for each asset, then for each kind of other things; the last is the total. Sizes in bytes."""
        rows: list[dict[str, str | int]] = []
        names = sorted({version.name for version in (*self.keep, *self.remove)})
        for name in names:
            kept, gone = ([v for v in versions if v.name == name] for versions in (self.keep, self.remove))
            rows.append(_row(name, len(kept), sum(v.size for v in kept), len(gone), sum(v.size for v in gone)))
        for kind in sorted({piece.kind for piece in self.pieces}):
            pieces = [piece for piece in self.pieces if piece.kind == kind]
            rows.append(_row(kind, 0, 0, len(pieces), sum(piece.size for piece in pieces)))
        kept_bytes = sum(version.size for version in self.keep)
        return [*rows, _row("total", len(self.keep), kept_bytes, len(self.remove) + len(self.pieces), self.size)]


@dataclass(frozen=True)
class Why:
    """Why a version stays: `chain` leads from a root to it, each item needs the next. Empty when it would be removed."""

    version: Version
    reasons: tuple[str, ...]
    chain: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether it stays."""
        return bool(self.chain)


def plan_removal(context: StageContext, now: datetime | None = None) -> RemovalPlan:
    """What may be removed; removes nothing.

    Args:
        now: the time to judge ages by; default: the present.

    Raises:
        RetentionError: a head, a record, a document or something live is damaged.
        StoreError: the store cannot be read.
    """
    now = now or datetime.now(UTC)
    horizon = horizon_of(context, now)
    snapshot, live = LivenessReader(context, horizon).read()
    remove = removable(snapshot, live)
    gone = {version.prefix for version in remove}
    keep = tuple(sorted((v for v in snapshot.versions.values() if v.prefix not in gone), key=lambda v: v.prefix))
    pieces = (*_store_pieces(context, snapshot, gone, horizon, now), *_local_pieces(context, keep, horizon, now))
    runs = frozenset(v.artifact.run for v in keep if v.artifact and v.artifact.run)
    return RemovalPlan(now, horizon, remove, keep, pieces, runs)


def why_kept(context: StageContext, digest: str, now: datetime | None = None) -> list[Why]:
    """Why each version whose digest begins so (at least 6 digits) is kept.

    Raises:
        ValueError: the digest is too short, or nothing in the store has it.
        RetentionError, StoreError: as `plan_removal`.
    """
    if len(digest) < 6:
        raise ValueError(f"{digest!r}: give at least 6 digits of the digest.")
    snapshot, live = LivenessReader(context, horizon_of(context, now or datetime.now(UTC))).read()
    found = [v for v in snapshot.versions.values() if (v.digest or v.prefix.split("/")[-2]).startswith(digest)]
    if not found:
        raise ValueError(f"No version in {context.artifacts.bytes.uri} has a digest that begins with {digest}.")
    return [_why(snapshot, live, version) for version in sorted(found, key=lambda v: v.prefix)]


def horizon_of(context: StageContext, now: datetime) -> datetime:
    """What was in use at this time or later stays."""
    return now - max(timedelta(days=context.settings.retention.days), MIN_AGE)


def removable(snapshot: Snapshot, live: Liveness) -> tuple[Version, ...]:
    """The versions that nothing needs, users before what they use."""
    found = [v for v in snapshot.versions.values() if v.prefix not in live]
    return tuple(sorted(found, key=lambda v: (REMOVABLE.index(v.name) if v.name in REMOVABLE else -1, v.prefix)))


def _why(snapshot: Snapshot, live: Liveness, version: Version) -> Why:
    chain, prefix = [str(version)], version.prefix
    while prefix in live.needed_by:
        prefix = live.needed_by[prefix]
        chain.append(str(snapshot.versions[prefix]))
    roots = live.reasons.get(prefix, [])
    return Why(version, tuple(live.reasons.get(version.prefix, [])), (roots[0], *reversed(chain)) if roots else ())


def _store_pieces(context: StageContext, snapshot: Snapshot, gone: set[str], horizon: datetime, now: datetime) -> list[Piece]:
    pieces = []
    for entry in snapshot.keys:
        if entry.key.startswith(_STEPS) and entry.modified < horizon:
            pieces.append(Piece("step outputs", entry.key, entry.size))
        elif _is_idle_head(snapshot, gone, entry.key) and entry.modified < horizon:
            pieces.append(Piece("heads of caches", entry.key, entry.size))
        elif entry.key.startswith(f"{MADE}/") and _is_stale(context, snapshot, gone, entry.key, fresh=entry.modified >= horizon):
            pieces.append(Piece("reuse records", entry.key, entry.size))
    drafts = (entry for entry in context.artifacts.bytes.drafts() if entry.modified < now - MIN_AGE)
    return pieces + [Piece("unfinished writes", entry.key, entry.size) for entry in drafts]


def _is_idle_head(snapshot: Snapshot, gone: set[str], key: str) -> bool:
    """Whether a key is the head of a cache that points to what goes, or is gone."""
    parts = key.split("/")
    if len(parts) != 4 or parts[1] not in CACHES or parts[3] != "head.json":
        return False
    prefix = snapshot.heads.get((parts[1], parts[2]), "")
    return prefix in gone or prefix not in snapshot.versions


def _is_stale(context: StageContext, snapshot: Snapshot, gone: set[str], key: str, *, fresh: bool) -> bool:
    """Whether a reuse record names a version that goes, or is gone."""
    parts = key.split("/")
    if len(parts) != 5:
        return False
    _, _, name, partition, file = parts
    if file == "newest.json":
        return (name, partition) not in snapshot.heads and not fresh
    try:
        digest = str(context.artifacts.bytes.read_json(key)["digest"])
    except (ValueError, KeyError, TypeError):
        return not fresh  # damaged: the step that it is about computes anew
    except FileNotFoundError:
        return False
    prefixes = {v.prefix for v in snapshot.versions.values() if (v.name, v.partition, v.digest) == (name, partition, digest)}
    return bool(prefixes) and prefixes <= gone if prefixes else not fresh


def _local_pieces(context: StageContext, keep: tuple[Version, ...], horizon: datetime, now: datetime) -> list[Piece]:
    """Files of this machine's runtime home: what was read from a store on S3 long ago, and trials of studies that nothing names."""
    home = context.settings.home
    pieces = []
    for path, size, modified in _files(home / "cache"):
        if modified < (now - MIN_AGE if path.name.startswith(".draft-") else horizon):
            pieces.append(Piece("local cache", str(path), size))
    named = _studies(keep)
    for path, size, modified in _files(home / "studies"):
        if modified < horizon and path.suffix == ".journal" and path.stem not in named:
            pieces.append(Piece("tuning studies", str(path), size))
    return pieces


def _studies(keep: tuple[Version, ...]) -> set[str]:
    """The names of the studies of the hyperparameters that stay."""
    names = set()
    for version in keep:
        if version.name == "tuned_hyperparameters" and version.whole and version.artifact and "study.json" in version.artifact.files:
            try:
                names.add(str(version.artifact.json("study.json")["name"]))
            except (ValueError, KeyError, TypeError) as error:
                refuse(f"{version} cannot be read: {error}", "Materialize tuned_hyperparameters again, or restore it")
    return names


def _files(folder: Path) -> list[tuple[Path, int, datetime]]:
    """{file, bytes, modified} below a folder; of what is deleted meanwhile nothing."""
    found = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            found.append((path, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC)))
    return found


def _row(what: str, kept: int, kept_bytes: int, removed: int, removed_bytes: int) -> dict[str, str | int]:
    return {"what": what, "kept": kept, "kept_bytes": kept_bytes, "removed": removed, "removed_bytes": removed_bytes}


def as_record(version: Version) -> Mapping[str, Any]:
    """A removed version as the list of a removal keeps it."""
    artifact = version.artifact
    facts = {"created": artifact.created, "run": artifact.run} if artifact else {"created": None, "run": None}
    return {"asset": version.name, "partition": version.partition, "digest": version.digest, "folder": version.prefix, **facts} | {
        "bytes": version.size
    }
