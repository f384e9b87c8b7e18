"""validated_manifest: every image of a day decoded in full, accepted or put in quarantine with a reason, and the day's verdict."""

import json
from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, Any

from pipeline_project.contracts import DayVerdict
from pipeline_project.digests import canonical_json
from pipeline_project.ingest.decoding import DECODING_SETTINGS, decode_day, shards_stand
from pipeline_project.ingest.decoding.pool import TRANSIENT
from pipeline_project.ingest.erasure import erased
from pipeline_project.ingest.inventory import Inventory, attributes_text, read_inventory
from pipeline_project.ingest.inventory_checks import inventory_outcomes, label_file_problems
from pipeline_project.ingest.manifest_join import UNCOUNTED, join_day
from pipeline_project.ingest.privacy import mask_personal_data
from pipeline_project.ingest.privacy.report import personal_data_metadata, personal_data_report
from pipeline_project.ingest.quarantine import put_in_quarantine
from pipeline_project.ingest.repairs import repair_records
from pipeline_project.ingest.sources import open_source
from pipeline_project.ingest.thumbnails import rejected_images
from pipeline_project.reuse import reusable
from pipeline_project.settings import Settings
from pipeline_project.stage import Metadata, StageContext, StepResult, Table
from pipeline_project.storage import Artifact
from pipeline_project.tables import parquet_to_table, table_to_parquet

if TYPE_CHECKING:
    import pyarrow as pa


def _sound(context: StageContext, manifest: Artifact) -> bool:
    """Whether a stored manifest is still what would be made: no repair, erasure or lost shard says otherwise, and nothing is to be tried
    again."""
    store = context.artifacts.bytes
    gone, repairs = erased(store), repair_records(store)
    rejects = parquet_to_table(manifest.read("rejects.parquet"), ["image_id", "code"]).to_pylist()
    if any(row["code"] in TRANSIENT for row in rejects):
        return False
    if any((row["code"] == "erased") != (row["image_id"] in gone) for row in rejects):
        return False
    ids = {row["image_id"] for row in rejects}
    if gone or repairs:
        ids |= set(parquet_to_table(manifest.read("manifest.parquet"), ["image_id"])["image_id"].to_pylist())
    erased_since = ids & gone - {row["image_id"] for row in rejects}
    withdrawn = set(manifest.info.get("repaired", [])) - {repair.repaired for repair in repairs}
    if erased_since or withdrawn or ids & {repair.original for repair in repairs}:
        return False
    return shards_stand(context, manifest)


@reusable(
    "validated_manifest",
    inputs=["raw_images"],
    settings=[
        *DECODING_SETTINGS,
        "ingest.max_reject_rate",
        "ingest.max_missing_label_rate",
        "data.classes",
        "data.slice_columns",
        "data.text_columns",
        "privacy.phone_regions",
    ],
    sound=_sound,
)
def validate_images(context: StageContext, day: date) -> StepResult:
    """Decode the day's new and changed images, and join all of them with their labels.

    Payload: manifest.parquet (`ManifestRow`) and rejects.parquet (`Reject`), both sorted by key; verdict.json (`DayVerdict`),
    personal_data.json (see `personal_data_report`), shards.json (where the pixels lie: size, and partition and digest of each shard). The
    bytes of rejected images are kept under restricted/quarantine/.
    """
    settings, store = context.settings, context.artifacts.bytes
    artifact = context.artifacts.latest("raw_images", day.isoformat())
    inventory = read_inventory(artifact)
    decoded = decode_day(context, day, inventory.objects.select(["key", "size", "etag"]))
    labels, found = _masked(inventory, settings)
    joined = join_day(decoded.facts, labels, settings.data.classes)
    put_in_quarantine(open_source(settings), store, settings, day, joined.rejects)
    verdict = _judge(settings, day, inventory.summary, joined.manifest.num_rows, joined.rejects)
    readable = decoded.facts.filter(_is_null(decoded.facts["code"]))
    personal = personal_data_report(context, found, inventory.summary["texts"], readable["faces"].to_pylist())
    repaired = {repair.repaired for repair in repair_records(store)} & set(readable["image_id"].to_pylist())
    payload = {
        "manifest.parquet": table_to_parquet(joined.manifest),
        "rejects.parquet": table_to_parquet(joined.rejects),
        "verdict.json": canonical_json(verdict.model_dump(mode="json")),
        "personal_data.json": canonical_json(personal),
        "shards.json": canonical_json({"size": settings.image.size, "shards": [[ref.partition, ref.digest] for ref in decoded.shards]}),
    }
    made = context.artifacts.publish(
        "validated_manifest",
        payload,
        partition=day.isoformat(),
        info={"inventory": artifact.digest, "verdict": verdict.passed, "repaired": sorted(repaired)},
    )
    shown = _metadata(context, verdict, joined.rejects) | {"decoded": decoded.decoded, "inventory": artifact.digest}
    return StepResult(made, {**shown, "conversions": conversions(joined.manifest), **personal_data_metadata(personal)})


def conversions(manifest: "pa.Table") -> dict[str, int]:
    """{note: accepted images that have it}, the most frequent first."""
    import pyarrow.compute as pc

    counts: Counter[str] = Counter()
    for entry in pc.value_counts(manifest["notes"]).to_pylist():
        for note in json.loads(entry["values"]):
            counts[note] += entry["counts"]
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _masked(inventory: Inventory, settings: Settings) -> tuple["pa.Table", dict[str, dict[str, int]]]:
    """The label rows, and what was masked in them. Columns that became text columns after the inventory was taken are masked now."""
    import pyarrow as pa

    found = {column: Counter(kinds) for column, kinds in inventory.summary["personal_data"].items()}
    left = sorted(set(settings.data.text_columns) - set(inventory.summary["masked_columns"]))
    if not any(column in inventory.summary["texts"] for column in left):
        return inventory.labels, {column: dict(kinds) for column, kinds in found.items()}
    texts = []
    for text in inventory.labels["attributes"].to_pylist():
        attributes = json.loads(text)
        for column in left:
            if attributes.get(column):
                attributes[column], kinds = mask_personal_data(attributes[column], settings.privacy.phone_regions)
                found.setdefault(column, Counter()).update(kinds)
        texts.append(attributes_text(attributes))
    masked = inventory.labels.set_column(2, "attributes", pa.array(texts, pa.string()))
    return masked, {column: dict(kinds) for column, kinds in found.items() if kinds}


def _is_null(column: Any) -> Any:
    import pyarrow.compute as pc

    return pc.is_null(column)


def _judge(settings: Settings, day: date, summary: dict[str, Any], accepted: int, rejects: "pa.Table") -> DayVerdict:
    objects = summary["objects"]
    codes = Counter(code for code in rejects["code"].to_pylist() if code not in UNCOUNTED)
    rejected = codes.total()
    rate = round(rejected / objects, 6) if objects else 0.0
    problems = label_file_problems(summary)
    reasons = [problems] if problems else []
    if not objects:
        reasons.append("no images arrived")
    elif not summary["label_file_count"]:
        reasons.append(f"no {settings.data.labels_file} found")
    if rate > settings.ingest.max_reject_rate:
        told = ", ".join(f"{count} {code}" for code, count in codes.most_common())
        limit = f"{settings.ingest.max_reject_rate:.1%}"
        reasons.append(f"{rejected} of {objects} images rejected ({rate:.1%}: {told}); at most {limit} are allowed")
    missing = next(outcome for outcome in inventory_outcomes(summary, settings) if outcome.name == "missing_values")
    if not missing.passed and summary["label_file_count"]:
        reasons.append(missing.detail.rstrip("."))
    return DayVerdict(day=day, passed=not reasons, objects=objects, accepted=accepted, rejected=rejected, reject_rate=rate, reasons=reasons)


def _metadata(context: StageContext, verdict: DayVerdict, rejects: "pa.Table") -> dict[str, Any]:
    shown: Metadata = {
        "accepted": verdict.accepted,
        "rejected": verdict.rejected,
        "reject_rate": verdict.reject_rate,
        "reasons": dict(Counter(rejects["code"].to_pylist()).most_common()),
        "rejects": Table(rejects.select(["key", "code", "detail"]).slice(0, 50).to_pylist()),
        "day_may_train": verdict.passed,
        "verdict": "; ".join(verdict.reasons) or "good",
    }
    picture = rejected_images(context, rejects)
    return {**shown, "rejected_images": picture} if picture is not None else dict(shown)
