"""How a stage step becomes an asset and a stage check an asset check. Everything Dagster-shaped that assets share is here."""

import base64
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from importlib import import_module
from types import NoneType
from typing import Any, TypedDict

import dagster as dg

from pipeline_project.defs.errors import FAILURE_KIND, OUT_OF_REACH, WRONG_INPUT, out_of_reach, user_errors
from pipeline_project.defs.resources import project_settings
from pipeline_project.stage import CheckOutcome, Markdown, Metadata, Picture, StageContext, StepResult, Table

DAYS = dg.DailyPartitionsDefinition(start_date=project_settings().data.start_date.isoformat(), end_offset=1)
"""One partition a UTC day, today included."""


class _DailyArguments(TypedDict):
    partitions_def: dg.DailyPartitionsDefinition
    backfill_policy: dg.BackfillPolicy


DAILY: _DailyArguments = {"partitions_def": DAYS, "backfill_policy": dg.BackfillPolicy.multi_run(max_partitions_per_run=1)}
"""Arguments of an asset with a partition a day; a range of days is a run for each."""

STORE_RETRIES = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL)
"""For steps that wait for a store or a server: such faults pass. Bad data fails at once, see `user_errors`."""

TRAINING_RETRIES = dg.RetryPolicy(max_retries=1, delay=30)
"""For steps of minutes or hours: a fault that does not pass in half a minute is not worth the same work a third time."""

DATASET_POOL, TRAINING_POOL, DEPLOYMENT_POOL = "dataset", "training", "deployment"
"""Steps of a pool wait for each other, whichever runs they belong to; dagster.yaml says how many may run at once."""

DATA_TEAM, ML_TEAM, OPS_TEAM = "team:data", "team:ml", "team:operations"


def day_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> date:
    """The day partition of a step."""
    return date.fromisoformat(context.partition_key)


RECOMPUTE_TAG = "recompute"
"""A run with this tag set to "true" makes everything anew, whatever could be reused."""


def stage_context(context: Any) -> StageContext:
    """Settings and store for a step, its progress lines in the run's log. What it publishes names the run."""
    run = getattr(context, "run", None)
    recompute = run is not None and run.tags.get(RECOMPUTE_TAG, "").lower() == "true"
    return StageContext.open(project_settings(), context.log.info, run=run.run_id if run else None, recompute=recompute)


def run_step(context: dg.AssetExecutionContext, step: Callable[..., StepResult], *arguments: Any) -> dg.MaterializeResult[None]:
    """Call a stage step and report what it published."""
    with user_errors():
        return materialized(step(stage_context(context), *arguments))


def materialized(result: StepResult) -> dg.MaterializeResult[None]:
    """A step's result with its payload digest as the data version."""
    return dg.MaterializeResult(metadata=step_metadata(result), data_version=dg.DataVersion(result.artifact.digest))


_ALWAYS_MADE: dict[str, Any] = {"reused": False, "reuse_reason": "always made: it looks outside of the store, decides, or costs little"}
"""Of steps that have no recipe; a reusable step says its own."""


def step_metadata(result: StepResult) -> dict[str, Any]:
    """What the UI shows of a step: its own metadata, then where the payload lies."""
    shown = to_dagster({**_ALWAYS_MADE, **result.metadata})
    return {**shown, "payload_digest": result.artifact.digest, "dagster/uri": result.artifact.uri}


def asset_checks(
    asset: str,
    check: str,
    names: Mapping[str, str],
    *,
    blocking: frozenset[str] = frozenset(),
    daily: bool = False,
) -> dg.AssetChecksDefinition:
    """All checks of one asset as one step.

    Args:
        asset: the asset's name.
        check: "module:function" of a stage check, imported when it runs: loading the graph must not load what checks need. It is called
            with a `StageContext`, and the day if `daily`.
        names: {check name: description}, exactly what `check` gives.
        blocking: names whose failure stops what is downstream in the same run.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitions of checks are new in Dagster; a check without one shows no day
        specs = [
            dg.AssetCheckSpec(name, asset=asset, description=text, blocking=name in blocking, partitions_def=DAYS if daily else None)
            for name, text in names.items()
        ]

    # Subsets: the UI executes a check alone only where it may be chosen alone.
    @dg.multi_asset_check(name=f"{asset}_checks", specs=specs, can_subset=True)
    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        try:
            outcomes = stage_check(check)(stage_context(context), *([day_of(context)] if daily else []))
        except (ValueError, OSError) as error:  # a check that raises would leave no evaluation
            why = {FAILURE_KIND: OUT_OF_REACH if out_of_reach(error) else WRONG_INPUT}
            outcomes = [CheckOutcome(name, False, f"could not be checked: {error}", why) for name in names]
        chosen = {key.name for key in context.selected_asset_check_keys}
        for outcome in outcomes:
            if outcome.name not in chosen:
                continue
            severity = dg.AssetCheckSeverity.ERROR if outcome.name in blocking else dg.AssetCheckSeverity.WARN
            metadata = to_dagster(outcome.metadata)
            yield dg.AssetCheckResult(
                asset_key=asset,
                check_name=outcome.name,
                passed=outcome.passed,
                severity=severity,
                description=outcome.detail,
                metadata=metadata,
            )

    return checks


def stage_check(name: str) -> Callable[..., list[CheckOutcome]]:
    """The function that "module:function" names, the module below `pipeline_project`."""
    module, _, function = name.partition(":")
    found: Callable[..., list[CheckOutcome]] = getattr(import_module(f"pipeline_project.{module}"), function)
    return found


def to_dagster(metadata: Metadata) -> dict[str, Any]:
    """Stage metadata as Dagster shows it: tables, pictures in place, JSON."""
    return {name: _value(value) for name, value in metadata.items()}


def _value(value: Any) -> Any:
    if isinstance(value, Picture):
        data = base64.b64encode(value.data).decode()
        return dg.MetadataValue.md(f"![](data:{value.media_type};base64,{data})")
    if isinstance(value, Table):
        columns = list(value.rows[0]) if value.rows else []
        records = [dg.TableRecord({k: _cell(v) for k, v in row.items()}) for row in value.rows]
        schema = dg.TableSchema(columns=[dg.TableColumn(c, _type([row[c] for row in value.rows])) for c in columns])
        return dg.MetadataValue.table(records=records, schema=schema)
    if isinstance(value, Markdown):
        return dg.MetadataValue.md(value.text)
    if isinstance(value, Mapping):
        return dg.MetadataValue.json(dict(value))
    return value if isinstance(value, str | bool | int | float | NoneType) else dg.MetadataValue.json(list(value))


def _cell(value: Any) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _type(values: list[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return "int"
    return "float" if kinds and kinds <= {int, float} else "string"
