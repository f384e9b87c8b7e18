"""Checks of validated_manifest."""

from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, Any

from pipeline_project.imaging.decode import NOTES
from pipeline_project.ingest.checks.manifest_schema import broken_rows
from pipeline_project.ingest.day_drift import check_day_drift
from pipeline_project.ingest.manifest import conversions
from pipeline_project.ingest.manifest_join import UNCOUNTED
from pipeline_project.ingest.privacy.report import personal_data_outcome
from pipeline_project.settings import Settings
from pipeline_project.stage import CheckOutcome, StageContext, Table
from pipeline_project.tables import parquet_to_table

if TYPE_CHECKING:
    import pyarrow as pa

_MEANING = {**NOTES, "repaired": "repaired bytes, released from quarantine by a person, stand for the original"}


def check_manifest(context: StageContext, day: date) -> list[CheckOutcome]:
    """schema, reject_rate, label_domain, duplicates, conversions, personal_data and day_drift of a day's manifest."""
    manifest = context.artifacts.latest("validated_manifest", day.isoformat())
    data = manifest.read("manifest.parquet")
    rejects = parquet_to_table(manifest.read("rejects.parquet"))
    return [
        _schema(data),
        _reject_rate(manifest.json("verdict.json"), rejects, context.settings),
        _label_domain(data, rejects, context.settings),
        _duplicates(rejects),
        _conversions(parquet_to_table(data, ["notes"])),
        personal_data_outcome(manifest.json("personal_data.json"), context.settings),
        check_day_drift(context, day),
    ]


def _schema(data: bytes) -> CheckOutcome:
    rows, broken = broken_rows(data)
    next_step = ". Materialize the day again with the tag recompute=true"
    detail = f"{'; '.join(broken)}{next_step}." if broken else f"{rows} rows, unique and complete."
    return CheckOutcome("schema", not broken, detail, {"rows": rows})


def _reject_rate(verdict: dict[str, Any], rejects: "pa.Table", settings: Settings) -> CheckOutcome:
    limit = settings.ingest.max_reject_rate
    numbers = {"reject_rate": verdict["reject_rate"], "reasons": dict(Counter(rejects["code"].to_pylist()).most_common())}
    shown = Table(rejects.select(["key", "code", "detail"]).slice(0, 50).to_pylist())
    passed = verdict["reject_rate"] <= limit
    return CheckOutcome("reject_rate", passed, _reject_words(verdict, rejects, limit), {**numbers, "rejects": shown})


def _reject_words(verdict: dict[str, Any], rejects: "pa.Table", limit: float) -> str:
    """How many, for which reasons, the first of them, and what to do where there are too many."""
    if not verdict["objects"]:
        return f"no images arrived on {verdict['day']}; the day is left out of training."
    words = f"{verdict['rejected']} of {verdict['objects']} images rejected"
    codes = Counter(code for code in rejects["code"].to_pylist() if code not in UNCOUNTED)
    if codes:
        reasons = ", ".join(f"{count} {code}" for code, count in codes.most_common())
        at = next(n for n, code in enumerate(rejects["code"].to_pylist()) if code not in UNCOUNTED)
        first = rejects.slice(at, 1).to_pylist()[0]
        words += f" ({reasons}; the first is {first['key']}: {first['detail']})"
    words += f"; the limit is {limit:.1%}."
    if verdict["reject_rate"] > limit:
        words += " Replace or remove them in the source, then materialize the day again; their bytes are kept in quarantine."
    return words


def _label_domain(data: bytes, rejects: "pa.Table", settings: Settings) -> CheckOutcome:
    labels = parquet_to_table(data, ["label"])["label"].unique().to_pylist()
    outside = sorted(set(labels) - set(settings.data.classes))
    refused, first = _of_code(rejects, "outside_domain")
    detail = f"{refused} images were refused for a label outside data.classes{first}."
    return CheckOutcome("label_domain", not outside and not refused, detail, {"refused": refused, "outside": outside})


def _duplicates(rejects: "pa.Table") -> CheckOutcome:
    same, first_same = _of_code(rejects, "duplicate")
    other, first_other = _of_code(rejects, "conflicting_copy")
    detail = f"{same + other} exact copies inside the day; one of each is kept, none where their labels differ{first_other or first_same}."
    return CheckOutcome("duplicates", not same + other, detail, {"copies": same + other})


def _conversions(manifest: "pa.Table") -> CheckOutcome:
    counts = conversions(manifest)
    rows = [{"note": note, "images": count, "meaning": _MEANING.get(note, "")} for note, count in counts.items()]
    detail = f"no image of {manifest.num_rows} needed a conversion."
    if rows:
        told = ", ".join(f"{row['note']} ({row['images']})" for row in rows)
        detail = f"of {manifest.num_rows} images: {told}. All were taken in."
    return CheckOutcome("conversions", True, detail, {"conversions": Table(rows)})


def _of_code(rejects: "pa.Table", code: str) -> tuple[int, str]:
    """How many rejects have a code, and the first of them in brackets."""
    import pyarrow.compute as pc

    found = rejects.filter(pc.equal(rejects["code"], code))
    first = found.slice(0, 1).to_pylist()
    return found.num_rows, f" (first {first[0]['key']}: {first[0]['detail']})" if first else ""
