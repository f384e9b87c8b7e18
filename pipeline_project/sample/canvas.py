"""A pen that draws in the product's own coordinates, and the photographic effects around it.

A product is described on a square from -1 to 1 (x to the right, y down); the pen places it in the photo: turned, scaled, moved, mirrored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Color = tuple[int, int, int]
Point = tuple[float, float]

_OVERSAMPLING = 2  # drawn twice as large and reduced: Pillow's own lines have hard edges
_LIGHT_BACKDROPS = 0.95  # share of photos, as in real catalogues; the rest is of any colour, and the product's colour follows


@dataclass(frozen=True)
class Palette:
    """The colours of one product: `main` stands out from the background, the others from `main`."""

    main: Color
    second: Color
    detail: Color
    dark: Color


class Pen:
    """Draws shapes given in product coordinates onto a photo.

    Args:
        image: RGB, drawn on in place.
        matrix: (2, 3), from product coordinates to pixels.
    """

    def __init__(self, image: Image.Image, matrix: NDArray[np.float64]) -> None:
        self._image = image
        self._draw = ImageDraw.Draw(image)
        self._matrix = matrix
        self._unit = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))

    def polygon(self, points: Sequence[Point] | NDArray[np.float64], fill: Color) -> None:
        """A filled polygon."""
        self._draw.polygon(self._pixels(points), fill=fill)

    def rectangle(self, left: float, top: float, right: float, bottom: float, fill: Color) -> None:
        """A filled box."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill)

    def rounded(self, left: float, top: float, right: float, bottom: float, radius: float, fill: Color) -> None:
        """A filled box with round corners."""
        corners = [(right - radius, top + radius, -90), (right - radius, bottom - radius, 0)]
        corners += [(left + radius, bottom - radius, 90), (left + radius, top + radius, 180)]
        self.polygon(np.concatenate([_arc(x, y, radius, radius, start, start + 90, 5) for x, y, start in corners]), fill)

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, fill: Color) -> None:
        """A filled ellipse."""
        self.polygon(_arc(x, y, radius_x, radius_y, 0, 360, 28), fill)

    def arc(self, x: float, y: float, radius_x: float, radius_y: float, span: tuple[float, float], fill: Color, width: float) -> None:
        """A thick part of an ellipse's rim; the span is in degrees, clockwise from the right."""
        outer = _arc(x, y, radius_x + width / 2, radius_y + width / 2, *span, 24)
        inner = _arc(x, y, radius_x - width / 2, radius_y - width / 2, *span, 24)
        self.polygon(np.concatenate([outer, inner[::-1]]), fill)

    def line(self, points: Sequence[Point], fill: Color, width: float) -> None:
        """A stroke; `width` is in product units, at least one pixel."""
        self._draw.line(self._pixels(points), fill=fill, width=max(1, round(width * self._unit)), joint="curve")

    def fabric(self, points: Sequence[Point], fill: Color, thread: Color, angle: float, pitch: float) -> None:
        """A polygon with a striped weave inside; the angle in degrees, the pitch in product units."""
        self.polygon(points, fill)
        mask = Image.new("L", self._image.size, 0)
        ImageDraw.Draw(mask).polygon(self._pixels(points), fill=255)
        layer = Image.new("RGB", self._image.size, fill)
        pen = Pen(layer, self._matrix)
        along = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        across = np.array([-along[1], along[0]])
        for offset in np.arange(-1.5, 1.5, pitch):
            start, end = across * offset - along * 2, across * offset + along * 2
            pen.line([(start[0], start[1]), (end[0], end[1])], thread, pitch * 0.3)
        self._image.paste(layer, mask=mask)

    def _pixels(self, points: Sequence[Point] | NDArray[np.float64]) -> list[tuple[float, float]]:
        placed = np.asarray(points, dtype=np.float64) @ self._matrix[:, :2].T + self._matrix[:, 2]
        return [(float(x), float(y)) for x, y in placed]


def _arc(x: float, y: float, radius_x: float, radius_y: float, start: float, end: float, steps: int) -> NDArray[np.float64]:
    angles = np.radians(np.linspace(start, end, steps))
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)


def random_color(rng: Generator) -> Color:
    """Any hue, from dark to bright, from grey to vivid."""
    hue, saturation, value = rng.uniform(0, 6), rng.uniform(0.05, 0.9), rng.uniform(0.15, 1.0)
    ramp = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    red, green, blue = (255 * value * (1 - saturation + saturation * ramp)).astype(int).tolist()
    return red, green, blue


def contrasting_color(rng: Generator, other: Color, distance: float) -> Color:
    """A colour whose luminance differs by at least `distance` (0-255, at most 110), so that shape stays visible without a favoured hue."""
    while True:
        color = random_color(rng)
        if abs(_luminance(color) - _luminance(other)) >= distance:
            return color


def shade(color: Color, factor: float) -> Color:
    """The colour, darker (factor below 1) or brighter."""
    red, green, blue = (min(255, round(channel * factor)) for channel in color)
    return red, green, blue


def _luminance(color: Color) -> float:
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


def background(rng: Generator, size: tuple[int, int]) -> tuple[Image.Image, Color]:
    """An oversampled backdrop with clutter near its rim, and its prevailing colour.

    Args:
        size: width and height of the finished photo, pixels.
    """
    width, height = size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING
    color = random_color(rng)
    if rng.random() < _LIGHT_BACKDROPS:
        while _luminance(color) < 165:
            color = random_color(rng)
    image = Image.new("RGB", (width, height), color)
    draw = ImageDraw.Draw(image)
    kind = rng.integers(3)
    if kind == 1:  # a table before a wall
        horizon = int(height * rng.uniform(0.5, 0.85))
        draw.rectangle((0, horizon, width, height), fill=shade(color, rng.uniform(0.75, 1.25)))
    elif kind == 2:  # boards
        board, tone = int(width * rng.uniform(0.1, 0.25)), shade(color, rng.uniform(0.86, 0.94))
        for left in range(-int(rng.integers(board)), width, board * 2):
            draw.rectangle((left, 0, left + board, height), fill=tone)
    for _ in range(rng.integers(1, 4)):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.25)
        x, y = width / 2 * (1 + reach * np.cos(angle)), height / 2 * (1 + reach * np.sin(angle))
        radius = min(width, height) * rng.uniform(0.04, 0.1)
        clutter, stretch = random_color(rng), rng.uniform(0.5, 1.6)
        box = (x - radius, y - radius * stretch, x + radius, y + radius * stretch)
        if rng.random() < 0.5:
            draw.ellipse(box, fill=clutter)
        else:
            draw.rectangle(box, fill=clutter)
    return image, color


def place(rng: Generator, image: Image.Image) -> Pen:
    """A pen for one product somewhere near the middle of an oversampled photo: turned, scaled, sheared, mirrored at random."""
    width, height = image.size
    scale = min(width, height) / 2 * rng.uniform(0.78, 0.94)
    angle = np.radians(rng.normal(0, 5))
    stretch, shear = rng.uniform(0.94, 1.06), rng.uniform(-0.07, 0.07)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[mirror * stretch, shear], [0.0, 1 / stretch]]) * scale
    middle = np.array([width, height]) / 2 + rng.uniform(-0.08, 0.08, 2) * min(width, height)
    return Pen(image, np.column_stack([linear, middle]))


def photograph(rng: Generator, image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Light from one side, exposure, a soft lens and sensor noise; reduced to `size` (width, height)."""
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.9)) * _OVERSAMPLING))
    pixels = np.asarray(image.resize(size, Image.Resampling.BOX), dtype=np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.25)
    across = np.linspace(-1, 1, size[0], dtype=np.float32)[None, :, None] * np.float32(np.cos(angle))
    down = np.linspace(-1, 1, size[1], dtype=np.float32)[:, None, None] * np.float32(np.sin(angle))
    light = np.float32(rng.uniform(0.75, 1.15)) * (1 + np.float32(strength) * (across + down) / 2)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(rng.uniform(1, 6))
    return Image.fromarray(np.clip(pixels * light + noise, 0, 255).astype(np.uint8))
