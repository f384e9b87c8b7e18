"""The profile as one HTML page: nothing is loaded from anywhere, and every text from outside is escaped."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pipeline_project.dataset.profile.findings import Finding
from pipeline_project.stage import Picture

_TITLES = {
    "balance": "Classes over days",
    "labels": "Near duplicates and suspected label noise",
    "rejected": "Rejected images",
    "outliers": "Unusual images",
    "classes": "Images by class",
    "features": "Measurements",
    "attributes": "Attributes and missing values",
    "personal": "Personal data",
    "conversions": "Conversions",
    "days": "Days left out",
}
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2430; background: #f5f6f8; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 15px; font-weight: 600; color: #5b6676; margin: 0; text-transform: uppercase; letter-spacing: .06em; }
.verdict { font-size: 24px; font-weight: 600; margin: 2px 0 14px; line-height: 1.3; }
section { background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; padding: 14px 20px 18px; margin: 14px 0; }
h2 { font-size: 17px; margin: 0 0 8px; }
p { margin: 6px 0; } .note { color: #5b6676; font-size: 13px; }
ol { margin: 0; padding: 12px 12px 12px 34px; background: #fff7e6; border: 1px solid #f0d9a8; border-radius: 8px; }
ol.none { display: none; }
nav { margin: 12px 0 0; font-size: 13px; display: flex; flex-wrap: wrap; gap: 2px 14px; }
a { color: #2b5c94; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin: 8px 0; }
th, td { text-align: left; padding: 3px 16px 3px 0; border-bottom: 1px solid #e8ebef; vertical-align: top; overflow-wrap: break-word; }
th { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; display: block; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(236px, 1fr)); gap: 12px; margin: 8px 0; }
.tiles.small { grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); }
figure { margin: 0; font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; }
figure div { display: flex; gap: 4px; }
"""


def render(verdict: str, findings: Sequence[Finding], sections: Mapping[str, str]) -> bytes:
    """The whole page.

    Args:
        verdict: the first line.
        findings: what to look at, the weightiest first; each links to its section.
        sections: {name: HTML made by this module's other functions}; empty ones are left out.
    """
    shown = {name: body for name, body in sections.items() if body}
    items = "".join(f"<li>{escape(f.text)}{_link(f.section) if f.section in shown else ''}</li>" for f in findings)
    links = "".join(f'<a href="#{escape(name)}">{escape(_TITLES[name])}</a>' for name in shown)
    parts = "".join(f'<section id="{escape(name)}"><h2>{escape(_TITLES[name])}</h2>{body}</section>' for name, body in shown.items())
    # The policy holds even if an escape were forgotten: no script runs, nothing is fetched.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Data profile</title>'
        f'<style>{_STYLE}</style></head><body><main><h1>Data profile</h1><p class="verdict">{escape(verdict)}</p>'
        f'<ol class="{"" if items else "none"}">{items}</ol><nav>{links}</nav>{parts}</main></body></html>\n'
    )
    return text.encode()


def paragraph(text: str, *, note: bool = False) -> str:
    """A paragraph of plain text."""
    return f"<p{' class=note' if note else ''}>{escape(text)}</p>"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with equal keys; nothing for no rows. Numbers stand right."""
    if not rows:
        return ""
    numeric = {name: all(isinstance(row[name], int | float | None) for row in rows) for name in rows[0]}
    head = "".join(f"<th{_right(numeric[name])}>{escape(str(name).replace('_', ' '))}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td{_right(numeric[name])}>{_cell(value)}</td>" for name, value in row.items()) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def picture(shown: Picture, alternative: str) -> str:
    """A picture in place; `alternative` says in words what it shows."""
    return f'<p><img src="{_data_uri(shown.data, shown.media_type)}" alt="{escape(alternative)}"></p>'


def figures(entries: Sequence[tuple[Sequence[bytes], str]], *, small: bool = False) -> str:
    """JPEG thumbnails with captions: (pictures that stand side by side, caption) each."""
    made = [
        "<figure><div>"
        + "".join(f'<img src="{_data_uri(data, "image/jpeg")}" alt="" width="112" height="112">' for data in thumbnails)
        + f"</div>{escape(caption)}</figure>"
        for thumbnails, caption in entries
    ]
    return f'<div class="tiles{" small" if small else ""}">{"".join(made)}</div>' if made else ""


def _link(section: str) -> str:
    return f' <a href="#{escape(section)}">{escape(_TITLES[section])}</a>'


def _right(numeric: bool) -> str:
    return ' class="n"' if numeric else ""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return escape(f"{value:.4g}")
    return escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def _data_uri(data: bytes, media_type: str) -> str:
    return f"data:{escape(media_type)};base64,{base64.b64encode(data).decode()}"
