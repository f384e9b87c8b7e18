"""What is live: which stored versions something still needs, and why. Read by `retention`; nothing is removed here.

Roots are the heads of all assets but caches, what was a head until lately, the packages of deployment documents that count, the newest
trained models. Whatever a root names by digest, in its record or in a JSON file of its payload, is live too, and so on: a reference that
nobody thought of keeps too much, never too little. The exceptions are listed in `HISTORY`.
"""

import json
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from pipeline_project.contracts import DesiredState, Environment, ReplicaReport
from pipeline_project.digests import canonical_json
from pipeline_project.governance import ledger
from pipeline_project.governance.stored import CACHES, Snapshot, Version, refuse, take_snapshot
from pipeline_project.serving.documents import history
from pipeline_project.settings.tree import RetentionSettings
from pipeline_project.stage import StageContext

REMOVABLE = (  # what uses others comes first: a removal that is interrupted leaves nothing without what it needs
    "audit_dossier",
    "ab_report",
    "performance_report",
    "drift_report",
    "ground_truth",
    "prediction_log",
    "batch_predictions",
    "model_package",
    "trained_model",
    "cross_validation_report",
    "cross_validation_fold",
    "tuned_hyperparameters",
    "data_profile",
    "dataset_splits",
    "image_features",
    "image_pack",
    "validated_manifest",
    "image_shard",
    "raw_images",
)
EVIDENCE = frozenset({"evaluation_report", "load_test_report", "release_gate", "registered_model", "staging_endpoint", "deployed_endpoint"})
"""Small, and what an auditor asks for: every version stays, also of packages that are gone. It keeps what it names only while its
package is live."""

HISTORY: Mapping[str, frozenset[str] | None] = {  # names of others that are told for the record: None for all, else these JSON keys
    "dataset_splits": frozenset({"parent"}),
    "batch_predictions": frozenset({"package"}),
    "raw_images": None,
    "data_profile": None,
    "prediction_log": None,
    "ground_truth": None,
    "drift_report": None,
    "performance_report": None,
    "ab_report": None,
    "audit_dossier": None,
}
_ENVIRONMENTS: tuple[Environment, ...] = ("staging", "production")
_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass
class Liveness:
    """`reasons`: why a version is a root. `needed_by`: for a version that is none, one live version that names it.

    `recent`: roots whose only reason is their age.
    """

    reasons: dict[str, list[str]] = field(default_factory=dict)
    needed_by: dict[str, str] = field(default_factory=dict)
    recent: set[str] = field(default_factory=set)

    def __contains__(self, prefix: object) -> bool:
        return prefix in self.reasons or prefix in self.needed_by

    def root(self, prefix: str, *reasons: str) -> None:
        """Count a version among the roots."""
        self.reasons.setdefault(prefix, []).extend(reasons)


class LivenessReader:
    """Tells what is live, any number of times: what a payload names is read once, because payloads do not change.

    Args:
        horizon: what was the newest version of its asset at this time or later is live.
    """

    def __init__(self, context: StageContext, horizon: datetime) -> None:
        self._artifacts = context.artifacts
        self._settings: RetentionSettings = context.settings.retention
        self._horizon = horizon
        self._named: dict[str, frozenset[str]] = {}

    def read(self) -> tuple[Snapshot, Liveness]:
        """The store as it is now, and what is live in it.

        Raises:
            RetentionError: a head, a record, a document or something live is damaged: what it keeps alive cannot be told.
            StoreError: the store cannot be read.
        """
        snapshot, live = take_snapshot(self._artifacts), Liveness()
        self._find_recent(snapshot, live)
        self._find_roots(snapshot, live)
        self._close(snapshot, live)
        return snapshot, live

    def _find_recent(self, snapshot: Snapshot, live: Liveness) -> None:
        """Versions that were the newest at the horizon or later: a run that read one then may still publish what names it."""
        assets: dict[tuple[str, str], list[Version]] = {}
        for version in snapshot.versions.values():
            assets.setdefault((version.name, version.partition), []).append(version)
        for asset, versions in assets.items():
            for version in versions:
                later = [other.pointed for other in versions if other.artifact and other.pointed > version.pointed]
                replaced = min(later, default=version.pointed) if version.artifact else version.pointed
                if max(replaced, version.made) >= self._horizon:
                    live.root(version.prefix, f"it was the newest, or made, after {self._horizon:%Y-%m-%d %H:%M}")
                elif asset not in snapshot.heads and version.artifact and version.name not in CACHES:
                    live.root(version.prefix, "its asset has lost its head")
        live.recent.update(live.reasons)

    def _find_roots(self, snapshot: Snapshot, live: Liveness) -> None:
        roots = Liveness()
        for (name, partition), prefix in snapshot.heads.items():
            if name not in CACHES:
                roots.root(prefix, f"newest {name}" + ("" if partition == "all" else f" of {partition}"))
        packages = [v for v in snapshot.versions.values() if v.name == "model_package"]
        for package, reasons in self._wanted_packages().items():
            for version in _referred([v for v in packages if v.prefix.endswith(f"/{package[:24]}/")], package, reasons[0]):
                roots.root(version.prefix, *reasons)
        models = [v for v in snapshot.versions.values() if v.name == "trained_model" and v.artifact]
        models.sort(key=lambda v: (v.made, v.prefix), reverse=True)
        for model in models[: self._settings.models]:
            roots.root(model.prefix, f"one of the {self._settings.models} newest trained models")
        in_ledger = self._named_by_ledger()
        for version in snapshot.versions.values():
            if version.name not in REMOVABLE and version.name not in EVIDENCE:
                roots.root(version.prefix, "an asset that housekeeping does not know")
            if version.name == "audit_dossier" and version.digest in in_ledger:
                roots.root(version.prefix, "named by the audit ledger")
        for prefix, reasons in roots.reasons.items():
            live.reasons[prefix] = reasons + live.reasons.get(prefix, [])
            live.recent.discard(prefix)

    def _wanted_packages(self) -> dict[str, list[str]]:
        """{package: why} of the deployment documents that count and of the replicas."""
        found: dict[str, list[str]] = {}
        for environment in _ENVIRONMENTS:
            try:
                documents = history(self._artifacts.bytes, environment)
            except ValueError as error:
                refuse(str(error), "Restore the document")
            reports = self._reports(environment)
            served = {report.document for report in reports}
            for index, document in enumerate(documents):
                ended = documents[index + 1].created if index + 1 < len(documents) else None
                reason = self._why_document(document, len(documents) - index, ended, served)
                if reason:
                    for route in document.routes:
                        found.setdefault(route.package, []).append(f"{reason} ({route.name})")
            for report in reports:
                for package in report.packages:
                    found.setdefault(package, []).append(f"served by {report.replica} of {environment}")
        return found

    def _why_document(self, document: DesiredState, place: int, ended: datetime | None, served: set[int]) -> str:
        name = f"document {document.number} of {document.environment}"
        if document.number in served:
            return f"{name}, which a replica serves"
        if place <= self._settings.documents:
            return f"{name}, one of the {self._settings.documents} newest"
        return f"{name}, in force after {self._horizon:%Y-%m-%d %H:%M}" if ended is None or ended >= self._horizon else ""

    def _reports(self, environment: Environment) -> list[ReplicaReport]:
        """What replicas said they serve, since the horizon: one that is silent for a while may still serve."""
        found = []
        for entry in self._artifacts.bytes.entries(f"artifacts/deployments/{environment}/replicas/"):
            if entry.modified < self._horizon:
                continue
            try:
                found.append(ReplicaReport.model_validate_json(self._artifacts.bytes.read(entry.key)))
            except FileNotFoundError:
                continue  # stopped in this moment
            except ValidationError as error:
                remedy = "Wait for the next report, or delete this one if its replica is gone"
                refuse(f"the replica's report {entry.key} is damaged: {error}", remedy)
        return found

    def _named_by_ledger(self) -> frozenset[str]:
        try:
            return frozenset().union(*(_digests(canonical_json(e.model_dump(mode="json"))) for e in ledger.entries(self._artifacts.bytes)))
        except ValueError as error:
            refuse(f"the audit ledger cannot be read: {error}", "Materialize audit_dossier: it names the first broken entry")

    def _close(self, snapshot: Snapshot, live: Liveness) -> None:
        """Add whatever a root needs, and what that needs, and so on."""
        by_folder: dict[str, list[Version]] = {}
        for version in snapshot.versions.values():
            by_folder.setdefault(version.prefix.split("/")[-2], []).append(version)
        about = self._evidence(snapshot)
        waiting = deque(sorted(live.reasons, key=lambda prefix: (prefix in live.recent, prefix)))  # the more telling reason first
        while waiting:
            holder = snapshot.versions[waiting.popleft()]
            if not holder.whole:
                if holder.prefix in live.recent:
                    continue  # somebody may be at work on it
                refuse(f"{holder} is needed but not whole in {holder.prefix}", f"Materialize {holder.name} again, or restore it")
            wanted = [v for digest in self._names(holder) for v in _referred(by_folder.get(digest[:24], []), digest, str(holder))]
            for version in sorted([*wanted, *about.get(holder.digest, [])], key=lambda v: v.prefix):
                if version.prefix not in live:
                    live.needed_by[version.prefix] = holder.prefix
                    waiting.append(version.prefix)
                elif version.prefix in live.recent:
                    live.recent.discard(version.prefix)
                    waiting.append(version.prefix)  # it must be whole
        self._keep_alone(snapshot, live, by_folder)

    def _keep_alone(self, snapshot: Snapshot, live: Liveness, by_folder: Mapping[str, Sequence[Version]]) -> None:
        """What stays without what it names: evidence, and the version that the check of the newest dataset version compares it with."""
        newest = snapshot.heads.get(("dataset_splits", "all"))
        artifact = snapshot.versions[newest].artifact if newest else None
        parent = str(artifact.info.get("parent") or "") if artifact else ""
        for version in by_folder.get(parent[:24], []):
            if newest and version.name == "dataset_splits" and version.prefix not in live:
                live.needed_by[version.prefix] = newest
        for version in snapshot.versions.values():
            if version.name in EVIDENCE and version.artifact and version.prefix not in live:
                live.root(version.prefix, "evidence of releases is never removed")

    def _evidence(self, snapshot: Snapshot) -> dict[str, list[Version]]:
        """{package: its reports, verdicts, registrations and deployments}."""
        packages = {v.digest for v in snapshot.versions.values() if v.artifact and v.name == "model_package"}
        found: dict[str, list[Version]] = {}
        for version in snapshot.versions.values():
            if version.name not in EVIDENCE or version.artifact is None:
                continue
            if version.whole:
                for digest in self._names(version) & packages:
                    found.setdefault(digest, []).append(version)
            elif version.pointed < self._horizon:
                refuse(f"{version} is not whole in {version.prefix}", f"Materialize {version.name} again, or restore it")
        return found

    def _names(self, version: Version) -> frozenset[str]:
        """The digests that a version's record and JSON files name, but for those told for the record only."""
        artifact, ignored = version.artifact, HISTORY.get(version.name, frozenset())
        if artifact is None or ignored is None:
            return frozenset()
        if version.prefix not in self._named:
            found: set[str] = set()
            try:
                for file in artifact.files:
                    if file.endswith(".json"):
                        found |= _digests(_without(artifact.read(file), ignored))
            except (ValueError, FileNotFoundError) as error:
                refuse(f"{version} cannot be read: {error}", f"Materialize {version.name} again, or restore it")
            self._named[version.prefix] = frozenset(found)
        return self._named[version.prefix] | _digests(_without(canonical_json(dict(artifact.info)), ignored))


def _referred(found: Sequence[Version], digest: str, holder: str) -> list[Version]:
    """The versions that a digest names. Raises `RetentionError` when all that is left of it is files without a record."""
    recorded = [v for v in found if v.digest == digest]
    if found and not recorded and any(v.artifact is None for v in found):
        refuse(f"{holder} needs {found[0]}, whose record is gone", f"Restore {found[0].prefix}artifact.json, or make it again")
    return recorded


def _digests(data: bytes) -> frozenset[str]:
    return frozenset(found.decode() for found in _DIGEST.findall(data))


def _without(data: bytes, keys: frozenset[str]) -> bytes:
    """A JSON object without some of its keys."""
    if not keys:
        return data
    value: Any = json.loads(data)
    return canonical_json({key: below for key, below in value.items() if key not in keys}) if isinstance(value, dict) else data
