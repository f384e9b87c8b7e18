"""The dossier as Markdown that an auditor reads from the top."""

import re
from collections.abc import Mapping, Sequence
from typing import Any


def render(dossier: Mapping[str, Any]) -> str:
    """The whole text, with a table of contents. Deterministic; the time of making is not in it."""
    sections = {
        "Summary": _summary(dossier),
        "Chain of evidence": _links(dossier["links"]),
        "Deployment": _document(dossier["document"]),
        "Approvals": _approvals(dossier["approvals"]),
        "Quality gates": _gates(dossier["verdict"]),
        "Evaluation": _evaluation(dossier["evaluation"]),
        "Data": _data(dossier["dataset"]),
        "Model and code": _model(dossier),
        "Deployment history": _history(dossier["history"]),
        "Audit ledger": _ledger(dossier["ledger"]),
    }
    contents = [f"{number}. [{title}](#{_anchor(title)})" for number, title in enumerate(sections, start=1)]
    body = [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join([f"# Audit dossier of package {dossier['package']['digest'][:12]}", "\n".join(contents), *body]) + "\n"


def _summary(dossier: Mapping[str, Any]) -> str:
    broken = [link for link in dossier["links"] if link["problem"]]
    verdict, evaluation = dossier["verdict"], dossier["evaluation"]
    accuracy = evaluation["performance"].get("accuracy") if evaluation else None
    rows = [
        ["package", f"`{dossier['package']['digest']}`"],
        ["signed by", dossier["package"]["signer"] or "not verified"],
        ["serves since document", f"{dossier['document']['number']} of {dossier['document']['environment']}"],
        ["verdict of the gates", "none found" if verdict is None else ("passed" if verdict["passed"] else "NOT passed")],
        ["test accuracy", "not found" if accuracy is None else _estimate(accuracy)],
        ["chain of evidence", "intact" if not broken else f"BROKEN at: {broken[0]['name']}: {broken[0]['problem']}"],
    ]
    return _table(["", ""], rows)


def _links(links: Sequence[Mapping[str, Any]]) -> str:
    rows = [[link["name"], f"`{link['digest'][:16]}`" if link["digest"] else "", link["problem"] or "holds"] for link in links]
    return "Each artefact named here was found, and its digest computed again.\n\n" + _table(["link", "digest", "state"], rows)


def _document(document: Mapping[str, Any]) -> str:
    rows = [[route["name"], f"`{route['package'][:16]}`", f"{route['weight']:.2f}"] for route in document["routes"]]
    head = f"Document {document['number']}, written {document['created']} by {document['author']}: {document['reason']}"
    return f"{head}\n\n{_table(['route', 'package', 'weight'], rows)}"


def _approvals(approvals: Sequence[Mapping[str, Any]]) -> str:
    rows = [[a["created"], a["kind"], f"`{a['subject'][:16]}`", a["approver"], a["reason"]] for a in approvals]
    return _table(["time", "kind", "subject", "approver", "reason"], rows) if rows else "There is no valid approval."


def _gates(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "No verdict on this package was found."
    rows = [
        [gate["gate"], m["name"], f"{m['value']:.4g}", f"{m['comparison']} {m['threshold']:g}", "met" if m["passed"] else "MISSED"]
        for gate in verdict["gates"]
        for m in gate["measurements"]
    ]
    rows += [
        [gate["gate"], "", "", "", "passed" if gate["passed"] else "NOT passed"] for gate in verdict["gates"] if not gate["measurements"]
    ]
    return _table(["gate", "measurement", "value", "threshold", "result"], rows)


def _evaluation(evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        return "No evaluation report was found."
    performance = evaluation["performance"]
    scores = [[name, _estimate(value)] for name, value in performance.items() if isinstance(value, Mapping) and "value" in value]
    classes = [
        [name, _estimate(c["precision"]), _estimate(c["recall"]), _estimate(c["f1"])] for name, c in performance.get("classes", {}).items()
    ]
    text = f"{evaluation['images']} test images.\n\n{_table(['score', 'value'], scores)}"
    return text + (f"\n\n{_table(['class', 'precision', 'recall', 'F1'], classes)}" if classes else "")


def _data(dataset: Mapping[str, Any] | None) -> str:
    if dataset is None:
        return "The dataset version was not found."
    days = [[day, f"`{digest}`"] for day, digest in sorted(dataset["days"].items())]
    left_out = [[day, why] for day, why in sorted(dataset["left_out_days"].items())]
    counts = [[name, *(str(split.get(name, 0)) for split in dataset["counts"].values())] for name in dataset["classes"]]
    parts = [_table(["day", "manifest (SHA-256)"], days), _table(["class", *dataset["counts"]], counts)]
    return "\n\n".join([*parts, _table(["day left out", "reason"], left_out) if left_out else "No day was left out."])


def _model(dossier: Mapping[str, Any]) -> str:
    package, model, registration = dossier["package"], dossier["model"], dossier["registration"]
    manifest = package["manifest"] or {}
    rows = [
        ["architecture", str(manifest.get("architecture", "not known"))],
        ["served variant", str(manifest.get("variant", "not known"))],
        ["code of the package (git)", str(package.get("git_commit") or "not recorded")],
    ]
    if model:
        rows += [
            ["trained model", f"`{model['digest']}`"],
            ["code of the training (git)", str(model["git_commit"] or "not recorded")],
            ["MLflow run", str(model["mlflow_run_id"] or "not recorded")],
        ]
        rows += [[f"hyperparameter {name}", str(value)] for name, value in sorted((model["hyperparameters"] or {}).items())]
    rows += [[f"registry: {name}", str(value)] for name, value in sorted((registration or {}).items())]
    return _table(["", ""], rows)


def _history(documents: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            str(d["number"]),
            d["created"],
            ", ".join(f"{r['name']} `{r['package'][:8]}` {r['weight']:.2f}" for r in d["routes"]),
            d["author"],
            d["reason"],
        ]
        for d in reversed(documents)
    ]
    return _table(["document", "time", "routes", "author", "reason"], rows)


def _ledger(state: Mapping[str, Any]) -> str:
    if state["broken"] is not None:
        return f"BROKEN at entry {state['broken']}: {state['reason']}."
    return f"{state['entries']} entries, whole; the digest of the last one is `{state['head']}`."


def _estimate(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    if value.get("value") is None:
        return "undefined"
    low, high = value.get("low"), value.get("high")
    return f"{value['value']:.4f}" + (f" ({low:.4f}-{high:.4f})" if low is not None and high is not None else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)])


def _cell(text: str) -> str:
    """Text of others in a table cell: it can neither break the row nor become HTML or a heading."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").replace("<", "&lt;")


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
