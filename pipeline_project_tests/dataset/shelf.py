"""Days as ingest publishes them, with chosen labels and perceptual hashes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_project.contracts import DayVerdict, ManifestRow
from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project.tables import frame_to_parquet, records_to_parquet
from pipeline_project_tests.packed import publish_pack

SIZE = 16


@dataclass
class Shelf:
    """A store that days are put into."""

    context: StageContext
    made: list[ManifestRow] = field(default_factory=list)

    def row(self, number: int, label: str, hash_: int | None = None) -> ManifestRow:
        """An image of its own for every number; unless told, its hash is far from all others."""
        far = int(sha256_bytes(b"hash%d" % number)[:16], 16)
        return ManifestRow(
            image_id=sha256_bytes(b"%d" % number), key=f"k{number}.jpg", label=label, width=20, height=10, mode="RGB", format="JPEG",
            size=100 + number, perceptual_hash=f"{far if hash_ is None else hash_:016x}", attributes={"brand_tier": f"t{number}"},
        )  # fmt: skip

    def inventory(self, day: str, content: str = "1") -> str:
        lists = ("objects", "labels", "label_files", "problems", "unlabelled", "without_image", "conflicting")
        listing = {"day": day, "etag": content, "announced_formats": {}, "outside_domain": {}, **{name: [] for name in lists}}
        return self.context.artifacts.publish("raw_images", {"inventory.json": canonical_json(listing)}, partition=day).digest

    def manifest(self, day: str, rows: Sequence[ManifestRow], reasons: Sequence[str] = ()) -> str:
        verdict = DayVerdict(
            day=day, passed=not reasons, objects=len(rows), accepted=len(rows), rejected=0, reject_rate=0, reasons=list(reasons)
        )  # fmt: skip
        payload = {
            "manifest.parquet": records_to_parquet(rows, ManifestRow),
            "verdict.json": canonical_json(verdict.model_dump(mode="json")),
        }
        return self.context.artifacts.publish("validated_manifest", payload, partition=day, info={"inventory": self.inventory(day)}).digest

    def pack(self, day: str, rows: Sequence[ManifestRow], manifest: str, size: int = SIZE) -> str:
        """Each image is of the one colour that its `size` says."""
        pixels = np.array([np.full((size, size, 3), row.size % 256) for row in rows], np.uint8)
        of = self.context.artifacts.version("validated_manifest", manifest, day)
        return publish_pack(self.context, day, of, rows, pixels).digest

    def features(self, day: str, rows: Sequence[ManifestRow], pack: str, manifest: str) -> None:
        table = pd.DataFrame(
            {"image_id": [row.image_id for row in rows], **{name: [float(r.size) for r in rows] for name in FEATURE_NAMES}}
        )
        origin = canonical_json({"pack": pack, "manifest": manifest})
        self.context.artifacts.publish(
            "image_features", {"features.parquet": frame_to_parquet(table), "origin.json": origin}, partition=day
        )

    def day(self, day: str, rows: Sequence[ManifestRow], reasons: Sequence[str] = ()) -> None:
        manifest = self.manifest(day, rows, reasons)
        self.features(day, rows, self.pack(day, rows, manifest), manifest)

    def good_day(self, day: str, start: int, count: int) -> list[ManifestRow]:
        labels = self.context.settings.data.classes
        rows = [self.row(n, labels[n % len(labels)]) for n in range(start, start + count)]
        self.day(day, rows)
        return rows


def open_shelf_in(folder: Path, **overrides: str) -> Shelf:
    """A shelf in a folder, with classes a and b; overrides are such as `DATASET__TRAIN="0.4"`."""
    environment = {"PIPELINE_HOME": str(folder), "PIPELINE__DATA__CLASSES": "[a, b]", "PIPELINE__IMAGE__SIZE": str(SIZE)}
    environment |= {f"PIPELINE__{name}": value for name, value in overrides.items()}
    return Shelf(StageContext.open(load_settings("sample", environment=environment)))
