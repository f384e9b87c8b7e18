"""What a run's page and an asset's page show, read from the webserver's answers."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

RUN = "runId status jobName parentRunId rootRunId tags { key value } startTime"
METADATA = """metadataEntries { __typename label
  ... on TextMetadataEntry { text } ... on IntMetadataEntry { intRepr } ... on FloatMetadataEntry { floatValue }
  ... on BoolMetadataEntry { boolValue } ... on JsonMetadataEntry { jsonString } ... on MarkdownMetadataEntry { mdStr }
  ... on PathMetadataEntry { path } ... on UrlMetadataEntry { url } ... on TimestampMetadataEntry { timestamp }
  ... on PipelineRunMetadataEntry { runId } ... on AssetMetadataEntry { assetKey { path } }
  ... on TableMetadataEntry { table { records } } }"""
EVENTS = (
    """query Log($run: ID!, $cursor: String) {
  logsForRun(runId: $run, afterCursor: $cursor, limit: 1000) {
    ... on EventConnection { cursor hasMore events {
      __typename
      ... on MessageEvent { message level stepKey }
      ... on MaterializationEvent { assetKey { path } partition """
    + METADATA
    + """ }
      ... on AssetCheckEvaluationEvent { evaluation { checkName success severity description assetKey { path } } }
      ... on ExecutionStepFailureEvent { error { message } }
      ... on RunFailureEvent { error { message } }
    } } }
  runOrError(runId: $run) { ... on Run { """
    + RUN
    + """ } }
}"""
)


@dataclass
class RunLog:
    """A run and what its log says."""

    run_id: str
    status: str
    job: str
    parent: str | None
    tags: dict[str, str]
    started: bool
    lines: list[str] = field(default_factory=list)
    """what steps logged"""
    steps_started: list[str] = field(default_factory=list)
    materialized: list[str] = field(default_factory=list)
    """asset names, in order; NAME[PARTITION] where there is one"""
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    """{asset: metadata} of what was materialized"""
    checks: dict[str, bool] = field(default_factory=dict)
    """{asset.check: passed}"""
    failures: list[str] = field(default_factory=list)
    """messages of failed steps and of failed checks of severity ERROR"""

    @property
    def why(self) -> str:
        """Every failure's message."""
        return "\n".join(self.failures)


@dataclass(frozen=True)
class Materialization:
    """An entry of an asset's page."""

    run_id: str
    partition: str | None
    metadata: dict[str, Any]
    tags: dict[str, str]

    @property
    def version(self) -> str:
        """The data version."""
        return self.tags["dagster/data_version"]

    def version_of(self, upstream: str) -> str:
        """The data version of an upstream asset that was read."""
        return self.tags[f"dagster/input_data_version/{upstream}"]


def read_event(found: RunLog, event: dict[str, Any]) -> None:
    kind = event["__typename"]
    if kind == "LogMessageEvent":
        found.lines.append(event["message"])
    elif kind == "ExecutionStepStartEvent":
        found.steps_started.append(event["stepKey"])
    elif kind == "MaterializationEvent":
        name = event["assetKey"]["path"][-1]
        found.materialized.append(f"{name}[{event['partition']}]" if event["partition"] else name)
        found.metadata[name] = read_metadata(event["metadataEntries"])
    elif kind == "AssetCheckEvaluationEvent":
        checked = event["evaluation"]
        name = f"{checked['assetKey']['path'][-1]}.{checked['checkName']}"
        found.checks[name] = checked["success"]
        if not checked["success"] and checked["severity"] == "ERROR":
            found.failures.append(f"{name}: {checked['description']}")
    elif kind in ("ExecutionStepFailureEvent", "RunFailureEvent"):
        found.failures.append((event.get("error") or {}).get("message") or event["message"])


def read_metadata(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in entries:
        values = [value for key, value in entry.items() if key not in ("__typename", "label")]
        value = values[0] if values else None
        if entry["__typename"] == "JsonMetadataEntry":
            value = json.loads(value)
        elif entry["__typename"] == "TableMetadataEntry":
            value = [json.loads(record) for record in value["records"]]
        found[entry["label"]] = value
    return found


def read_tags(tags: Iterable[dict[str, str]]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in tags}
