"""The profile's plots and thumbnails."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project import plots
from pipeline_project.dataset.profile.gathering import NAMES
from pipeline_project.stage import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#eeca3b", "#b279a2", "#9d755d", "#bab0ac")
_MOST_DAYS = 60
_MOST_SERIES = len(_COLOURS)
_TICKS = 12


def stacked_by_day(counts: Mapping[str, Mapping[str, int]], *, title: str) -> Picture:
    """One bar a day (the last 60), stacked by name; the rarest names go into one."""
    from matplotlib.ticker import MaxNLocator

    days = sorted(counts)[-_MOST_DAYS:]
    totals: dict[str, int] = {}
    for day in days:
        for name, count in counts[day].items():
            totals[name] = totals.get(name, 0) + count
    ranked = sorted(totals, key=lambda name: (-totals[name], name))
    shown, rest = (ranked, []) if len(ranked) <= _MOST_SERIES else (ranked[: _MOST_SERIES - 1], ranked[_MOST_SERIES - 1 :])

    def draw(axes: "Axes") -> None:
        bottom = np.zeros(len(days))
        series = [(name, [counts[day].get(name, 0) for day in days]) for name in shown]
        if rest:
            series.append((f"{len(rest)} others", [sum(counts[day].get(name, 0) for name in rest) for day in days]))
        for (name, values), colour in zip(series, _COLOURS, strict=False):
            axes.bar(range(len(days)), values, bottom=bottom, width=min(0.85, 0.25 + len(days) * 0.08), color=colour, label=_plain(name))
            bottom += values
        step = -(-len(days) // _TICKS) if days else 1
        axes.set_xticks(range(0, len(days), step), days[::step], rotation=30, ha="right", fontsize=8)
        axes.set(ylabel="images", title=title)
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlim(-0.7, max(len(days) - 0.3, 0.7))
        axes.grid(alpha=0.3, axis="y")
        axes.set_axisbelow(True)
        if series:
            axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)

    return plots.plot(draw, width=8, height=3)


def distributions(values: NDArray[np.float64]) -> Picture:
    """A histogram of every measurement, between its 0.1% and 99.9% quantiles."""

    def panel(column: NDArray[np.float64]) -> Any:
        low, high = np.quantile(column, [0.001, 0.999])

        def draw(axes: "Axes") -> None:
            span = (low, high) if high > low else (low - 0.5, high + 0.5)
            axes.hist(np.clip(column, *span), bins=30, range=span, color=_COLOURS[0])
            axes.axvline(float(np.median(column)), color=_COLOURS[3], linewidth=1)
            axes.set_yticks([])
            for side in ("left", "right", "top"):
                axes.spines[side].set_visible(False)

        return draw

    return plots.small_multiples({name.replace("_", " "): panel(values[:, i]) for i, name in enumerate(NAMES)}, columns=5)


def pairs_sheet(pairs: Sequence[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]) -> Picture:
    """Pairs side by side, a row each, with their caption."""
    return plots.contact_sheet(
        {f"{number}: {caption}": [left, right] for number, (caption, left, right) in enumerate(pairs, start=1)}, side=80
    )


def thumbnail(pixels: NDArray[np.uint8], side: int = 112) -> bytes:
    """A small JPEG of (S, S, 3) uint8 pixels, made of the pixels alone."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR).save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()


def _plain(text: str) -> str:
    """A label that matplotlib shows as it is: no mathematics, no hidden entry."""
    return text.replace("$", r"\$").lstrip("_")[:24] or "(blank)"
