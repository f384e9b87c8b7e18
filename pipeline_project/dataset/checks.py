"""Checks of the dataset version."""

from pipeline_project.contracts import SPLITS
from pipeline_project.dataset.reading import load_version
from pipeline_project.stage import CheckOutcome, StageContext, Table
from pipeline_project.tables import parquet_to_frame


def check_splits(context: StageContext) -> list[CheckOutcome]:
    """ratios, no_leakage, every_class and stability of the newest dataset version."""
    dataset = context.artifacts.latest("dataset_splits")
    version, rows = load_version(dataset), parquet_to_frame(dataset.read("splits.parquet"))
    wanted: dict[str, float] = {split: getattr(context.settings.dataset, split) for split in SPLITS}
    shares: dict[str, float] = {split: round(float((rows["split"] == split).mean()), 4) for split in SPLITS}
    # The rule places whole groups, class by class: each class may be off by its largest group.
    tolerance = version.largest_group * len(version.classes) / len(rows)
    off = {split: abs(shares[split] - wanted[split]) for split in SPLITS}
    straddling = rows.groupby("group")["split"].nunique()
    leaks = straddling[straddling > 1].index.tolist()
    doubles = int(rows["image_id"].duplicated().sum())
    absent = [f"{name} in {split}" for split in SPLITS for name, count in version.counts[split].items() if count == 0]
    return [
        CheckOutcome(
            "ratios",
            max(off.values()) <= tolerance,
            f"shares {shares} for {wanted}; the tolerance is one group of duplicates a class ({tolerance:.2%}).",
            {"shares": shares},
        ),
        CheckOutcome(
            "no_leakage",
            not leaks and not doubles,
            f"{len(leaks)} groups of duplicates lie in two splits, {doubles} images occur twice.",
            {"groups": leaks[:20]},
        ),
        CheckOutcome(
            "every_class",
            not absent,
            f"absent: {', '.join(absent)}. Add images of these classes." if absent else "every class is in every split.",
            {"counts": Table([{"class": c, **{s: version.counts[s][c] for s in SPLITS}} for c in version.classes])},
        ),
        _stability(context, version.parent, dict(zip(rows["image_id"], rows["split"], strict=True))),
    ]


def _stability(context: StageContext, parent: str | None, splits: dict[str, str]) -> CheckOutcome:
    if parent is None:
        return CheckOutcome("stability", True, "This is the first version.")
    before = parquet_to_frame(context.artifacts.version("dataset_splits", parent).read("splits.parquet"))
    moved = [i for i, split in zip(before["image_id"], before["split"], strict=True) if splits.get(i, split) != split]
    gone = sum(image_id not in splits for image_id in before["image_id"])
    return CheckOutcome("stability", not moved, f"{len(moved)} images moved between splits, {gone} left.", {"moved": moved[:20]})
