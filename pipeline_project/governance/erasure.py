"""Erasing images and telling it: `ingest.erasing` removes them, the audit ledger keeps who wanted it, and the person is told what remains.

What cannot be reached is said, never hidden: weights that learned from an image, backups, other systems' copies.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pipeline_project.dataset.history import stored_versions, versions_with
from pipeline_project.digests import digest_of
from pipeline_project.governance import ledger
from pipeline_project.ingest.erasing import Erasure, erase
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact, ByteStore, FolderStore

ACTION = "erased"
_PAGES = ("data_profile", "evaluation_report")  # whose pages and pictures may show images of the data
_SHORT = 12


@dataclass(frozen=True)
class ErasureReport:
    """What was done, and what is left to do: `days` to materialize, then `remaining` in words."""

    done: Erasure
    versions: list[str]
    models: list[str]
    remaining: list[str]


def erase_images(context: StageContext, images: Sequence[str], *, reason: str, who: str) -> ErasureReport:
    """Erase images and record it in the audit ledger, one entry an image. Run it again after a failure: it goes on, and tells once.

    Args and errors: those of `ingest.erasing.erase`.
    """
    done = erase(context, images, reason=reason, who=who)
    _tell(context.artifacts.bytes, done, reason, who)
    holding = versions_with(context, done.image_ids)
    versions, models = [entry.digest for entry in holding], sorted({model for entry in holding for model in entry.models})
    return ErasureReport(done, versions, models, list(_remaining(context, done, versions, models)))


def render_erasure(report: ErasureReport) -> str:
    """The report for a terminal."""
    done = report.done
    removed = ", ".join(f"{count:,} {kind}" for kind, count in done.removed.items()) or "nothing: it was erased before"
    text = [f"{len(done.image_ids)} image{'s' if len(done.image_ids) > 1 else ''} erased. Removed now: {removed}.\n"]
    text += [f"  {image_id}\n" for image_id in done.image_ids]
    if done.keys:
        text.append(f"Also remove from the source, which this program never writes: {', '.join(done.keys)}\n")
    if done.unknown:
        text.append(f"Never seen here, and refused from now on: {', '.join(done.unknown)}\n")
    if done.days:
        text.append(f"Materialize raw_images and what follows it of {', '.join(done.days)}; then dataset_splits, and train anew.\n")
    if report.remaining:
        text.append("What remains, and what to do:\n")
        text += [f"- {line}\n" for line in report.remaining]
    return "".join(text)


def _tell(store: ByteStore, done: Erasure, reason: str, who: str) -> None:
    """An entry for each image that has none, or of which something was found again."""
    told = {entry.subject for entry in ledger.entries(store) if entry.action == ACTION}
    again = any(kind != "tombstones" for kind in done.removed)
    for image_id in done.image_ids:
        if again or image_id not in told:
            details = {"reason": reason, "removed": dict(done.removed), "files": len(done.files), "files_digest": digest_of(done.files)}
            ledger.append(store, who, ACTION, image_id, details)


def _remaining(context: StageContext, done: Erasure, versions: Sequence[str], models: Sequence[str]) -> Iterator[str]:
    if models:
        yield (
            f"Trained models have learned from it and cannot forget: {', '.join(m[:_SHORT] for m in models)}. Train anew on the next "
            "dataset version, deploy that; `pipeline gc --apply` removes the old ones when nothing needs them."
        )
    if versions or done.days:
        yield (
            "Its id, key, label row, hash and measurements stay in the records of the time: manifests of "
            + (", ".join(done.days) or "its days")
            + (f", dataset versions {', '.join(v[:_SHORT] for v in versions)}" if versions else "")
            + ". `pipeline gc --apply` removes them when they are replaced and old enough."
        )
    pages = [f"{a.name} {a.digest[:_SHORT]}" for name in _PAGES for a in stored_versions(context.artifacts, name) if _shows(a)]
    if pages:
        yield f"Pages with pictures of the data may show it: {', '.join(pages)}. Materialize these assets again, then run `pipeline gc`."
    for day in _answered(context, done):
        yield f"Someone asked for a prediction of the same bytes on {day}: the prediction log has its id, and may have a thumbnail."
    yield "Dagster's event log and MLflow may keep contact sheets and plots of past runs: delete these runs there, or let them age out."
    if not isinstance(context.artifacts.bytes, FolderStore):
        yield "Caches of other machines may hold packed pixels: `pipeline gc --apply` there, or remove cache/ in their runtime homes."
    yield "Backups and old object versions of the store and of the source are beyond this program."
    yield "A run that was at work meanwhile may have written it again: when it is done, run this command once more; it says if so."


def _shows(artifact: Artifact) -> bool:
    """Whether a version has a page or pictures, as payload or sidecar."""
    files = [*artifact.files, *artifact.store.list(f"{artifact.prefix}sidecars/")]
    return any(file.endswith((".html", ".png", ".jpg", ".jpeg")) for file in files)


def _answered(context: StageContext, done: Erasure) -> Iterator[str]:
    """The days on which the prediction log names one of the images."""
    import pyarrow.parquet as pq

    wanted = set(done.image_ids)
    for day in context.artifacts.partitions("prediction_log"):
        log = context.artifacts.latest("prediction_log", day)
        for file in log.files:
            if file.endswith(".parquet"):
                with suppress(KeyError, ValueError):  # a table without image ids
                    column = pq.read_table(io.BytesIO(log.read(file)), columns=["image_id"])["image_id"]
                    if wanted & set(column.to_pylist()):
                        yield day
                        break
