"""A removal plan, and why something stays, as text for the terminal."""

from collections.abc import Sequence

from pipeline_project.governance.retention import RemovalPlan, Why


def render_plan(plan: RemovalPlan, runs: int) -> str:
    """A table: what is kept and what would go, by asset and kind; `runs` is how many runs of the event log would."""
    rows = [row for row in plan.rows() if row["what"] != "total"]
    table = [["", "kept", "size", "to remove", "size"]]
    table += [[str(row["what"]), *(_cell(row, key) for key in ("kept", "kept_bytes", "removed", "removed_bytes"))] for row in rows]
    table.append(["runs in the event log", "", "", str(runs) if runs else "-", ""])
    total = plan.rows()[-1]
    table.append(["total", *(_cell(total, key) for key in ("kept", "kept_bytes", "removed", "removed_bytes"))])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [f"{line[0]:{widths[0]}}  " + "  ".join(f"{cell:>{w}}" for cell, w in zip(line[1:], widths[1:], strict=True)) for line in table]
    return "\n".join([*(line.rstrip() for line in lines), f"Whatever was in use after {plan.horizon:%Y-%m-%d %H:%M} UTC stays."])


def render_why(found: Sequence[Why]) -> str:
    """For each version: that nothing needs it, or the chain from a root down to it."""
    lines = []
    for why in found:
        lines.append(f"{why.version.name} {why.version.digest or '(without a record)'} in {why.version.prefix}")
        if not why.kept:
            lines.append("  nothing needs it: `pipeline gc --apply` removes it")
        lines += [f"  {('', 'keeps ', 'which needs ')[min(depth, 2)]}{item}" for depth, item in enumerate(why.chain)]
        lines += [f"  also: {reason}" for reason in why.reasons if reason not in why.chain]
    return "\n".join(lines)


def megabytes(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _cell(row: dict[str, str | int], key: str) -> str:
    value = int(row[key])
    return "-" if not value else megabytes(value) if key.endswith("bytes") else str(value)
