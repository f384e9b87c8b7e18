"""Pictures for asset metadata: small PNG or JPEG files, drawn without a display server and looking alike everywhere."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline_project.stage import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PICTURE_BYTES = 100_000


def plot(draw: "Callable[[Axes], None]", *, width: float = 6, height: float = 3.5) -> Picture:
    """One figure. `draw` gets the axes; width and height are in inches at 90 dots an inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot: that keeps figures alive and is not thread-safe
    draw(figure.add_subplot())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Picture(buffer.getvalue())


def lines(series: Mapping[str, Sequence[float]], *, x_label: str, y_label: str, title: str) -> Picture:
    """Named curves over 1, 2, 3 ..."""

    def draw(axes: "Axes") -> None:
        for name, values in series.items():
            axes.plot(range(1, len(values) + 1), values, marker=".", label=name)
        axes.set(xlabel=x_label, ylabel=y_label, title=title)
        axes.grid(alpha=0.3)
        axes.legend()

    return plot(draw)


def bars(values: Mapping[str, float], *, title: str, y_label: str, threshold: float | None = None) -> Picture:
    """One bar a name, and a dashed line at the threshold."""

    def draw(axes: "Axes") -> None:
        axes.bar(list(values), list(values.values()), color="#4c78a8")
        if threshold is not None:
            axes.axhline(threshold, linestyle="--", color="#e45756", label=f"threshold {threshold:g}")
            axes.legend()
        axes.set(ylabel=y_label, title=title)
        axes.tick_params(axis="x", rotation=30)
        axes.grid(alpha=0.3, axis="y")

    return plot(draw)


def confusion_matrix(matrix: NDArray[np.int64], classes: Sequence[str]) -> Picture:
    """Counts by true class (rows) and predicted class (columns), shaded by the share of the row."""

    def draw(axes: "Axes") -> None:
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row in range(len(classes)):
            for column in range(len(classes)):
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(range(len(classes)), list(classes), rotation=40, ha="right")
        axes.set_yticks(range(len(classes)), list(classes))
        axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix")

    side = 2.5 + 0.45 * len(classes)
    return plot(draw, width=side + 0.6, height=side)


def contact_sheet(rows: Mapping[str, Sequence[NDArray[np.uint8]]], *, side: int = 64) -> Picture:
    """Thumbnails in labelled rows, as one JPEG of at most `MAX_PICTURE_BYTES`.

    Args:
        rows: {caption: images}, each image (H, W, 3) uint8.
        side: thumbnail side, pixels.
    """
    from PIL import Image, ImageDraw

    columns = max((len(images) for images in rows.values()), default=1)
    sheet = Image.new("RGB", (110 + columns * (side + 2), max(1, len(rows)) * (side + 2)), "white")
    pen = ImageDraw.Draw(sheet)
    for r, (caption, images) in enumerate(rows.items()):
        pen.text((4, r * (side + 2) + side // 2 - 6), caption[:18], fill="black")
        for c, pixels in enumerate(images):
            thumbnail = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
            sheet.paste(thumbnail, (110 + c * (side + 2), r * (side + 2)))
    for quality in (85, 70, 50, 30, 10):
        buffer = io.BytesIO()
        sheet.save(buffer, format="JPEG", quality=quality)
        if buffer.tell() <= MAX_PICTURE_BYTES:
            break
    return Picture(buffer.getvalue(), "image/jpeg")


def small_multiples(
    panels: "Mapping[str, Callable[[Axes], None]]", *, columns: int = 4, width: float = 9, row_height: float = 1.7
) -> Picture:
    """Several small plots in a grid, each under its name, in one figure. Sizes are in inches at 90 dots an inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(width, row_height * max(1, rows)), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    for number, (name, draw) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        draw(axes)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Picture(buffer.getvalue())
