"""What differs between two dataset versions: `pipeline data diff A B` (R47)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline_project.contracts import SPLITS, DatasetVersion, Digest, Record
from pipeline_project.dataset.history import aligned, find_version
from pipeline_project.dataset.reading import load_version
from pipeline_project.ingest.erasure import erased
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact, ArtifactMissingError
from pipeline_project.tables import parquet_to_frame

if TYPE_CHECKING:
    import pandas as pd

_EXAMPLES = 10


class ClassChange(Record):
    """One class in one split: images before and after, and how many came and went (another label or split included)."""

    label: str
    split: str
    before: int
    after: int
    added: int
    removed: int


class Example(Record):
    """One image that differs. `before` and `after` are "class in split", None where the version does not hold it.

    `key` is its object in the source, None where that day's manifest is gone. `why`: of one that is gone.
    """

    image_id: Digest
    key: str | None
    day: str
    before: str | None
    after: str | None
    why: str | None = None


class DatasetDiff(Record):
    """Everything that differs from `before` to `after`. `days_changed`: in both, with another manifest.

    `counts`: images added, removed, moved (to another split), relabelled. `removed_because`: counts by reason. `examples`: the first
    of each kind, by image id.
    """

    version: int = 1
    before: Digest
    after: Digest
    days_added: list[str]
    days_removed: list[str]
    days_changed: list[str]
    counts: dict[str, int]
    removed_because: dict[str, int]
    by_class_and_split: list[ClassChange]
    examples: dict[str, list[Example]]

    @property
    def equal(self) -> bool:
        """Whether both hold the same images, labels and splits."""
        return not any(self.counts.values())


def diff_versions(context: StageContext, before: str, after: str) -> DatasetDiff:
    """Compare two versions, each named as `find_version` takes it.

    Raises:
        ValueError: a name fits none or several.
    """
    import pandas as pd

    artifacts = find_version(context, before), find_version(context, after)
    old, new = load_version(artifacts[0]), load_version(artifacts[1])
    both = pd.merge(_table(artifacts[0], old), _table(artifacts[1], new), on="image_id", how="outer", suffixes=("_before", "_after"))
    both = both.sort_values("image_id", ignore_index=True)
    here, there = both["label_before"].notna(), both["label_after"].notna()
    kinds = {
        "added": ~here & there,
        "removed": here & ~there,
        "moved": here & there & (both["split_before"] != both["split_after"]),
        "relabelled": here & there & (both["label_before"] != both["label_after"]),
    }
    why = _why_gone(both[kinds["removed"]], new, erased(context.artifacts.bytes))
    removed_because: dict[str, int] = {}
    for reason in why.values():
        removed_because[reason] = removed_because.get(reason, 0) + 1
    return DatasetDiff(
        before=artifacts[0].digest,
        after=artifacts[1].digest,
        days_added=sorted(new.days.keys() - old.days.keys()),
        days_removed=sorted(old.days.keys() - new.days.keys()),
        days_changed=sorted(day for day in old.days.keys() & new.days.keys() if old.days[day] != new.days[day]),
        counts={kind: int(chosen.sum()) for kind, chosen in kinds.items()},
        removed_because=dict(sorted(removed_because.items())),
        by_class_and_split=_by_class_and_split(both, [*new.classes, *(c for c in old.classes if c not in new.classes)]),
        examples={kind: _examples(context, both[chosen].head(_EXAMPLES), old, new, why) for kind, chosen in kinds.items()},
    )


def render_diff(diff: DatasetDiff) -> str:
    """The difference for a terminal."""
    told = ", ".join(f"{count:,} {kind}" for kind, count in diff.counts.items())
    text = [f"{diff.before[:12]} to {diff.after[:12]}: {'the same images, labels and splits' if diff.equal else f'images {told}'}\n"]
    for name, days in (("added", diff.days_added), ("removed", diff.days_removed), ("changed", diff.days_changed)):
        if days:
            text.append(f"days {name}: {', '.join(days)}\n")
    if diff.removed_because:
        text.append(f"removed because: {'; '.join(f'{count:,} {reason}' for reason, count in diff.removed_because.items())}\n")
    changed = [c for c in diff.by_class_and_split if (c.before, c.added, c.removed) != (c.after, 0, 0)]
    if changed:
        rows = [(c.label, c.split, f"{c.before:,}", f"{c.after:,}", f"+{c.added:,}", f"-{c.removed:,}") for c in changed]
        text += ["\n", aligned([("class", "split", "before", "after", "in", "out"), *rows])]
    for kind, examples in diff.examples.items():
        if examples:
            told_of = [
                (e.image_id[:12], e.day, e.key or "(its manifest is gone)", f"{e.before or 'absent'} -> {e.after or e.why}")
                for e in examples
            ]
            more = diff.counts[kind] - len(examples)
            text += [f"\n{kind}{f' (the first {len(examples)}, {more:,} more)' if more else ''}\n"]
            text += [aligned([("image", "day", "key", "change"), *told_of])]
    return "".join(text)


def _table(artifact: Artifact, version: DatasetVersion) -> "pd.DataFrame":
    rows = parquet_to_frame(artifact.read("splits.parquet"))
    return rows.assign(label=rows["class_index"].map(dict(enumerate(version.classes))))[["image_id", "day", "pack_row", "label", "split"]]


def _why_gone(removed: "pd.DataFrame", new: DatasetVersion, tombstones: frozenset[str]) -> dict[str, str]:
    why = {}
    for image_id, day in zip(removed["image_id"], removed["day_before"], strict=True):
        if image_id in tombstones:
            why[image_id] = "erased"
        elif image_id in new.left_out_images:
            why[image_id] = f"left out: {new.left_out_images[image_id]}"
        else:
            why[image_id] = "no longer accepted on its day" if str(day) in new.days else "its day was left out"
    return why


def _by_class_and_split(both: "pd.DataFrame", classes: Sequence[str]) -> list[ClassChange]:
    keys = {side: list(zip(both[f"label_{side}"], both[f"split_{side}"], strict=True)) for side in ("before", "after")}
    tally: dict[tuple[str, str], list[int]] = {(label, split): [0, 0, 0, 0] for label in classes for split in SPLITS}
    for old, new in zip(keys["before"], keys["after"], strict=True):
        for place, key in ((0, old), (1, new)):
            if key in tally:
                tally[key][place] += 1
        if old != new:
            if new in tally:
                tally[new][2] += 1
            if old in tally:
                tally[old][3] += 1
    return [
        ClassChange(label=label, split=split, before=before, after=after, added=added, removed=removed)
        for (label, split), (before, after, added, removed) in tally.items()
    ]


def _examples(
    context: StageContext, chosen: "pd.DataFrame", old: DatasetVersion, new: DatasetVersion, why: Mapping[str, str]
) -> list[Example]:
    found = []
    for row in chosen.to_dict("records"):
        there = isinstance(row["label_after"], str)
        side, version = ("after", new) if there else ("before", old)
        day = str(row[f"day_{side}"])
        found.append(
            Example(
                image_id=row["image_id"],
                key=_key(context, version, day, int(row[f"pack_row_{side}"])),
                day=day,
                before=f"{row['label_before']} in {row['split_before']}" if isinstance(row["label_before"], str) else None,
                after=f"{row['label_after']} in {row['split_after']}" if there else None,
                why=why.get(row["image_id"]),
            )
        )
    return found


def _key(context: StageContext, version: DatasetVersion, day: str, row: int) -> str | None:
    try:
        manifest = context.artifacts.version("validated_manifest", version.days[day], day)
        return str(parquet_to_frame(manifest.read("manifest.parquet"))["key"].iloc[row])
    except (ArtifactMissingError, FileNotFoundError):
        return None
