"""Checks of image_pack: that it holds the manifest's images, and that their pixels are those that were published."""

from datetime import date

from pipeline_project.ingest.packs import open_pack
from pipeline_project.stage import CheckOutcome, StageContext
from pipeline_project.tables import parquet_to_frame


def check_pack(context: StageContext, day: date) -> list[CheckOutcome]:
    """row_count and content_hash: the pack holds exactly the manifest's images, and the bytes of its shards are those published."""
    manifest = context.artifacts.latest("validated_manifest", day.isoformat())
    expected = parquet_to_frame(manifest.read("manifest.parquet"))["image_id"].tolist()
    try:
        pack = open_pack(context.artifacts, context.artifacts.latest("image_pack", day.isoformat()))
    except (ValueError, KeyError) as error:
        return [CheckOutcome("row_count", False, str(error)), CheckOutcome("content_hash", False, str(error))]
    same = pack.image_ids == expected and pack.manifest == manifest.digest
    count = f"{len(pack)} packed images for {len(expected)} manifest rows"
    problems = pack.verify()
    detail = f"all {len(pack.shards)} shards match their digests."
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        detail = f"{problems[0]}{more}. Materialize validated_manifest of {day} with the tag recompute=true, then what follows it."
    return [
        CheckOutcome("row_count", same, f"{count}." if same else f"{count}, or another manifest. Materialize image_pack again."),
        CheckOutcome("content_hash", not problems, detail),
    ]
