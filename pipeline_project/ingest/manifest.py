"""validated_manifest: every image of a day decoded in full, accepted or put in quarantine with a reason, and the day's verdict."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pipeline_project.contracts import DayVerdict, LabelRow, ManifestRow, Reject
from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.imaging import DecodeLimits, ImageRejectedError, decode_image
from pipeline_project.imaging.decode import DECODE_SETTINGS
from pipeline_project.ingest.inventory_checks import inventory_outcomes
from pipeline_project.ingest.labels import close_class, in_few_words
from pipeline_project.ingest.privacy import mask_personal_data
from pipeline_project.ingest.sources import Source, open_source
from pipeline_project.reuse import reusable
from pipeline_project.settings import Settings
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.storage import ByteStore
from pipeline_project.tables import records_to_parquet

QUARANTINE = "processed-data/quarantine"
_NOT_COUNTED = frozenset({"duplicate"})  # an exact copy is dropped, but says nothing bad of the day


@dataclass
class _Day:
    rows: list[ManifestRow] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    personal_data: Counter[str] = field(default_factory=Counter)


@reusable(
    "validated_manifest",
    inputs=["raw_images"],
    settings=[*DECODE_SETTINGS, "ingest.max_reject_rate", "ingest.max_missing_label_rate", "data.classes", "data.text_columns"],
)
def validate_images(context: StageContext, day: date) -> StepResult:
    """Decode the day's images and join them with their labels.

    Payload: manifest.parquet (`ManifestRow`), rejects.parquet (`Reject`), verdict.json (`DayVerdict`). The bytes of rejected
    images are kept under processed-data/quarantine/.
    """
    inventory = context.artifacts.latest("raw_images", day.isoformat())
    listing = inventory.json("inventory.json")
    source = open_source(context.settings)
    done = _validate(context, source, listing)
    verdict = _judge(context.settings, day, listing, done)
    payload = {
        "manifest.parquet": records_to_parquet(done.rows, ManifestRow),
        "rejects.parquet": records_to_parquet(done.rejects, Reject),
        "verdict.json": canonical_json(verdict.model_dump(mode="json")),
        "personal_data.json": canonical_json(done.personal_data),
    }
    artifact = context.artifacts.publish(
        "validated_manifest", payload, partition=day.isoformat(), info={"inventory": inventory.digest, "verdict": verdict.passed}
    )
    reasons = Counter(reject.code for reject in done.rejects)
    return StepResult(
        artifact,
        {
            "accepted": verdict.accepted,
            "rejected": verdict.rejected,
            "reject_rate": verdict.reject_rate,
            "reasons": dict(reasons),
            "rejects": Table([r.model_dump(include={"key", "code", "detail"}) for r in done.rejects[:50]]),
            "day_may_train": verdict.passed,
            "verdict": "; ".join(verdict.reasons) or "good",
            "inventory": inventory.digest,
        },
    )


def _validate(context: StageContext, source: Source, listing: dict[str, Any]) -> _Day:
    limits = DecodeLimits.from_settings(context.settings.ingest)
    labels = {row["image"]: LabelRow.model_validate(row) for row in reversed(listing["labels"])}
    conflicting = set(listing["conflicting"])
    day = _Day()
    first_key: dict[str, ManifestRow] = {}
    disputes: dict[str, Reject] = {}
    for key, data, found in _decoded(source, limits, [o["key"] for o in listing["objects"]], context.settings.training.threads):
        label = labels.get(key)
        image_id = sha256_bytes(data)
        problem = _problem(key, label, conflicting, context.settings.data.classes, found)
        if problem is not None:
            reject = Reject(key=key, code=problem.code, detail=problem.detail, label=label.label if label else None, image_id=image_id)
            day.rejects.append(reject)
            _quarantine(context.artifacts.bytes, reject, data)
            continue
        assert label is not None
        assert label.label is not None
        assert not isinstance(found, ImageRejectedError)
        if image_id in first_key:
            earlier = first_key[image_id]
            same = earlier.label == label.label
            code, detail = ("duplicate", "") if same else ("conflicting_copy", f", there labelled {earlier.label}")
            reject = Reject(key=key, code=code, detail=f"the same bytes as {earlier.key}{detail}", label=label.label, image_id=image_id)
            day.rejects.append(reject)
            if not same:
                disputes.setdefault(image_id, reject)
                _quarantine(context.artifacts.bytes, reject, data, earlier.key)
            continue
        attributes = _masked(label.attributes, context.settings.data.text_columns, day.personal_data)
        row = ManifestRow(image_id=image_id, key=key, label=label.label, size=len(data), attributes=attributes, **found)
        first_key[image_id] = row
        day.rows.append(row)
        if len(day.rows) % 500 == 0:
            context.log(f"{len(day.rows)} images accepted so far")
    for row in [row for row in day.rows if row.image_id in disputes]:  # the same bytes under two labels: neither can be believed
        other = disputes[row.image_id]
        detail = f"the same bytes as {other.key}, there labelled {other.label}"
        day.rejects.append(Reject(key=row.key, code="conflicting_copy", detail=detail, label=row.label, image_id=row.image_id))
    day.rows = [row for row in day.rows if row.image_id not in disputes]
    return day


def _decoded(
    source: Source, limits: DecodeLimits, keys: list[str], threads: int
) -> Iterator[tuple[str, bytes, "dict[str, Any] | ImageRejectedError"]]:
    """Bytes and decoded facts of each key, in order; at most a few images are in memory at once."""

    def work(key: str) -> tuple[str, bytes, dict[str, Any] | ImageRejectedError]:
        data = source.read(key)
        try:
            decoded = decode_image(data, limits)
        except ImageRejectedError as reason:
            return key, data, reason
        facts = {
            "width": decoded.image.width,  # upright, as the server measures it
            "height": decoded.image.height,
            "mode": decoded.mode,
            "format": decoded.format,
            "perceptual_hash": _perceptual_hash(decoded.image),
        }
        return key, data, facts

    with ThreadPoolExecutor(threads) as workers:
        for start in range(0, len(keys), 64):
            yield from workers.map(work, keys[start : start + 64])


def _perceptual_hash(image: Any) -> str:
    import imagehash

    return str(imagehash.phash(image.resize((128, 128)), hash_size=8, highfreq_factor=4))


def _problem(
    key: str, label: LabelRow | None, conflicting: set[str], classes: list[str], found: "dict[str, Any] | ImageRejectedError"
) -> ImageRejectedError | None:
    if isinstance(found, ImageRejectedError):
        return found
    if label is None or label.label is None:
        return ImageRejectedError("unlabelled", "no row of the label file names a label for it")
    if key in conflicting:
        return ImageRejectedError("conflicting_labels", "labelled more than once, differently")
    if label.label not in classes:
        meant = close_class(label.label, classes)
        hint = f"; did you mean {meant!r}?" if meant else ""
        return ImageRejectedError("outside_domain", f"label {label.label!r} is not one of data.classes{hint}")
    return None


def _masked(attributes: dict[str, str], text_columns: list[str], found: Counter[str]) -> dict[str, str]:
    masked = dict(attributes)
    for column in set(text_columns) & masked.keys():
        masked[column], kinds = mask_personal_data(masked[column])
        found.update(kinds)
    return masked


def _quarantine(store: ByteStore, reject: Reject, data: bytes, *others: str) -> None:
    """Keep a rejected image's bytes, once, with the reason and all keys under which they came."""
    place = f"{QUARANTINE}/{reject.image_id}"
    known = store.read_json(f"{place}/reason.json").get("keys", []) if store.exists(f"{place}/reason.json") else []
    store.write(f"{place}/bytes", data)
    store.write_json(f"{place}/reason.json", {**reject.model_dump(), "keys": sorted({reject.key, *others, *known})})


def _judge(settings: Settings, day: date, listing: dict[str, Any], done: _Day) -> DayVerdict:
    objects = len(listing["objects"])
    rejected = sum(reject.code not in _NOT_COUNTED for reject in done.rejects)
    rate = round(rejected / objects, 6) if objects else 0.0
    problems = [f"{problem['file']}: {problem['detail']}" for problem in listing["problems"]]
    reasons = [in_few_words(problems)] if problems else []
    if not objects:
        reasons.append("no images arrived")
    elif not listing["label_files"]:
        reasons.append(f"no {settings.data.labels_file} found")
    if rate > settings.ingest.max_reject_rate:
        codes = Counter(reject.code for reject in done.rejects if reject.code not in _NOT_COUNTED)
        told = ", ".join(f"{count} {code}" for code, count in codes.most_common())
        limit = f"{settings.ingest.max_reject_rate:.1%}"
        reasons.append(f"{rejected} of {objects} images rejected ({rate:.1%}: {told}); at most {limit} are allowed")
    missing = next(outcome for outcome in inventory_outcomes(listing, settings) if outcome.name == "missing_values")
    if not missing.passed and listing["label_files"]:
        reasons.append(missing.detail.rstrip("."))
    return DayVerdict(
        day=day,
        passed=not reasons,
        objects=objects,
        accepted=len(done.rows),
        rejected=rejected,
        reject_rate=rate,
        reasons=reasons,
    )
