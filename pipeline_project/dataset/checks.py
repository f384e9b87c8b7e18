"""Checks of the dataset version."""

from typing import TYPE_CHECKING

from pipeline_project.contracts import SPLITS, DatasetVersion
from pipeline_project.dataset.reading import load_version
from pipeline_project.ingest.erasure import erased
from pipeline_project.stage import CheckOutcome, StageContext, Table
from pipeline_project.storage import ArtifactMissingError
from pipeline_project.tables import parquet_to_frame

if TYPE_CHECKING:
    import pandas as pd

_AGAIN = "Materialize dataset_splits again; if it stays, its parquet file was changed by another hand: restore the store from its backup."
_SHOWN = 20


def check_splits(context: StageContext) -> list[CheckOutcome]:
    """ratios, no_leakage, every_class and stability of the newest dataset version."""
    dataset = context.artifacts.latest("dataset_splits")
    version, rows = load_version(dataset), parquet_to_frame(dataset.read("splits.parquet"))
    return [_ratios(context, version, rows), _no_leakage(context, rows), _every_class(version), _stability(context, version.parent, rows)]


def _ratios(context: StageContext, version: DatasetVersion, rows: "pd.DataFrame") -> CheckOutcome:
    """The rule places whole groups, class by class, so each class may be off by its largest group; but never by half a split's share,
    which only a group far too large (blank photos, a chain of near duplicates) can do."""
    wanted: dict[str, float] = {split: getattr(context.settings.dataset, split) for split in SPLITS}
    shares: dict[str, float] = {split: round(float((rows["split"] == split).mean()), 4) for split in SPLITS}
    one_a_class = len(version.classes) / len(rows)
    tolerance = max(one_a_class, min(version.largest_group * one_a_class, min(wanted.values()) / 2))
    passed = max(abs(shares[split] - wanted[split]) for split in SPLITS) <= tolerance
    largest = _largest_groups(version, rows)
    name = (
        f" The largest group of near duplicates is {str(largest[0]['group'])[:12]} with {largest[0]['images']} images." if largest else ""
    )
    remedy = (
        f"{name} If a large group is to blame, remove its needless copies from the source (data_profile shows them) or lower "
        "dataset.near_duplicate_distance; if dataset.train, validation or test was changed, images do not move: the shares come close "
        "as new days arrive."
    )
    detail = f"shares {shares} for {wanted}; the tolerance is one group of duplicates a class ({tolerance:.2%})."
    return CheckOutcome("ratios", passed, detail if passed else detail + remedy, {"shares": shares, "largest_groups": Table(largest)})


def _largest_groups(version: DatasetVersion, rows: "pd.DataFrame") -> list[dict[str, str | int]]:
    sizes = rows["group"].value_counts()
    found: list[dict[str, str | int]] = []
    for group in sorted(sizes[sizes > 1].index, key=lambda g: (-sizes[g], g))[:10]:
        members = rows[rows["group"] == group]
        labels = ", ".join(version.classes[int(c)] for c in sorted(members["class_index"].unique()))
        found.append({"group": group, "images": len(members), "split": str(members["split"].iloc[0]), "classes": labels})
    return found


def _no_leakage(context: StageContext, rows: "pd.DataFrame") -> CheckOutcome:
    straddling = rows.groupby("group")["split"].nunique()
    leaks = straddling[straddling > 1].index.tolist()
    doubles = int(rows["image_id"].duplicated().sum())
    back = sorted(set(rows["image_id"]) & erased(context.artifacts.bytes))
    detail = f"{len(leaks)} groups of duplicates lie in two splits, {doubles} images occur twice."
    detail += f" {_AGAIN}" if leaks or doubles else ""
    detail += f" {len(back)} images were erased since: materialize dataset_splits again, then train anew." if back else ""
    found = {"groups": leaks[:_SHOWN], "erased_since": back[:_SHOWN]}
    return CheckOutcome("no_leakage", not leaks and not doubles, detail, found)


def _every_class(version: DatasetVersion) -> CheckOutcome:
    absent = [f"{name} in {split}" for split in SPLITS for name, count in version.counts[split].items() if count == 0]
    remedy = "Add images of these classes that are no near duplicates of those there, or take them out of data.classes."
    return CheckOutcome(
        "every_class",
        not absent,
        f"absent: {', '.join(absent)}. {remedy}" if absent else "every class is in every split.",
        {"counts": Table([{"class": c, **{s: version.counts[s][c] for s in SPLITS}} for c in version.classes])},
    )


def _stability(context: StageContext, parent: str | None, rows: "pd.DataFrame") -> CheckOutcome:
    if parent is None:
        return CheckOutcome("stability", True, "This is the first version.")
    try:
        before = parquet_to_frame(context.artifacts.version("dataset_splits", parent).read("splits.parquet"))
    except ArtifactMissingError:
        return CheckOutcome("stability", True, f"The version before ({parent[:12]}) was removed by `pipeline gc`: nothing to compare with.")
    joined = before.merge(rows, on="image_id", how="left", suffixes=("_before", ""))
    gone = joined["split"].isna()
    moved = joined.loc[~gone & (joined["split"] != joined["split_before"]), "image_id"].tolist()
    detail = f"{len(moved)} images moved between splits, {int(gone.sum())} left."
    remedy = f" Models trained on {parent[:12]} must not be judged on this version: they may have learned its test images. {_AGAIN}"
    return CheckOutcome("stability", not moved, detail + (remedy if moved else ""), {"moved": moved[:_SHOWN]})
