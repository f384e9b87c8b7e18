"""A trace as lines for a terminal: aligned, digests and run ids short, what does not hold named at the end."""

from collections.abc import Iterable
from datetime import datetime

from pipeline_project.governance.trace import Consent, Trace
from pipeline_project.governance.trace_log import Answer

_SHORT = 12


def render_trace(trace: Trace) -> str:
    """The whole text. Characters that a terminal would obey are shown as question marks."""
    newest = trace.answers[0]
    parts = [
        _part(f"request {trace.request_id}", [("found in", _place(trace)), *_answer(newest)]),
        _repeats(trace.answers[1:]),
        _part("model", _model(trace)),
        _part("deployment", _deployment(trace)),
        _part("approvals", [(consent.kind, _consent(consent)) for consent in trace.consents]),
        _part("image", _image(trace)),
        _chain(trace),
        _part("audit ledger", [(f"entry {n.number}", f"{_time(n.time)}  {n.action} by {n.actor}{_run(n.run)}") for n in trace.ledger]),
        _part("notes", [("", note) for note in trace.notes]),
        _verdict(trace),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _place(trace: Trace) -> str:
    found = trace.found
    if found.where == "segments":
        return f"the segments of {found.day}, not compacted yet"
    return f"prediction_log of {found.day}, digest {_short(found.digest)}{_run(found.run)}"


def _answer(answer: Answer) -> list[tuple[str, str]]:
    said = (
        f"{answer.predicted_class}, confidence {answer.confidence:.4f}" if answer.predicted_class and answer.confidence else "no prediction"
    )
    return [
        ("time", _time(answer.time)),
        ("answer", f"{said} (status {answer.status}, {answer.latency_ms:.1f} ms)"),
        ("environment", f"{answer.environment}, route {answer.route}"),
        ("logged by", f"worker {answer.worker}, record {answer.sequence}"),
    ]


def _repeats(answers: Iterable[Answer]) -> str:
    rows = [
        (_time(a.time), f"{a.predicted_class or f'status {a.status}'} by package {_short(a.package)}, {a.environment}") for a in answers
    ]
    return _part("the same id was answered before, on that day", rows)


def _model(trace: Trace) -> list[tuple[str, str]]:
    registered, truth = trace.registration, trace.truth
    version = f"{registered.model_name} version {registered.model_version}{_run(registered.run)}" if registered else "not registered"
    reported = f"{truth.label}, from {truth.source} at {_time(truth.received)}" if truth else "not reported"
    return [
        ("package", trace.package),
        ("registry", version),
        ("MLflow run", trace.mlflow_run_id or "not recorded"),
        ("code (git)", trace.git_commit or "not recorded"),
        ("true label", reported),
    ]


def _deployment(trace: Trace) -> list[tuple[str, str]]:
    found = trace.deployment
    rows = [("document", f"{found.number} of {found.environment}, digest {_short(found.digest)}{_run(found.run)}")]
    if found.created is not None:
        rows.append(("written", f"{_time(found.created)} by {found.author}: {found.reason}"))
    if found.weight is not None:
        rows.append(("weight", f"{found.weight:.2f} of the traffic"))
    return rows + ([("BROKEN", found.problem)] if found.problem else [])


def _consent(consent: Consent) -> str:
    of = f" {_short(consent.subject)}" if consent.subject else ""
    if consent.state == "approved" and consent.created is not None:
        return f"{of[1:]}  {consent.approver} on {_time(consent.created)}: {consent.reason} (key {consent.key_id})"
    words = {
        "first value": "the first value, accepted without a person",
        "missing": "MISSING: no approval that counts now",
        "not recorded": "not recorded by artefacts of this age",
    }
    return f"{of[1:]}  {words.get(consent.state, consent.state)}".strip()


def _image(trace: Trace) -> list[tuple[str, str]]:
    image = trace.image
    rows = [("image", image.image_id or "none"), (image.state, image.detail)]
    rows += [(name, str(value)) for name, value in (("object", image.key), ("label", image.label), ("day", image.day)) if value is not None]
    rows += [(name, value) for name, value in (("ETag", image.etag), ("pack", _short(image.pack) + _run(image.pack_run))) if value]
    return rows + ([("BROKEN", image.problem)] if image.problem else [])


def _chain(trace: Trace) -> str:
    rows = [
        (hop.name, _short(hop.digest), hop.made or "", hop.run or "", f"BROKEN: {hop.problem}" if hop.problem else "") for hop in trace.hops
    ]
    return _columns("behind the package (each digest computed again)", [("", "digest", "made", "run", ""), *rows])


def _verdict(trace: Trace) -> str:
    problems = trace.problems()
    if problems:
        return "\n".join(["THE CHAIN IS BROKEN:", *(f"  {_plain(problem)}" for problem in problems)])
    days = sum(hop.name.startswith("inventory of") for hop in trace.hops)
    return f"Every link holds, from the answer back to the photos of {days} {'day' if days == 1 else 'days'}."


def _part(title: str, rows: list[tuple[str, str]]) -> str:
    return _columns(title, rows) if rows else ""


def _columns(title: str, rows: "list[tuple[str, str]] | list[tuple[str, str, str, str, str]]") -> str:
    cells = [[_plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([_plain(title), *(f"  {line}" for line in lines)])


def _run(run: str | None) -> str:
    return f", run {run[:8]}" if run else ""


def _short(digest: str | None) -> str:
    return digest[:_SHORT] if digest else ""


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _plain(text: str) -> str:
    """Text of others on a terminal: one line, no control characters."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))
