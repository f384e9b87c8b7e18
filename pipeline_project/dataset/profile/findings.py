"""What of the profile deserves a look, in words: the page's first lines and the asset's verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline_project.ingest.privacy import personal_data_outcome
from pipeline_project.settings import Settings

MAX_MISSING = 0.05
MAX_IMBALANCE = 5.0
MAX_NEAR_DUPLICATES = 0.1
MAX_ISOLATED = 0.01
FEW = 20


@dataclass(frozen=True)
class Finding:
    """One thing to look at. `section` names the part of the page that shows it."""

    section: str
    text: str


def find(profile: Mapping[str, Any], personal: Mapping[str, Mapping[str, Any]], settings: Settings) -> list[Finding]:
    """Everything in a profile that deserves a look, the weightiest first."""
    return [
        *_noise(profile),
        *_classes(profile, settings.data.classes),
        *_rejected(profile, settings.ingest.max_reject_rate),
        *_missing(profile),
        *_personal(personal, settings),
        *_duplicates(profile),
        *_outliers(profile),
        *[Finding("days", f"{day} is not in this profile: {why}.") for day, why in profile["left_out_days"].items()],
    ]


def verdict(profile: Mapping[str, Any], findings: Sequence[Finding]) -> str:
    """One line: how much there is, and whether to look further."""
    days, classes = len(profile["by_day_and_label"]), len(profile["labels"])
    counted = f"{profile['images']:,} images of {days} {'day' if days == 1 else 'days'} in {classes} classes"
    if not findings:
        return f"{counted}. Nothing stands out."
    return f"{counted}. {len(findings)} {'thing' if len(findings) == 1 else 'things'} to look at."


def _noise(profile: Mapping[str, Any]) -> list[Finding]:
    groups = profile["near_duplicates"]["label_noise_groups"]
    if not groups:
        return []
    told = "1 group of nearly equal images carries" if groups == 1 else f"{groups} groups of nearly equal images carry"
    return [Finding("labels", f"{told} different labels: at least one label of each is probably wrong.")]


def _classes(profile: Mapping[str, Any], classes: Sequence[str]) -> list[Finding]:
    counts = {name: profile["labels"].get(name, 0) for name in classes}
    found = []
    absent = [name for name, count in counts.items() if not count]
    if absent:
        found.append(Finding("balance", f"No image of {', '.join(absent)}: training needs some of every class."))
    present = {name: count for name, count in counts.items() if count}
    few = [f"{name} ({count})" for name, count in present.items() if count < FEW]
    if few:
        found.append(Finding("balance", f"Fewer than {FEW} images: {', '.join(few)}. Splits and accuracies of these mean little."))
    if present:
        largest, smallest = max(present, key=lambda name: present[name]), min(present, key=lambda name: present[name])
        ratio = present[largest] / present[smallest]
        if ratio > MAX_IMBALANCE:
            found.append(Finding("balance", f"{largest} has {ratio:.0f} times as many images as {smallest}."))
    return found


def _rejected(profile: Mapping[str, Any], limit: float) -> list[Finding]:
    over = []
    for day, codes in profile["rejected_by_day"].items():
        bad = sum(count for code, count in codes.items() if code not in ("duplicate", "erased"))
        accepted = sum(profile["by_day_and_label"].get(day, {}).values())
        if bad > limit * (bad + accepted):
            over.append(f"{day} ({bad} of {bad + accepted})")
    if not over:
        return []
    told = ", ".join(over[:3]) + (f" and {len(over) - 3} more days" if len(over) > 3 else "")
    return [Finding("rejected", f"More than {limit:.0%} of the images were rejected on {told}.")]


def _missing(profile: Mapping[str, Any]) -> list[Finding]:
    shares = {name: column["missing"] / profile["images"] for name, column in profile["attributes"].items()}
    return [
        Finding("attributes", f"{share:.0%} of the images have no {name}: slices over it leave them out.")
        for name, share in shares.items()
        if share > MAX_MISSING
    ]


def _personal(personal: Mapping[str, Mapping[str, Any]], settings: Settings) -> list[Finding]:
    failed = {day: outcome for day, report in personal.items() if not (outcome := personal_data_outcome(report, settings)).passed}
    if not failed:
        return []
    day = max(failed)
    return [Finding("personal", f"Personal data on {len(failed)} of {len(personal)} days. The last, {day}: {failed[day].detail}")]


def _duplicates(profile: Mapping[str, Any]) -> list[Finding]:
    share = profile["near_duplicates"]["images"] / profile["images"]
    if share <= MAX_NEAR_DUPLICATES:
        return []
    return [Finding("labels", f"{share:.0%} of the images have a near duplicate: there is less to learn from than the count says.")]


def _outliers(profile: Mapping[str, Any]) -> list[Finding]:
    count = profile["outliers"]["isolated"]
    if count <= MAX_ISOLATED * profile["images"]:
        return []
    told = "1 image" if count == 1 else f"{count} images"
    return [
        Finding("outliers", f"{told} ({count / profile['images']:.1%}) {'is' if count == 1 else 'are'} unlike the rest by measurements.")
    ]
