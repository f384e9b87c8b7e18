"""Alerts (R176-R179, D10) and the sink that keeps them: one JSON object per alert in the artefact store, created once.

The store is the record and the place every channel reads from. Delivery to Slack, e-mail and PagerDuty (`monitoring.channels`) is not
part of this module: a channel takes `list_alerts` and sends what it has not sent yet.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from pipeline_project.contracts import Record
from pipeline_project.digests import canonical_json, digest_of
from pipeline_project.storage import AlreadyExistsError, ByteStore

Severity = Literal["pre_alert", "warning", "critical"]
PREFIX = "artifacts/alerts"


class Alert(Record):
    """One condition held against its threshold. `value` is None when too little is known for a verdict; then it has not fired."""

    version: Literal[1] = 1
    name: str = Field(min_length=1)
    severity: Severity
    value: float | None
    comparison: Literal["<", ">"]
    threshold: float
    fired: bool
    message: str
    facts: dict[str, str] = Field(default_factory=dict)
    """Of a failure: where it happened (run, job, asset, day, check), the next step, and the page to open."""

    @model_serializer(mode="wrap")
    def _without_empty_facts(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        value: dict[str, Any] = serialize(self)
        if not self.facts:  # reports hold alerts: theirs look as they always did
            del value["facts"]
        return value


def judge(
    name: str, severity: Severity, value: float | None, comparison: Literal["<", ">"], threshold: float, *, unit: str = "", note: str = ""
) -> Alert:
    """Hold a value against its threshold; fires when `value comparison threshold` is true.

    Args:
        value: None where too little is known.
        unit: is written behind the numbers.
        note: what a reader should know beside the numbers: the interval, the sample size, the next step.
    """
    if value is None:
        return Alert(
            name=name,
            severity=severity,
            value=None,
            comparison=comparison,
            threshold=threshold,
            fired=False,
            message=f"{name}: no verdict. {note}".strip(),
        )
    fired = value < threshold if comparison == "<" else value > threshold
    word = "is" if fired else "is not"
    message = f"{name} = {value:.4g}{unit} {word} {comparison} {threshold:g}{unit}. {note}".strip()
    return Alert(name=name, severity=severity, value=value, comparison=comparison, threshold=threshold, fired=fired, message=message)


def fault(where: str, reason: str) -> Alert:
    """The alert of something that could not be read or written (R184): the store, a log, a package, an upstream artefact."""
    name, message = f"storage_fault_{where}", f"{where}: {reason}"
    return Alert(name=name, severity="critical", value=1.0, comparison=">", threshold=0.0, fired=True, message=message)


def failure(name: str, severity: Severity, message: str, facts: Mapping[str, str]) -> Alert:
    """The alert of a run or a check that failed."""
    return Alert(name=name, severity=severity, value=1.0, comparison=">", threshold=0.0, fired=True, message=message, facts=dict(facts))


def tell(store: ByteStore, log: Path, moment: datetime, alert: Alert) -> None:
    """Keep an alert (see `raise_alert`) and append one line about it to a log for people; each alert stands there once.

    Args:
        log: is made where it does not exist yet.
        moment: when it happened, UTC; its day is the alert's.
    """
    identity = raise_alert(store, moment.date(), alert).rsplit("/", 1)[1].removesuffix(".json")[:16]
    log.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if f" {identity} " in log.read_text("utf-8"):
            return
    facts = " ".join(f"{key}={value}" for key, value in alert.facts.items())
    line = f"{moment:%Y-%m-%d %H:%M:%S} {alert.severity} {identity} {alert.name}: {alert.message} [{facts}]"
    with log.open("ab") as out:  # one write of one line: lines of two processes do not mix
        out.write(" ".join(line.split()).encode() + b"\n")


def raise_alert(store: ByteStore, day: date, alert: Alert) -> str:
    """Keep an alert that fired. The same alert of the same day is kept once. Returns its key.

    Raises:
        ValueError: the alert did not fire.
    """
    if not alert.fired:
        raise ValueError(f"{alert.name} did not fire; only alerts that fired are kept.")
    value = alert.model_dump(mode="json")
    key = f"{PREFIX}/{day.isoformat()}/{digest_of(value)}.json"
    with suppress(AlreadyExistsError):  # a report that is made again raises the same alerts again
        store.create(key, canonical_json(value))
    return key


def list_alerts(store: ByteStore, day: date | None = None) -> list[tuple[date, Alert]]:
    """Alerts that were raised, oldest day first, in the order of their keys; of one day when it is given."""
    prefix = f"{PREFIX}/{day.isoformat()}/" if day else f"{PREFIX}/"
    found = ((key.split("/")[-2], key) for key in store.list(prefix))
    return [(date.fromisoformat(folder), Alert.model_validate_json(store.read(key))) for folder, key in found]
