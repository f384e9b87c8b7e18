"""What was found of personal data in a day, what was searched and what was not, and how well the finders find (R190)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline_project.code_version import files_of
from pipeline_project.digests import digest_of
from pipeline_project.ingest.privacy.faces import FaceFinder, open_face_finder
from pipeline_project.ingest.privacy.recall import face_recall, text_recall
from pipeline_project.settings import Settings
from pipeline_project.stage import CheckOutcome, Metadata, StageContext, Table

_MEASURED = "artifacts/measured"
_FACE_LIMITS = (
    "Measured on enlarged press photographs of faces seen from the front, blended into other pictures; profiles, covered faces and faces "
    "below a tenth of the picture are rarely found. Check a sample of the pictures by eye."
)
_TEXT_LIMITS = "Measured on texts made from templates. Names and postal addresses are not looked for."


def count_texts(attributes: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """{column: values that are not empty} of label rows' attributes."""
    counts: dict[str, int] = {}
    for row in attributes:
        for column, value in row.items():
            counts[column] = counts.get(column, 0) + bool(value.strip())
    return counts


def personal_data_report(
    context: StageContext, found: Mapping[str, Mapping[str, int]], texts: Mapping[str, int], faces: Sequence[int | None]
) -> dict[str, Any]:
    """The payload personal_data.json: a function of the day's content, the settings and the detector alone.

    Args:
        context: settings, and the store, where the detector's recall is kept once it was measured (some seconds).
        found: {text column: {kind: pieces that were found and masked}}.
        texts: {column of label rows: values that are not empty}, searched or not; see `count_texts`.
        faces: of each image that was decoded, how many faces were found; None where they were not looked for.

    Returns:
        {"version", "text": {columns, not_searched, regions, recall, limits},
        "faces": {setting, detector, images, searched, with_faces, faces, masked, recall, limits}}.
    """
    settings = context.settings
    searched = [column for column in settings.data.text_columns if column in texts or column in found]
    known = {*settings.data.text_columns, *settings.data.slice_columns}
    columns = {
        column: {"texts": texts.get(column, 0), "found": {kind: n for kind, n in sorted(found.get(column, {}).items()) if n}}
        for column in sorted(searched)
    }
    looked = [count for count in faces if count is not None]
    finder = open_face_finder(settings.privacy, endpoint_url=settings.store.endpoint_url) if looked else None
    return {
        "version": 1,
        "text": {
            "columns": columns,
            "not_searched": sorted(column for column, count in texts.items() if count and column not in known),
            "regions": sorted(settings.privacy.phone_regions),
            "recall": text_recall(settings.privacy.phone_regions) if columns else None,
            "limits": _TEXT_LIMITS,
        },
        "faces": {
            "setting": settings.privacy.faces,
            "detector": finder.name if finder else None,
            "images": len(faces),
            "searched": len(looked),
            "with_faces": sum(map(bool, looked)),
            "faces": sum(looked),
            "masked": settings.privacy.faces == "mask",
            "recall": measured_face_recall(context, finder) if finder else None,
            "limits": _FACE_LIMITS,
        },
    }


def measured_face_recall(context: StageContext, finder: FaceFinder) -> dict[str, Any]:
    """`face_recall`, from the store where this detector was measured by this code before."""
    model = finder.digest
    key = digest_of({"detector": finder.name, "model": model, "code": files_of("ingest.privacy.recall"), "measured": "face_recall"})
    place = f"{_MEASURED}/face_recall-{key[:24]}.json"
    store = context.artifacts.bytes
    try:
        kept: dict[str, Any] = store.read_json(place)
    except (FileNotFoundError, ValueError):
        context.log(f"measuring what {finder.name} finds, once")
        kept = face_recall(finder)
        store.write_json(place, kept)
    return kept


def personal_data_outcome(report: Mapping[str, Any], settings: Settings) -> CheckOutcome:
    """The check personal_data. It passes where nothing personal was found in texts, no face is left unmasked, and, in production,
    everything was searched: what was not searched is never a pass there."""
    text, faces = report["text"], report["faces"]
    pieces = sum(sum(column["found"].values()) for column in text["columns"].values())
    problems, remarks = [], []
    if pieces:
        told = "; ".join(
            f"{name}: {', '.join(f'{n} {kind}' for kind, n in column['found'].items())}"
            for name, column in text["columns"].items()
            if column["found"]
        )
        problems.append(f"{pieces} pieces of personal data were found in texts and masked ({told}). Have them removed in the source")
    if faces["with_faces"]:
        seen = f"faces were found in {faces['with_faces']} of {faces['searched']} images"
        if faces["masked"]:
            remarks.append(f"{seen} and masked")
        else:
            problems.append(f"{seen} and are NOT masked. Set privacy.faces to mask, or see to it that the people agreed")
    unsearched = []
    if faces["searched"] < faces["images"]:
        missing = faces["images"] - faces["searched"]
        unsearched.append(f"faces were not looked for in {missing} of {faces['images']} images (privacy.faces is {faces['setting']})")
    if text["not_searched"]:
        names = ", ".join(text["not_searched"])
        unsearched.append(f"texts were not searched in {names} (name the columns in data.text_columns or data.slice_columns)")
    (problems if settings.profile == "production" else remarks).extend(unsearched)
    detail = "; ".join([*problems, *remarks]) or "nothing personal was found in all texts and pictures"
    return CheckOutcome("personal_data", not problems, f"{detail[:1].upper()}{detail[1:]}.", {"rate": _rates(report), **_numbers(report)})


def personal_data_metadata(report: Mapping[str, Any]) -> Metadata:
    """The report for the asset's page."""
    text, faces = report["text"], report["faces"]
    rows = [
        {"column": name, "texts": column["texts"], "found": ", ".join(f"{n} {kind}" for kind, n in column["found"].items()) or "nothing"}
        for name, column in text["columns"].items()
    ]
    rows += [{"column": name, "texts": None, "found": "not searched"} for name in text["not_searched"]]
    if faces["images"]:
        searched = f"{faces['faces']} faces in {faces['with_faces']} images" if faces["searched"] else "not searched"
        rows.append({"column": "pictures", "texts": faces["searched"] or None, "found": searched})
    return {"personal_data": Table(rows), "personal_data_recall": Table(recall_rows(report))}


def recall_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the finders find of generated cases, as rows: {what, cases, found, recall}."""
    rows = []
    text, faces = report["text"]["recall"], report["faces"]["recall"]
    if text:
        rows += [_recall_row(kind, point["cases"], point) for kind, point in text["kinds"].items()]
        clean = text["clean"]
        rows.append({"what": "texts without any", "cases": clean["texts"], "found": clean["with_false_hits"], "recall": "false hits"})
    if faces:
        for point in faces["points"]:
            what = f"face, {point['share']:.0%} of the width, tilted {point['tilt']:g} degrees, brightness {point['brightness']:g}"
            rows.append(_recall_row(what, point["cases"], point))
        empty = faces["without_face"]
        rows.append({"what": "pictures without any", "cases": empty["pictures"], "found": empty["with_false_hits"], "recall": "false hits"})
    return rows


def _recall_row(what: str, cases: int, point: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "what": what,
        "cases": cases,
        "found": point["found"],
        "recall": f"{point['recall']:.2f} ({point['low']:.2f}-{point['high']:.2f})",
    }


def _rates(report: Mapping[str, Any]) -> str:
    text, faces = report["text"]["recall"], report["faces"]["recall"]
    told = []
    if text:
        lowest = min(text["kinds"].items(), key=lambda item: item[1]["recall"])
        told.append(f"texts: recall at least {lowest[1]['recall']:.2f} ({lowest[0]}), {text['clean']['share']:.2%} false hits")
    if faces:
        usual = [point["recall"] for point in faces["points"] if not point["tilt"]]
        told.append(f"upright faces: recall {min(usual):.2f} to {max(usual):.2f}; {faces['without_face']['share']:.0%} false hits")
    return "; ".join(told) or "nothing was searched"


def _numbers(report: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, int] = {}
    for column in report["text"]["columns"].values():
        for kind, count in column["found"].items():
            found[kind] = found.get(kind, 0) + count
    faces = report["faces"]
    return {
        "found": found,
        "faces": faces["faces"],
        "images_with_faces": faces["with_faces"],
        "images_searched": faces["searched"],
        "images_not_searched": faces["images"] - faces["searched"],
        "columns_not_searched": report["text"]["not_searched"],
    }
