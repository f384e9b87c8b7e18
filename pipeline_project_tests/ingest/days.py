"""A source with a story: objects and label files that come, change and go, and days that are taken in by hand."""

import itertools
import os
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from pipeline_project.digests import canonical_json
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
_times = itertools.count(1)


def take_in(context: StageContext, day: date) -> str:
    """The real inventory, and artefacts in the place of what follows it, bound together as the real ones are. Returns the fingerprint."""
    store = context.artifacts
    raw = take_inventory(context, day).artifact
    info = {"inventory": raw.digest, "verdict": True}
    manifest = store.publish("validated_manifest", {"of": raw.digest.encode()}, partition=str(day), info=info)
    pack = store.publish("image_pack", {"of": manifest.digest.encode()}, partition=str(day))
    origin = canonical_json({"manifest": manifest.digest, "pack": pack.digest})
    store.publish("image_features", {"origin.json": origin}, partition=str(day))
    return str(raw.info["fingerprint"])


@dataclass
class Story:
    """A source folder and a store.

    Attributes:
        settings: overrides such as `INGEST__MARKER="_SUCCESS"`.
    """

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    home: str = "home"

    def __post_init__(self) -> None:
        self.source = self.folder / "source"
        self.source.mkdir(exist_ok=True)

    @property
    def context(self) -> StageContext:
        environment = {"PIPELINE_HOME": str(self.folder / self.home), "PIPELINE__DATA__SOURCE": str(self.source)}
        environment |= {"PIPELINE__DATA__START_DATE": "2020-01-01"}
        environment |= {f"PIPELINE__{name}": value for name, value in self.settings.items()}
        return StageContext.open(load_settings("sample", environment=environment))

    def put(self, key: str, text: str, modified: datetime = datetime(2026, 11, 1, 8, tzinfo=UTC)) -> Path:
        """An object with a modification time, and an ETag that no other version has."""
        path = self.source / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        nanoseconds = int(modified.timestamp()) * 10**9 + next(_times)
        os.utime(path, ns=(nanoseconds, nanoseconds))
        return path

    def remove(self, key: str) -> None:
        (self.source / key).unlink()

    def label(self, key: str, labels: dict[str, str], modified: datetime = datetime(2026, 11, 1, 8, tzinfo=UTC)) -> None:
        """A label file: {image path relative to the file's folder: label}."""
        self.put(key, "\n".join(["image,label", *(f"{image},{label}" for image, label in labels.items())]) + "\n", modified)

    def objects(self) -> list[str]:
        return sorted(path.relative_to(self.source).as_posix() for path in self.source.rglob("*") if path.is_file())

    def looks(self, *others: date) -> dict[date, object]:
        """What there is of each day with objects, and of others, told naively: identities and the rows that speak of it."""
        context, found = self.context, defaultdict[date, list[object]](list, {day: [] for day in others})
        arrivals = {
            name: date.fromisoformat(text)
            for key in context.artifacts.bytes.list("processed-data/arrivals/")
            for name, text in sorted(context.artifacts.bytes.read_json(key).items())
        }

        def day_of(key: str) -> date | None:
            parts = [part for part in key.split("/")[:-1] if len(part) == 10 and part[:2] == "20"]
            return date.fromisoformat(parts[0]) if parts else arrivals.get(key)

        for key in self.objects():
            path = self.source / key
            if not key.endswith("labels.csv"):
                day = day_of(key) or datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
                found[day].append((key, path.stat().st_mtime_ns))
        for key in self.objects():
            if key.endswith("labels.csv"):
                folder = key.rpartition("/")[0]
                dated = day_of(key) if "/20" in f"/{folder}" else None
                for row in (self.source / key).read_text().splitlines()[1:]:
                    image, label = row.split(",")
                    image = os.path.normpath(f"{folder}/{image}").lstrip("/")
                    of = dated or day_of(image) or day_of(key) or datetime.fromtimestamp((self.source / key).stat().st_mtime, UTC).date()
                    if of in found:
                        found[of].append((key, image, label))
        return {day: sorted(what, key=str) for day, what in found.items()}
