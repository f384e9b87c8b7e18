"""What is wrong with a day's inventory: for the checks of raw_images, and again for the day's verdict."""

from typing import Any

from pipeline_project.ingest.labels import close_class, close_key, in_few_words
from pipeline_project.settings import Settings
from pipeline_project.stage import CheckOutcome


def inventory_outcomes(listing: dict[str, Any], settings: Settings) -> list[CheckOutcome]:
    """The checks over an inventory's content. A day without images passes: nothing arrived, so nothing is wrong with it."""
    return [_file_format(listing, settings), _labels_schema(listing, settings), _missing_values(listing, settings)]


def _file_format(listing: dict[str, Any], settings: Settings) -> CheckOutcome:
    announced = listing["announced_formats"]
    strange = sorted(key for key, name in announced.items() if name not in settings.ingest.formats)
    rate, limit = len(strange) / max(1, len(announced)), settings.ingest.max_reject_rate
    detail = f"{len(strange)} of {len(announced)} objects are not announced as {', '.join(settings.ingest.formats)} by their first bytes"
    if not announced:
        detail = _nothing_arrived(listing)
    if strange:
        size = next(o["size"] for o in listing["objects"] if o["key"] == strange[0])
        detail += f", the first is {strange[0]} ({announced[strange[0]] or ('no image' if size else '0 bytes')})"
    if rate > limit:
        detail += f"; at most {limit:.1%} may be. Remove them from the source, or extend ingest.formats; then materialize the day again"
    return CheckOutcome("file_format", rate <= limit, f"{detail}.", {"rate": round(rate, 4), "examples": strange[:20]})


def _labels_schema(listing: dict[str, Any], settings: Settings) -> CheckOutcome:
    problems = [f"{p['file']}: {p['detail']}" for p in listing["problems"]]
    if listing["objects"] and not listing["label_files"]:
        columns = f"{settings.data.image_column},{settings.data.label_column}"
        problems.append(f"no {settings.data.labels_file} beside the images of {listing['day']}. Add one with the columns {columns}.")
    outside = listing["outside_domain"]
    limit = settings.ingest.max_reject_rate * max(1, len(listing["labels"]))
    if sum(outside.values()) > limit:
        problems.append(f"labels outside data.classes: {_told_labels(listing, settings)}. Correct the labels, or add the classes.")
    detail = in_few_words(problems)
    if not problems:
        detail = f"{len(listing['labels'])} rows of {len(listing['label_files'])} label files fit the schema."
        if not listing["objects"] and not listing["labels"]:
            detail = f"{_nothing_arrived(listing)}."
    if listing["conflicting"]:
        told = ", ".join(listing["conflicting"][:3])
        detail += f" {len(listing['conflicting'])} images are labelled more than once, differently, and are rejected: {told}."
    return CheckOutcome("labels_schema", not problems, detail, {"outside_domain": outside, "conflicting": listing["conflicting"][:20]})


def _told_labels(listing: dict[str, Any], settings: Settings) -> str:
    """Each unknown label: how often, where first, and the class that was probably meant."""
    first: dict[str, str] = {}
    for row in listing["labels"]:
        first.setdefault(row["label"], row["image"])
    told = []
    for label, count in list(listing["outside_domain"].items())[:10]:
        meant = close_class(label, settings.data.classes)
        told.append(f"{label!r} ({count}, first {first[label]}{f'; did you mean {meant!r}?' if meant else ''})")
    return ", ".join(told)


def _missing_values(listing: dict[str, Any], settings: Settings) -> CheckOutcome:
    objects, unlabelled, orphans = listing["objects"], listing["unlabelled"], listing["without_image"]
    rate = max(len(unlabelled) / max(1, len(objects)), len(orphans) / max(1, len(listing["labels"])))
    limit = settings.ingest.max_missing_label_rate
    detail = f"{len(unlabelled)} of {len(objects)} images lack a label{_first(unlabelled)}; "
    detail += f"{len(orphans)} label rows name no image{_first(orphans)}"
    if not objects and not orphans:
        detail = _nothing_arrived(listing)
    near = next(((orphan, found) for orphan in orphans[:100] if (found := close_key(orphan, unlabelled))), None)
    if near is not None:
        orphan, (key, difference) = near
        detail += f". '{orphan}' in the label file is probably the object '{key}': {difference}"
    if objects and not listing["labels"]:
        detail = f"no label of {len(objects)} images could be read; labels_schema says why"
    elif rate > limit:
        detail += f"; at most {limit:.1%} may. Complete {settings.data.labels_file} or the images, then materialize the day again"
    return CheckOutcome(
        "missing_values",
        rate <= limit,
        f"{detail}.",
        {"unlabelled": unlabelled[:20], "without_image": orphans[:20], "rate": round(rate, 4)},
    )


def _first(keys: list[str]) -> str:
    return f" (first {keys[0]})" if keys else ""


def _nothing_arrived(listing: dict[str, Any]) -> str:
    return f"no images arrived on {listing['day']}; the day is left out of training"
