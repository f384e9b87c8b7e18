"""Alerts (R176-R179, D10) and the sink that keeps them: one JSON object per alert in the artefact store, created once.

The store is the record and the place every channel reads from. Delivery to Slack, e-mail and PagerDuty (`monitoring.channels`) is not
part of this module: a channel takes `list_alerts` and sends what it has not sent yet.
"""

from contextlib import suppress
from datetime import date
from typing import Literal

from pydantic import Field

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
