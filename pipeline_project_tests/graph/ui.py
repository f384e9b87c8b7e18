"""What a person does in Dagster's UI, as the same GraphQL operations that its pages send (dagster-webserver 1.13)."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from pipeline_project_tests.graph.pages import EVENTS, METADATA, RUN, Materialization, RunLog, read_event, read_metadata, read_tags

REPOSITORY = {"repositoryLocationName": "pipeline_project", "repositoryName": "__repository__"}
ASSET_JOB = "__ASSET_JOB"  # the implicit job behind every "Materialize" button
DONE = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
BACKFILL_DONE = frozenset({"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"})

_PROBLEM = "... on Error { message } ... on RunConfigValidationInvalid { errors { message } }"


class RefusedError(Exception):
    """The webserver refused a request; the message is what the UI would show."""


class Ui:
    """A webserver, as a browser uses it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def ask(self, text: str, **variables: Any) -> dict[str, Any]:
        answer = self._client.post("/graphql", json={"query": text, "variables": variables})
        body = answer.json()
        if body.get("errors"):
            raise RefusedError(json.dumps(body["errors"]))
        data: dict[str, Any] = body["data"]
        return data

    # What the buttons do

    def materialize(
        self,
        *assets: str,
        partition: str | None = None,
        tags: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
        checks: bool = True,
    ) -> str:
        """ "Materialize selected": the assets with their checks, in the implicit asset job. Returns the run's id."""
        selector = {
            **REPOSITORY,
            "pipelineName": ASSET_JOB,
            "assetSelection": [_key(asset) for asset in assets],
            "assetCheckSelection": [_check(asset, name) for asset in assets for name in self.checks_of(asset)] if checks else [],
        }
        return self._launch(selector, partition, tags, config)

    def run_checks(self, asset: str, *names: str, partition: str | None = None) -> str:
        """ "Execute" on an asset's checks page: checks alone."""
        selector = {
            **REPOSITORY,
            "pipelineName": ASSET_JOB,
            "assetSelection": [],
            "assetCheckSelection": [_check(asset, name) for name in names or self.checks_of(asset)],
        }
        return self._launch(selector, partition, None, None)

    def launch_job(
        self, job: str, *, config: dict[str, Any] | None = None, partition: str | None = None, tags: dict[str, str] | None = None
    ) -> str:
        """The launchpad of a job."""
        return self._launch({**REPOSITORY, "pipelineName": job}, partition, tags, config)

    def ops_of(self, job: str) -> list[str]:
        """The ops of a job, as its launchpad scaffolds their config."""
        query = "query Ops($params: PipelineSelector!) { pipelineOrError(params: $params) { ... on Pipeline { solids { name } } } }"
        return [op["name"] for op in self.ask(query, params={**REPOSITORY, "pipelineName": job})["pipelineOrError"]["solids"]]

    def backfill(self, assets: Sequence[str], partitions: Sequence[str], tags: dict[str, str] | None = None) -> str:
        """ "Launch backfill" for a range of days. Returns the backfill's id."""
        params = {
            "tags": _tags(tags),
            "assetSelection": [_key(asset) for asset in assets],
            "partitionNames": list(partitions),
            "fromFailure": False,
        }
        query = f"""mutation LaunchPartitionBackfill($params: LaunchBackfillParams!) {{ launchPartitionBackfill(backfillParams: $params) {{
          __typename ... on LaunchBackfillSuccess {{ backfillId }} {_PROBLEM} }} }}"""
        answer = _succeeded(self.ask(query, params=params)["launchPartitionBackfill"], "LaunchBackfillSuccess")
        return str(answer["backfillId"])

    def reexecute(self, run_id: str, strategy: str = "FROM_FAILURE") -> str:
        """ "Re-execute" on a run's page: FROM_FAILURE, FROM_ASSET_FAILURE or ALL_STEPS."""
        query = f"""mutation LaunchPipelineReexecution($params: ReexecutionParams!) {{
          launchPipelineReexecution(reexecutionParams: $params) {{
          __typename ... on LaunchRunSuccess {{ run {{ runId }} }} {_PROBLEM} }} }}"""
        params = {"parentRunId": run_id, "strategy": strategy}
        answer = _succeeded(self.ask(query, params=params)["launchPipelineReexecution"], "LaunchRunSuccess")
        return str(answer["run"]["runId"])

    def terminate(self, run_id: str) -> None:
        """ "Terminate" on a run's page."""
        query = f"""mutation Terminate($runIds: [String!]!, $policy: TerminateRunPolicy) {{
          terminateRuns(runIds: $runIds, terminatePolicy: $policy) {{ __typename
          ... on TerminateRunsResult {{ terminateRunResults {{ __typename {_TERMINATION} }} }} ... on PythonError {{ message }} }} }}"""
        answer = self.ask(query, runIds=[run_id], policy="SAFE_TERMINATE")["terminateRuns"]
        for result in _succeeded(answer, "TerminateRunsResult")["terminateRunResults"]:
            _succeeded(result, "TerminateRunSuccess")

    def switch(self, name: str, on: bool) -> None:
        """The switch of a sensor or schedule on the automation page."""
        state = self.instigators()[name]
        sensor = state["kind"] == "sensor"
        if on:
            selector = {**REPOSITORY, "sensorName" if sensor else "scheduleName": name}
            operation, type_ = (
                ("startSensor(sensorSelector", "SensorSelector") if sensor else ("startSchedule(scheduleSelector", "ScheduleSelector")
            )
            value: Any = selector
        else:
            operation, type_ = ("stopSensor(id", "String") if sensor else ("stopRunningSchedule(id", "String")
            value = state["id"]
        query = f"mutation Switch($value: {type_}!) {{ done: {operation}: $value) {{ __typename ... on Error {{ message }} }} }}"
        answer = self.ask(query, value=value)["done"]
        if answer["__typename"].endswith("Error"):
            raise RefusedError(answer["message"])

    # What the pages show

    def log(self, run_id: str) -> RunLog:
        """A run's page."""
        cursor, events = None, []
        while True:
            data = self.ask(EVENTS, run=run_id, cursor=cursor)
            page = data["logsForRun"]
            events += page["events"]
            cursor = page["cursor"]
            if not page["hasMore"]:
                break
        run = data["runOrError"]
        found = RunLog(run_id, run["status"], run["jobName"], run["parentRunId"], read_tags(run["tags"]), run["startTime"] is not None)
        for event in events:
            read_event(found, event)
        return found

    def wait(self, *run_ids: str, timeout_s: float = 240) -> list[RunLog]:
        """The runs once they have ended."""
        query = "query Status($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"
        deadline = time.monotonic() + timeout_s
        waiting = list(run_ids)
        while waiting:
            waiting = [run for run in waiting if self.ask(query, run=run)["runOrError"]["status"] not in DONE]
            if waiting and time.monotonic() > deadline:
                raise TimeoutError(f"runs {waiting} have not ended within {timeout_s:g} s: {self.log(waiting[0])}")
            time.sleep(0.2)
        return [self.log(run) for run in run_ids]

    def wait_until(self, run_id: str, seen: Callable[[RunLog], bool], timeout_s: float = 120) -> RunLog:
        """A run's page once it shows something; an ended run that never did is an error."""
        deadline = time.monotonic() + timeout_s
        while True:
            log = self.log(run_id)
            if seen(log):
                return log
            if log.status in DONE or time.monotonic() > deadline:
                raise TimeoutError(f"what was waited for did not show: {log}")
            time.sleep(0.1)

    def wait_backfill(self, backfill_id: str, timeout_s: float = 300) -> dict[str, Any]:
        """A backfill's page once it has ended: status, and its runs with partition and status."""
        query = """query Backfill($id: String!) { partitionBackfillOrError(backfillId: $id) {
          __typename ... on PartitionBackfill { status error { message } runs(limit: 100) { runId status tags { key value } } }
          ... on Error { message } } }"""
        deadline = time.monotonic() + timeout_s
        while True:
            found: dict[str, Any] = _succeeded(self.ask(query, id=backfill_id)["partitionBackfillOrError"], "PartitionBackfill")
            if found["status"] in BACKFILL_DONE:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"backfill {backfill_id} has not ended: {found}")
            time.sleep(0.3)

    def materializations(self, asset: str, partition: str | None = None, limit: int = 50) -> list[Materialization]:
        """An asset's page, newest first."""
        query = f"""query Events($key: AssetKeyInput!, $partitions: [String!], $limit: Int) {{ assetOrError(assetKey: $key) {{
          ... on Asset {{ assetMaterializations(partitions: $partitions, limit: $limit) {{
          runId partition tags {{ key value }} {METADATA} }} }} }} }}"""
        found = self.ask(query, key=_key(asset), partitions=[partition] if partition else None, limit=limit)["assetOrError"]
        return [
            Materialization(event["runId"], event["partition"], read_metadata(event["metadataEntries"]), read_tags(event["tags"]))
            for event in found.get("assetMaterializations", [])
        ]

    def checks_of(self, asset: str) -> list[str]:
        """The names of an asset's checks."""
        query = """query Checks($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
          assetChecksOrError { ... on AssetChecks { checks { name } } } } } }"""
        return [check["name"] for check in self.ask(query, key=_key(asset))["assetNodeOrError"]["assetChecksOrError"]["checks"]]

    def check_executions(self, asset: str, check: str, limit: int = 20) -> list[dict[str, Any]]:
        """A check's history, newest first: run id, status, evaluation."""
        query = """query Executions($key: AssetKeyInput!, $check: String!, $limit: Int!) {
          assetCheckExecutions(assetKey: $key, checkName: $check, limit: $limit) {
          runId status partition evaluation { success description severity } } }"""
        found: list[dict[str, Any]] = self.ask(query, key=_key(asset), check=check, limit=limit)["assetCheckExecutions"]
        return found

    def downstream(self, asset: str) -> list[str]:
        """The UI's selection `key:"ASSET"+`: the asset and all that depends on it."""
        nodes = self.ask("{ assetNodes { assetKey { path } dependedByKeys { path } } }")["assetNodes"]
        below = {node["assetKey"]["path"][-1]: [key["path"][-1] for key in node["dependedByKeys"]] for node in nodes}
        found, todo = [], [asset]
        while todo:
            name = todo.pop(0)
            if name not in found:
                found.append(name)
                todo += below[name]
        return found

    def stale(self, days: Sequence[str] = ()) -> dict[str, list[str]]:
        """{asset or asset[day]: reasons} of what the graph shows as "Unsynced", for assets without partitions and for the given days."""
        query = """query Stale { assetNodes { assetKey { path } isPartitioned staleCauses { category reason key { path } } } }"""
        daily = """query StaleDays($key: AssetKeyInput!, $days: [String!]) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
          staleCausesByPartition(partitions: $days) { category reason key { path } } } } }"""
        found: dict[str, list[dict[str, Any]]] = {}
        for node in self.ask(query)["assetNodes"]:
            name = node["assetKey"]["path"][-1]
            if not node["isPartitioned"]:
                found[name] = node["staleCauses"]
            elif days:
                answer = self.ask(daily, key=_key(name), days=list(days))["assetNodeOrError"]["staleCausesByPartition"]
                found |= {f"{name}[{day}]": causes for day, causes in zip(days, answer, strict=True)}
        return {
            name: [f"{cause['category']} {'/'.join(cause['key']['path'])}: {cause['reason']}" for cause in causes]
            for name, causes in found.items()
            if causes
        }

    def runs(self, **tags: str) -> list[dict[str, Any]]:
        """The runs page, newest first, filtered by tags."""
        query = f"""query Runs($filter: RunsFilter) {{ runsOrError(filter: $filter, limit: 100) {{
          ... on Runs {{ results {{ {RUN} }} }} }} }}"""
        found: list[dict[str, Any]] = self.ask(query, filter={"tags": _tags(tags)})["runsOrError"]["results"]
        return found

    def instigators(self) -> dict[str, dict[str, Any]]:
        """The automation page: {name: {kind, id, status, default}} of sensors and schedules."""
        query = """query Automation($repository: RepositorySelector!) {
          sensorsOrError(repositorySelector: $repository) { ... on Sensors {
            results { name defaultStatus state: sensorState { id status } } } }
          schedulesOrError(repositorySelector: $repository) { ... on Schedules {
            results { name defaultStatus state: scheduleState { id status } } } }
        }"""
        data = self.ask(query, repository=REPOSITORY)
        return {
            found["name"]: {"kind": kind, "id": found["state"]["id"], "status": found["state"]["status"], "default": found["defaultStatus"]}
            for kind, root in (("sensor", "sensorsOrError"), ("schedule", "schedulesOrError"))
            for found in data[root]["results"]
        }

    def ticks(self, name: str, limit: int = 20) -> list[dict[str, Any]]:
        """A sensor's or schedule's ticks, newest first."""
        query = """query Ticks($selector: InstigationSelector!, $limit: Int) {
          instigationStateOrError(instigationSelector: $selector) { __typename ... on Error { message }
          ... on InstigationState { ticks(limit: $limit) { status runIds skipReason error { message } } } } }"""
        answer = self.ask(query, selector={**REPOSITORY, "name": name}, limit=limit)["instigationStateOrError"]
        found: list[dict[str, Any]] = _succeeded(answer, "InstigationState")["ticks"]
        return found

    def claimed_slots(self) -> dict[str, list[str]]:
        """{pool: run ids that hold a slot or wait for one} of pools in use."""
        query = "{ instance { concurrencyLimits { concurrencyKey claimedSlots { runId } pendingSteps { runId } } } }"
        return {
            pool["concurrencyKey"]: [step["runId"] for step in (*pool["claimedSlots"], *pool["pendingSteps"])]
            for pool in self.ask(query)["instance"]["concurrencyLimits"]
            if pool["claimedSlots"] or pool["pendingSteps"]
        }

    def _launch(self, selector: dict[str, Any], partition: str | None, tags: dict[str, str] | None, config: dict[str, Any] | None) -> str:
        params = {
            "mode": "default",
            "selector": selector,
            "runConfigData": json.dumps(config or {}),
            "executionMetadata": {"tags": _tags({**(tags or {}), **({"dagster/partition": partition} if partition else {})})},
        }
        query = f"""mutation LaunchPipelineExecution($executionParams: ExecutionParams!) {{
          launchPipelineExecution(executionParams: $executionParams) {{
          __typename ... on LaunchRunSuccess {{ run {{ runId }} }} {_PROBLEM} }} }}"""
        answer = _succeeded(self.ask(query, executionParams=params)["launchPipelineExecution"], "LaunchRunSuccess")
        return str(answer["run"]["runId"])


_TERMINATION = "... on Error { message } ... on TerminateRunFailure { message }"


def _succeeded(answer: dict[str, Any], type_: str) -> dict[str, Any]:
    if answer["__typename"] != type_:
        reasons = answer.get("message") or "; ".join(error["message"] for error in answer.get("errors", []))
        raise RefusedError(f"{answer['__typename']}: {reasons}")
    return answer


def _key(asset: str) -> dict[str, list[str]]:
    return {"path": [asset]}


def _check(asset: str, name: str) -> dict[str, Any]:
    return {"assetKey": _key(asset), "name": name}


def _tags(tags: dict[str, str] | None) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in (tags or {}).items()]
