"""A project that publishes at simulated times, as the stages do, and keeps its own account of who needs whom."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline_project.contracts import DesiredState, Environment, ReplicaReport, Route
from pipeline_project.digests import canonical_json
from pipeline_project.governance.liveness import EVIDENCE
from pipeline_project.governance.stored import CACHES
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact, FolderStore

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
Needs = Sequence[Artifact]


@dataclass
class Entry:
    artifact: Artifact
    needs: list[str]
    times: list[datetime]
    """When it was made the newest version, each time."""


@dataclass
class History:
    """A project that publishes at simulated times, and keeps its own account of who needs whom."""

    root: Path
    days: int = 10
    models: int = 1
    documents: int = 1
    now: datetime = START
    entries: dict[str, Entry] = field(default_factory=dict)
    heads: dict[tuple[str, str | None], str] = field(default_factory=dict)
    deployed: list[tuple[datetime, Environment, str]] = field(default_factory=list)
    served: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        values = {"DAYS": self.days, "MODELS": self.models, "DOCUMENTS": self.documents}
        environment = {"PIPELINE_HOME": str(self.root), **{f"PIPELINE__RETENTION__{k}": str(v) for k, v in values.items()}}
        self.context = StageContext.open(load_settings("sample", environment=environment), run="run-0")
        self.artifacts = self.context.artifacts
        assert isinstance(self.artifacts.bytes, FolderStore)
        self.folder = self.artifacts.bytes.root

    def publish(self, name: str, needs: Needs = (), *, partition: str | None = None, tag: str | None = None, **values: object) -> Artifact:
        """Publish a payload that is unique unless `tag` is given; `values` go into its JSON, "info" into its info."""
        self.count += 1
        info = values.pop("info", {})
        body = {"tag": tag or self.count, **values}
        payload = {"x.json": canonical_json(body), "data.bin": f"{name} {tag or self.count}".encode() * 20}
        made = self.artifacts.publish(name, payload, partition=partition, sidecars={"s.txt": b"beside"}, info=info)  # type: ignore[arg-type]
        self.stamp(made)
        entry = self.entries.setdefault(made.prefix, Entry(made, [], []))
        entry.needs, entry.artifact = [need.prefix for need in needs], made
        entry.times.append(self.now)
        self.heads[name, partition] = made.prefix
        return made

    def stamp(self, artifact: Artifact) -> None:
        """Let it look as if it were published now."""
        head = self.folder / artifact.prefix / ".." / "head.json"
        for file in (self.folder / artifact.prefix / "artifact.json", head):
            record = json.loads(file.read_bytes())
            file.write_bytes(canonical_json(record | {"created": self.now.isoformat(timespec="seconds")}))
        for file in [head, *(self.folder / artifact.prefix).rglob("*")]:
            os.utime(file, (self.now.timestamp(), self.now.timestamp()))

    def newest(self, name: str, partition: str | None = None) -> Artifact | None:
        prefix = self.heads.get((name, partition))
        return self.entries[prefix].artifact if prefix else None

    def take_in(self, number: int = 1) -> None:
        day = f"2026-01-{number:02d}"
        raw = self.publish("raw_images", partition=day)
        shards = self.shard(number)
        named = {"shards": [[shard.partition, shard.digest] for shard in shards]}
        manifest = self.publish("validated_manifest", [raw, *shards], partition=day, info={"inventory": raw.digest}, **named)
        pack = self.publish("image_pack", [manifest], partition=day, manifest=manifest.digest)
        self.publish("image_features", [pack, manifest], partition=day, pack=pack.digest, manifest=manifest.digest)

    def shard(self, number: int = 1) -> list[Artifact]:
        """What decoding leaves: a day cut into one or two buckets by turns, some with contents that were there before."""
        day, bits = f"2026-01-{number:02d}", self.count % 2
        return [
            self.publish("image_shard", partition=f"{day}.{bits:02d}-{bucket:05x}", tag=f"{day} {bits} {bucket} {self.count % 3}")
            for bucket in range(1 + bits)
        ]

    def split(self) -> None:
        kinds = {"days": "validated_manifest", "packs": "image_pack", "features": "image_features"}
        found = {
            kind: {day: self.entries[p].artifact for (n, day), p in self.heads.items() if n == name and day} for kind, name in kinds.items()
        }
        if not found["days"]:
            return
        parent = self.newest("dataset_splits")
        values = {kind: {day: a.digest for day, a in each.items()} for kind, each in found.items()}
        before = parent.digest if parent else None
        needs = [a for each in found.values() for a in each.values()]
        self.publish("dataset_splits", needs, **values, parent=before, info={"parent": before})

    def train(self) -> None:
        dataset = self.newest("dataset_splits")
        if dataset is None:
            return
        tuned = self.publish("tuned_hyperparameters", [dataset], info={"dataset": dataset.digest})
        self.publish("trained_model", [dataset, tuned], info={"dataset": dataset.digest, "tuned_hyperparameters": tuned.digest})

    def package(self) -> None:
        model = self.newest("trained_model")
        if model is None:
            return
        dataset = model.info["dataset"]
        needs = [model, self.find("dataset_splits", dataset)]
        made = self.publish("model_package", needs, dataset_version=dataset, info={"trained_model": model.digest})
        evaluation = self.publish("evaluation_report", [made], package=made.digest, info={"package": made.digest})
        load = self.publish("load_test_report", [made], package=made.digest)
        judged = self.newest("dataset_splits")
        assert judged is not None
        gate = self.publish(
            "release_gate",
            [made, evaluation, load, judged],
            package=made.digest,
            evidence=[f"evaluation_report {evaluation.digest}"],
            load_test=load.digest,
            dataset=judged.digest,
        )
        self.publish("registered_model", [made, gate], package=made.digest, verdict=gate.digest)

    def deploy(self, environment: Environment = "production", back: int = 0) -> None:
        """Serve a package; `back` counts from the newest."""
        packages = sorted((e for e in self.entries.values() if e.artifact.name == "model_package"), key=lambda e: e.times[-1])
        packages = [e for e in packages if (self.folder / e.artifact.prefix / "artifact.json").exists()]
        if not packages:
            return
        package = packages[-1 - back % len(packages)].artifact.digest
        number = sum(place == environment for _, place, _ in self.deployed) + 1
        document = DesiredState(
            environment=environment,
            number=number,
            routes=[Route(name="champion", package=package, weight=1.0)],
            reason="release",
            author="Ada",
            created=self.now,
        )
        key = f"artifacts/deployments/{environment}/documents/{number:08d}.json"
        self.artifacts.bytes.create(key, document.model_dump_json().encode())
        self.deployed.append((self.now, environment, package))

    def serve(self) -> None:
        """A replica that hangs at the first document of production, and reports so."""
        if not [d for d in self.deployed if d[1] == "production"]:
            return
        package = next(d[2] for d in self.deployed if d[1] == "production")
        report = ReplicaReport(
            environment="production",
            replica="r1",
            process=1,
            document=1,
            newest=1,
            packages=[package],
            refused={},
            ready=True,
            reported=self.now,
        )
        file = self.folder / "artifacts/deployments/production/replicas/r1.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(report.model_dump_json())
        os.utime(file, (self.now.timestamp(), self.now.timestamp()))
        self.served[package] = self.now.isoformat()

    def monitor(self, number: int = 1) -> None:
        day = f"2026-01-{number:02d}"
        package = self.newest("model_package")
        self.publish("drift_report", partition=day, packages={package.digest: {}} if package else {})

    def find(self, name: str, digest: str) -> Artifact:
        return next(e.artifact for e in self.entries.values() if (e.artifact.name, e.artifact.digest) == (name, digest))

    def there(self) -> set[str]:
        return {p for p in self.entries if (self.folder / p / "artifact.json").exists()}

    def expected(self) -> set[str]:
        """The folders that must stay, told from the account alone."""
        horizon = self.now - max(timedelta(days=self.days), timedelta(days=1))
        there = {p: e for p, e in self.entries.items() if p in self.there()}
        roots = {prefix for (name, _), prefix in self.heads.items() if name not in CACHES}
        for prefix, entry in there.items():
            peers = [e.times[-1] for p, e in there.items() if _asset(p) == _asset(prefix)]
            replaced = min((t for t in peers if t > entry.times[-1]), default=entry.times[-1])
            if replaced >= horizon:
                roots.add(prefix)
        models = sorted((e.times[-1], p) for p, e in there.items() if e.artifact.name == "trained_model")
        roots |= {p for _, p in models[-self.models :]}
        wanted: set[str] = {p for p, at in self.served.items() if datetime.fromisoformat(at) >= horizon}
        for environment in ("staging", "production"):
            mine = [d for d in self.deployed if d[1] == environment]
            ends = [*(d[0] for d in mine), self.now][1:]
            wanted |= {d[2] for d in mine[-self.documents :]} | {d[2] for d, end in zip(mine, ends, strict=True) if end >= horizon}
        roots |= {p for p, e in there.items() if e.artifact.name == "model_package" and e.artifact.digest in wanted}
        live: set[str] = set()
        waiting = list(roots)
        while waiting:
            prefix = waiting.pop()
            if prefix in live:
                continue
            live.add(prefix)
            waiting += there[prefix].needs
            waiting += [p for p, e in there.items() if e.artifact.name in EVIDENCE and prefix in e.needs and "/model_package/" in prefix]
        alone = {p for p, e in there.items() if e.artifact.name in EVIDENCE}
        newest = self.newest("dataset_splits")
        parent = newest.info["parent"] if newest else None
        alone |= {p for p, e in there.items() if e.artifact.name == "dataset_splits" and e.artifact.digest == parent}
        return live | alone


def _asset(prefix: str) -> str:
    return prefix.rstrip("/").rpartition("/")[0]


def released(history: History, times: int = 2) -> None:
    """Whole releases, ten weeks apart."""
    for _ in range(1, times + 1):
        history.take_in(1)
        history.split()
        history.train()
        history.package()
        history.deploy()
        history.now += timedelta(days=70)
