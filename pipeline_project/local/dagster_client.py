"""Dagster through its webserver's GraphQL API: the same launches as the UI's, with the run's progress told line by line."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

_LOCATION = {"repositoryLocationName": "pipeline_project", "repositoryName": "__repository__"}
_DONE = frozenset({"SUCCESS", "FAILURE", "CANCELED"})

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on InvalidSubsetError { message }
    ... on PipelineNotFoundError { message }
  }
}"""

_LOCATION_STATE = """
query Location($name: String!) {
  workspaceLocationEntryOrError(name: $name) {
    __typename
    ... on WorkspaceLocationEntry {
      loadStatus
      locationOrLoadError { __typename ... on PythonError { message } }
    }
  }
}"""

_EVENTS = """
query Events($run: ID!, $cursor: String) {
  logsForRun(runId: $run, afterCursor: $cursor, limit: 1000) {
    ... on EventConnection {
      cursor
      hasMore
      events {
        __typename
        ... on MessageEvent { message level stepKey }
        ... on MaterializationEvent { assetKey { path } partition }
        ... on AssetCheckEvaluationEvent {
          evaluation { checkName success severity description assetKey { path } }
        }
        ... on ExecutionStepFailureEvent { error { message } }
        ... on RunFailureEvent { error { message } }
        ... on EngineEvent { error { message } }
      }
    }
    ... on PythonError { message }
  }
  runOrError(runId: $run) { ... on Run { status } }
}"""


class DagsterError(ValueError):
    """The webserver refused a request, or a run did not succeed."""


@dataclass
class Run:
    """One launched run and what was seen of it so far. `failures` are the messages of failed steps and failed blocking checks."""

    run_id: str
    name: str
    status: str = "QUEUED"
    cursor: str | None = None
    materialized: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    engine_error: str | None = None
    """What kept Dagster itself from starting the run, such as a code location that does not load."""


class DagsterClient:
    """Launches runs and follows them.

    Args:
        url: of the webserver.
        say: takes one progress line at a time.
    """

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        self.url = url
        self._say = say
        self._client = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def wait_loaded(self, timeout_s: float = 120) -> None:
        """Wait until the code location is loaded: the webserver answers before that. Raises `DagsterError` when it does not load."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            entry = self.query(_LOCATION_STATE, {"name": _LOCATION["repositoryLocationName"]})["workspaceLocationEntryOrError"]
            found = (entry or {}).get("locationOrLoadError")
            if found and found["__typename"] == "PythonError":
                raise DagsterError(f"The code location does not load: {found['message']}")
            if found and entry.get("loadStatus") == "LOADED":
                return
            time.sleep(0.3)
        raise DagsterError(f"{self.url} has not loaded the code location within {timeout_s:g} s. Read the webserver's log.")

    def launch(self, job: str, *, partition: str | None = None, tags: Mapping[str, str] | None = None) -> Run:
        """Submit a run of a job to the queue. Raises `DagsterError`."""
        all_tags = {**(tags or {}), **({"dagster/partition": partition} if partition else {})}
        params = {
            "selector": {**_LOCATION, "jobName": job},
            "runConfigData": {},
            "mode": "default",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in all_tags.items()]},
        }
        answer = self.query(_LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            reasons = answer.get("message") or "; ".join(e["message"] for e in answer.get("errors", [])) or answer["__typename"]
            raise DagsterError(f"Dagster did not launch {job}: {reasons}")
        return Run(answer["run"]["runId"], f"{job} {partition}" if partition else job)

    def follow(self, runs: Sequence[Run], *, poll_s: float = 0.5) -> None:
        """Tell what the runs do until all have ended."""
        while True:
            for run in runs:
                if run.status not in _DONE:
                    self._advance(run)
            if all(run.status in _DONE for run in runs):
                return
            time.sleep(poll_s)

    def query(self, text: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """One GraphQL request. Raises `DagsterError` on any error it reports."""
        answer = self._client.post("/graphql", json={"query": text, "variables": variables})
        body = answer.json()
        if answer.status_code != 200 or body.get("errors"):
            raise DagsterError(f"{self.url}/graphql: {body.get('errors') or answer.status_code}")
        data: dict[str, Any] = body["data"]
        return data

    def _advance(self, run: Run) -> None:
        data = self.query(_EVENTS, {"run": run.run_id, "cursor": run.cursor})
        log = data["logsForRun"]
        for event in log.get("events", []):
            self._tell(run, event)
        run.cursor = log.get("cursor", run.cursor)
        status = data["runOrError"]["status"]
        if not log.get("hasMore"):
            if status in _DONE and status != run.status:
                self._say(f"{run.name}: {status.lower()}")
            run.status = status

    def _tell(self, run: Run, event: dict[str, Any]) -> None:
        kind = event["__typename"]
        if kind == "MaterializationEvent":
            name = "/".join(event["assetKey"]["path"])
            run.materialized.append(name)
            self._say(f"{run.name}: {name} materialized")
        elif kind == "AssetCheckEvaluationEvent":
            found = event["evaluation"]
            line = f"{'/'.join(found['assetKey']['path'])}.{found['checkName']}: {found['description']}"
            if not found["success"]:
                (run.failures if found["severity"] == "ERROR" else run.warnings).append(line)
                self._say(f"{run.name}: check {'failed' if found['severity'] == 'ERROR' else 'warns'}: {line}")
        elif kind == "EngineEvent" and event.get("error"):
            run.engine_error = event["error"]["message"].split("\n\nStack Trace:")[0]
        elif kind in ("ExecutionStepFailureEvent", "RunFailureEvent"):
            engine = run.engine_error if kind == "RunFailureEvent" and not run.failures else None
            message = (event.get("error") or {}).get("message") or engine or event["message"]
            run.failures.append(message.strip())
            self._say(f"{run.name}: {event.get('stepKey') or 'run'} failed: {message.strip()}")
        elif kind == "LogMessageEvent" and event["level"] == "INFO":
            self._say(f"{run.name}: {event['message'].rsplit(' - ', 1)[-1]}")
