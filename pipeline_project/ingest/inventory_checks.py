"""What is wrong with a day's inventory: for the checks of raw_images, and again for the day's verdict."""

from typing import Any

from pipeline_project.ingest import inventory_v1
from pipeline_project.ingest.labels import in_few_words
from pipeline_project.settings import Settings
from pipeline_project.stage import CheckOutcome, Table


def inventory_outcomes(listing: dict[str, Any], settings: Settings) -> list[CheckOutcome]:
    """The checks that bar a day, over the content of inventory.json. A day without images passes: nothing is wrong with it."""
    listing = _current(listing)
    return [_file_format(listing, settings), _labels_schema(listing, settings), _missing_values(listing, settings)]


def label_outcomes(listing: dict[str, Any]) -> list[CheckOutcome]:
    """The checks that tell of single rows and images; those are left out or rejected one by one."""
    found = _current(listing)["found"]
    return [_label_case(found), _conflicting_labels(found), _rows_without_image(found), _images_without_row(found)]


def label_file_problems(listing: dict[str, Any]) -> str:
    """What is wrong with the label files themselves, in few words; empty where nothing is."""
    listing = _current(listing)
    return in_few_words([f"{p['file']}: {p['detail']}" for p in listing["problems"]], total=listing["problem_count"])


def _current(listing: dict[str, Any]) -> dict[str, Any]:
    return inventory_v1.summary_of(listing) if inventory_v1.is_v1(listing) else listing


def _file_format(listing: dict[str, Any], settings: Settings) -> CheckOutcome:
    objects = listing["objects"]
    strange = {name: count for name, count in listing["formats"].items() if name not in settings.ingest.formats}
    count, limit = sum(strange.values()), settings.ingest.max_reject_rate
    rate = count / max(1, objects)
    detail = f"{count} of {objects} objects are not announced as {', '.join(settings.ingest.formats)} by their first bytes"
    if not objects:
        detail = _nothing_arrived(listing)
    examples = [{**o, "announced": name or "no image"} for name in strange for o in listing["first_of_format"][name]]
    examples.sort(key=lambda example: str(example["key"]))
    if examples:
        first = examples[0]
        detail += f", the first is {first['key']} ({first['announced'] if first['size'] else '0 bytes'})"
    if rate > limit:
        detail += f"; at most {limit:.1%} may be. Remove them from the source, or extend ingest.formats; then materialize the day again"
    return CheckOutcome("file_format", rate <= limit, f"{detail}.", {"rate": round(rate, 4), "examples": Table(examples[:50])})


def _labels_schema(listing: dict[str, Any], settings: Settings) -> CheckOutcome:
    problems = [f"{p['file']}: {p['detail']}" for p in listing["problems"]]
    more = listing["problem_count"] - len(problems)
    if listing["objects"] and not listing["label_file_count"]:
        columns = f"{settings.data.image_column},{settings.data.label_column}"
        problems.append(f"no {settings.data.labels_file} beside the images of {listing['day']}. Add one with the columns {columns}.")
    outside = listing["found"]["outside_domain"]
    if outside["count"] > settings.ingest.max_reject_rate * max(1, listing["label_rows"]):
        problems.append(f"labels outside data.classes: {_told_labels(outside)}. Correct the labels, or add the classes.")
    detail = in_few_words(problems, total=len(problems) + more)
    if not problems:
        detail = f"{listing['label_rows']} rows of {listing['label_file_count']} label files fit the schema."
        if not listing["objects"] and not listing["label_rows"]:
            detail = f"{_nothing_arrived(listing)}."
    found = {"problems": Table(listing["problems"]), "outside_domain": Table(outside["rows"])}
    return CheckOutcome("labels_schema", not problems, detail, found)


def _told_labels(outside: dict[str, Any]) -> str:
    """Each unknown label: how often, where first, and the class that was probably meant."""
    told = []
    for row in outside["rows"][:10]:
        hint = f"; did you mean {row['meant']!r}?" if row["meant"] else ""
        told.append(f"{row['label']!r} ({row['rows']}, first {row['image']}{hint})")
    more = outside["labels"] - len(told)
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")


def _missing_values(listing: dict[str, Any], settings: Settings) -> CheckOutcome:
    objects, rows = listing["objects"], listing["label_rows"]
    unlabelled, orphans = listing["found"]["unlabelled"], listing["found"]["rows_without_image"]
    rate = max(unlabelled["count"] / max(1, objects), orphans["count"] / max(1, rows))
    limit = settings.ingest.max_missing_label_rate
    detail = f"{unlabelled['count']} of {objects} images lack a label{_first(unlabelled, 'key')}; "
    detail += f"{orphans['count']} label rows name no image{_first(orphans, 'image')}"
    if not objects and not orphans["count"]:
        detail = _nothing_arrived(listing)
    near = next((row for row in orphans["rows"] if row["meant"]), None)
    if near is not None:
        detail += f". '{near['image']}' in the label file is probably the object '{near['meant']}': {near['difference']}"
    if objects and not rows:
        detail = f"no label of {objects} images could be read; labels_schema says why"
    elif rate > limit:
        detail += f"; at most {limit:.1%} may. Complete {settings.data.labels_file} or the images, then materialize the day again"
    shown = {"unlabelled": Table(unlabelled["rows"]), "blank_labels": Table(listing["found"]["missing"]["rows"]), "rate": round(rate, 4)}
    return CheckOutcome("missing_values", rate <= limit, f"{detail}.", shown)


def _label_case(found: dict[str, Any]) -> CheckOutcome:
    variants = found["label_case"]
    told = ", ".join(f"{row['label']!r} for {row['meant']!r} ({row['rows']})" for row in variants["rows"][:5])
    detail = "no label differs from a class in case, blanks or Unicode form only."
    if variants["count"]:
        detail = f"{variants['count']} rows write a class in another way, and their images are rejected: {told}. Write the class's name."
    return CheckOutcome("label_case", not variants["count"], detail, {"rows": variants["count"], "labels": Table(variants["rows"])})


def _conflicting_labels(found: dict[str, Any]) -> CheckOutcome:
    images = found["conflicting_labels"]
    detail = "no image is labelled more than once, differently."
    if images["count"]:
        told = ", ".join(row["image"] for row in images["rows"][:3])
        detail = f"{images['count']} images are labelled more than once, differently, and are rejected: {told}. Keep one row of each."
    return CheckOutcome("conflicting_labels", not images["count"], detail, {"images": images["count"], "rows": Table(images["rows"])})


def _rows_without_image(found: dict[str, Any]) -> CheckOutcome:
    images = found["rows_without_image"]
    detail = "every label row names an image that is there."
    if images["count"]:
        detail = f"{images['count']} images that label rows name are not there{_first(images, 'image')}. Add them, or remove the rows."
    return CheckOutcome("rows_without_image", not images["count"], detail, {"images": images["count"], "rows": Table(images["rows"])})


def _images_without_row(found: dict[str, Any]) -> CheckOutcome:
    images = found["images_without_row"]
    detail = "every image has a label row."
    if images["count"]:
        detail = f"{images['count']} images have no label row{_first(images, 'key')} and are rejected. Add their rows."
    return CheckOutcome("images_without_row", not images["count"], detail, {"images": images["count"], "rows": Table(images["rows"])})


def _first(found: dict[str, Any], name: str) -> str:
    return f" (first {found['rows'][0][name]})" if found["rows"] else ""


def _nothing_arrived(listing: dict[str, Any]) -> str:
    return f"no images arrived on {listing['day']}; the day is left out of training"
