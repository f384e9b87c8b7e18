"""Drawn product photos: five classes of several kinds each, in any colour, so that only shape tells a class."""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image

from pipeline_project.sample.canvas import Palette, Pen, background, contrasting_color, photograph, place, random_color, shade

Drawer = Callable[[Pen, Palette, Generator], None]


def draw_product(label: str, rng: Generator, size: tuple[int, int]) -> Image.Image:
    """A fresh photo of a product of one class, of a random kind.

    Args:
        label: one of `PRODUCTS`.
        rng: the only source of randomness.
        size: width and height, pixels.

    Returns:
        an RGB image of that size.

    Raises:
        ValueError: there is no such class.
    """
    if label not in PRODUCTS:
        raise ValueError(f"sample catalogue: no drawing for class {label!r}. Use one of: {', '.join(PRODUCTS)}.")
    kinds = list(PRODUCTS[label])
    return draw_kind(label, kinds[int(rng.integers(len(kinds)))], rng, size)


def draw_kind(label: str, kind: str, rng: Generator, size: tuple[int, int]) -> Image.Image:
    """Like `draw_product`, of a given kind such as ("home", "lamp"). An unknown pair raises `KeyError`."""
    drawer = PRODUCTS[label][kind]
    image, behind = background(rng, size)
    main = contrasting_color(rng, behind, 90)
    palette = Palette(main, contrasting_color(rng, main, 70), contrasting_color(rng, main, 90), shade(random_color(rng), 0.3))
    drawer(place(rng, image), palette, rng)
    return photograph(rng, image, size)


# --- electronics: flat screens, bezels, keys, lenses


def _phone(pen: Pen, colors: Palette, rng: Generator) -> None:
    half = rng.uniform(0.42, 0.52)
    pen.rounded(-half, -0.95, half, 0.95, 0.14, colors.main)
    pen.rectangle(-half + 0.08, -0.74, half - 0.08, 0.74, colors.detail)
    columns = np.linspace(-half + 0.2, half - 0.2, 3)
    for row in np.arange(-0.6, rng.uniform(0.1, 0.6), 0.27):
        for column in columns:
            pen.rounded(column - 0.08, row - 0.08, column + 0.08, row + 0.08, 0.02, colors.main)
    pen.ellipse(0, 0.84, 0.06, 0.06, colors.detail)


def _laptop(pen: Pen, colors: Palette, rng: Generator) -> None:
    lean = rng.uniform(0.0, 0.1)
    pen.polygon([(-0.75 + lean, -0.75), (0.75 - lean, -0.75), (0.75, 0.15), (-0.75, 0.15)], colors.main)
    pen.polygon([(-0.65 + lean, -0.66), (0.65 - lean, -0.66), (0.65, 0.06), (-0.65, 0.06)], colors.detail)
    pen.polygon([(-0.75, 0.18), (0.75, 0.18), (1.0, 0.68), (-1.0, 0.68)], colors.main)
    for row, half in ((0.27, 0.68), (0.36, 0.73), (0.45, 0.78)):
        for key in np.linspace(-half, half, 10):
            pen.rectangle(key - 0.055, row - 0.03, key + 0.055, row + 0.03, colors.detail)
    pen.rectangle(-0.22, 0.52, 0.22, 0.63, colors.second)


def _headphones(pen: Pen, colors: Palette, rng: Generator) -> None:
    pen.arc(0, 0.1, 0.72, 0.85, (180, 360), colors.main, rng.uniform(0.14, 0.2))
    for side in (-1, 1):
        pen.rounded(side * 0.72 - 0.22, 0.0, side * 0.72 + 0.22, 0.75, 0.18, colors.main)
        pen.rounded(side * 0.6 - 0.1, 0.08, side * 0.6 + 0.1, 0.67, 0.08, colors.detail)


def _camera(pen: Pen, colors: Palette, rng: Generator) -> None:
    pen.polygon([(-0.35, -0.45), (-0.22, -0.72), (0.22, -0.72), (0.35, -0.45)], colors.main)
    pen.rounded(-0.95, -0.5, 0.95, 0.62, 0.1, colors.main)
    pen.rectangle(-0.8, -0.62, -0.55, -0.5, colors.second)
    radius = rng.uniform(0.42, 0.5)
    for share, color in ((1.0, colors.detail), (0.78, colors.main), (0.55, colors.detail), (0.3, colors.dark)):
        pen.ellipse(0.05, 0.07, radius * share, radius * share, color)
    pen.rectangle(0.6, -0.38, 0.82, -0.22, colors.detail)


# --- clothing: soft outlines, sleeves, a woven fabric


def _weave(pen: Pen, colors: Palette, rng: Generator, points: list[tuple[float, float]]) -> None:
    thread = shade(colors.main, rng.uniform(0.65, 0.8))  # close to the cloth: a stronger stripe would break the outline up
    pen.fabric(points, colors.main, thread, float(rng.choice([0.0, 90.0, 45.0])), rng.uniform(0.14, 0.24))


def _t_shirt(pen: Pen, colors: Palette, rng: Generator) -> None:
    sleeve, waist = rng.uniform(0.1, 0.22), rng.uniform(0.48, 0.56)
    left = [(-0.25, -0.82), (-0.98, -0.5), (-0.82, -0.15 + sleeve / 4), (-0.52, -0.3), (-waist, 0.88)]
    _weave(pen, colors, rng, [*left, *[(-x, y) for x, y in reversed(left)]])
    pen.ellipse(0, -0.82, 0.25, 0.14, colors.detail)
    if rng.random() < 0.5:
        pen.ellipse(0, 0.0, 0.2, 0.2, colors.detail)


def _jumper(pen: Pen, colors: Palette, rng: Generator) -> None:
    reach = rng.uniform(0.45, 0.65)
    left = [(-0.25, -0.8), (-0.58, -0.66), (-1.0, reach - 0.1), (-0.74, reach), (-0.52, -0.15), (-0.52, 0.82)]
    _weave(pen, colors, rng, [*left, *[(-x, y) for x, y in reversed(left)]])
    pen.rectangle(-0.52, 0.72, 0.52, 0.84, colors.detail)
    pen.ellipse(0, -0.8, 0.25, 0.12, colors.detail)


def _trousers(pen: Pen, colors: Palette, rng: Generator) -> None:
    hem, spread = rng.uniform(0.26, 0.34), rng.uniform(0.5, 0.66)
    left = [(-0.42, -0.92), (-spread, 0.95), (-spread + hem, 0.95), (0.0, -0.25)]
    _weave(pen, colors, rng, [*left, *[(-x, y) for x, y in reversed(left[:-1])]])
    pen.rectangle(-0.43, -0.94, 0.43, -0.8, colors.detail)
    pen.line([(0, -0.8), (0, -0.3)], colors.detail, 0.04)


def _dress(pen: Pen, colors: Palette, rng: Generator) -> None:
    flare = rng.uniform(0.65, 0.85)
    left = [(-0.16, -0.95), (-0.3, -0.95), (-0.34, -0.6), (-0.24, -0.15), (-flare, 0.92)]
    neck = [(0.0, -0.68)]
    _weave(pen, colors, rng, [*neck, *left, *[(-x, y) for x, y in reversed(left)]])
    pen.rectangle(-0.26, -0.2, 0.26, -0.08, colors.detail)


# --- home: furniture and household ware on legs, stems and feet


def _lamp(pen: Pen, colors: Palette, rng: Generator) -> None:
    top, bottom = rng.uniform(0.25, 0.38), rng.uniform(0.6, 0.75)
    pen.rectangle(-0.05, -0.1, 0.05, 0.85, colors.second)
    pen.polygon([(-top, -0.95), (top, -0.95), (bottom, -0.1), (-bottom, -0.1)], colors.main)
    pen.polygon([(-top, -0.95), (-top / 3, -0.95), (-bottom / 3, -0.1), (-bottom, -0.1)], shade(colors.main, 0.85))
    pen.ellipse(0, 0.86, 0.42, 0.1, colors.main)


def _chair(pen: Pen, colors: Palette, rng: Generator) -> None:
    slats = int(rng.integers(2, 4))
    for post in (-0.5, 0.42):
        pen.rectangle(post, -0.95, post + 0.1, 0.1, colors.main)
    for y in np.linspace(-0.88, -0.35, slats):
        pen.rectangle(-0.5, y, 0.5, y + 0.13, colors.main)
    pen.polygon([(-0.52, 0.02), (0.52, 0.02), (0.66, 0.26), (-0.66, 0.26)], colors.main)
    for left, right in ((-0.62, -0.5), (0.5, 0.62)):
        pen.rectangle(left, 0.26, right, 0.97, colors.main)
    for left, right in ((-0.4, -0.31), (0.31, 0.4)):
        pen.rectangle(left, 0.26, right, 0.8, shade(colors.main, 0.8))


def _mug(pen: Pen, colors: Palette, rng: Generator) -> None:
    half, taper = rng.uniform(0.5, 0.6), rng.uniform(0.0, 0.1)
    pen.arc(half, 0.05, 0.34, 0.38, (-90, 90), colors.main, 0.15)
    pen.polygon([(-half, -0.65), (half, -0.65), (half - taper, 0.78), (-half + taper, 0.78)], colors.main)
    pen.ellipse(0, 0.78, half - taper, 0.12, colors.main)
    pen.ellipse(0, -0.65, half, 0.17, shade(colors.main, 0.75))
    pen.ellipse(0, -0.62, half * 0.85, 0.12, colors.detail)


def _plant(pen: Pen, colors: Palette, rng: Generator) -> None:
    for angle in np.linspace(-65, 65, int(rng.integers(5, 8))) + rng.uniform(-6, 6):
        reach = rng.uniform(0.85, 1.1)
        tip = (np.sin(np.radians(angle)) * reach, 0.2 - np.cos(np.radians(angle)) * reach)
        side = (np.cos(np.radians(angle)) * 0.13, np.sin(np.radians(angle)) * 0.13)
        middle = (tip[0] * 0.55, 0.2 + (tip[1] - 0.2) * 0.55)
        leaf = [(0.0, 0.25), (middle[0] + side[0], middle[1] + side[1]), tip, (middle[0] - side[0], middle[1] - side[1])]
        pen.polygon(leaf, colors.second)
    pen.polygon([(-0.42, 0.2), (0.42, 0.2), (0.3, 0.95), (-0.3, 0.95)], colors.main)
    pen.rectangle(-0.48, 0.12, 0.48, 0.32, colors.main)


# --- books: pages, spines, lines of text


def _closed_book(pen: Pen, colors: Palette, rng: Generator) -> None:
    pen.rectangle(-0.62, -0.9, 0.7, 0.92, (236, 230, 214))
    for y in np.linspace(0.82, 0.9, 2):
        pen.line([(-0.6, y), (0.68, y)], (150, 144, 130), 0.02)
    pen.rectangle(-0.68, -0.95, 0.62, 0.8, colors.main)
    pen.rectangle(-0.68, -0.95, -0.5, 0.8, shade(colors.main, 0.65))
    for y, half in zip((-0.65, -0.48, -0.31), rng.uniform(0.25, 0.42, 3), strict=True):
        pen.rectangle(0.06 - half, y, 0.06 + half, y + 0.09, colors.detail)
    pen.rectangle(-0.15, 0.5, 0.27, 0.58, colors.detail)


def _open_book(pen: Pen, colors: Palette, rng: Generator) -> None:
    page, ink, sag = (240, 236, 224), (70, 66, 60), rng.uniform(0.1, 0.2)
    pen.polygon([(-1.0, -0.5), (0, -0.5 + sag), (1.0, -0.5), (1.0, 0.62), (0, 0.62 + sag), (-1.0, 0.62)], colors.main)
    for side in (-1, 1):
        pen.polygon([(0, -0.55 + sag), (side * 0.5, -0.64), (side * 0.93, -0.55), (side * 0.93, 0.53), (0, 0.55 + sag)], page)
        for y in np.arange(-0.38, 0.42, 0.14):
            pen.line([(side * 0.12, y + sag * 0.8), (side * rng.uniform(0.6, 0.82), y)], ink, 0.045)
    pen.line([(0, -0.5 + sag), (0, 0.55 + sag)], ink, 0.05)


def _stack(pen: Pen, colors: Palette, rng: Generator) -> None:
    count = int(rng.integers(3, 6))
    edges = np.linspace(0.9, -0.75, count + 1)
    for index, (bottom, top) in enumerate(itertools.pairwise(edges.tolist())):
        shift, half = rng.uniform(-0.1, 0.1), rng.uniform(0.78, 0.92)
        cover = (colors.main, colors.second, colors.detail)[index % 3]
        height = bottom - top
        pen.rectangle(shift - half, top, shift + half, bottom - 0.03, cover)
        pen.rectangle(shift + half * 0.2, top + height * 0.2, shift + half + 0.02, bottom - height * 0.25, (234, 228, 212))
        pen.line([(shift + half * 0.22, (top + bottom) / 2), (shift + half, (top + bottom) / 2)], (150, 144, 130), 0.02)
        pen.rectangle(shift - half * 0.75, top + 0.08, shift - half * 0.2, bottom - 0.11, shade(cover, 0.5))


def _row(pen: Pen, colors: Palette, rng: Generator) -> None:
    left, right = -0.9, 0.9
    edges = np.linspace(left, right, int(rng.integers(5, 8)))
    for index, (start, end) in enumerate(itertools.pairwise(edges.tolist())):
        top = -0.8 + rng.uniform(-0.12, 0.25)
        cover = (colors.main, colors.second, colors.detail)[index % 3]
        pen.rectangle(start, top, end - 0.02, 0.85, cover)
        for y in (top + 0.14, top + 0.26, 0.6):
            pen.rectangle(start + 0.04, y, end - 0.06, y + 0.06, shade(cover, 0.45))


# --- toys: round, friendly, put together from simple bodies


def _teddy(pen: Pen, colors: Palette, rng: Generator) -> None:
    for side in (-1, 1):
        pen.ellipse(side * 0.36, -0.8, 0.18, 0.18, colors.main)
        pen.ellipse(side * 0.36, -0.8, 0.09, 0.09, colors.detail)
        pen.ellipse(side * 0.58, 0.12, 0.26, 0.16, colors.main)
        pen.ellipse(side * 0.38, 0.8, 0.22, 0.2, colors.main)
    pen.ellipse(0, 0.35, 0.5, rng.uniform(0.5, 0.58), colors.main)
    pen.ellipse(0, 0.38, 0.28, 0.32, colors.detail)
    pen.ellipse(0, -0.48, 0.46, 0.42, colors.main)
    pen.ellipse(0, -0.35, 0.2, 0.16, colors.detail)
    for x, y in ((-0.17, -0.58), (0.17, -0.58), (0.0, -0.4)):
        pen.ellipse(x, y, 0.06, 0.06, colors.dark)


def _car(pen: Pen, colors: Palette, rng: Generator) -> None:
    roof = rng.uniform(-0.55, -0.4)
    pen.polygon([(-0.6, -0.05), (-0.4, roof), (0.35, roof), (0.62, -0.05)], colors.main)
    pen.rounded(-0.98, -0.1, 0.98, 0.42, 0.14, colors.main)
    pen.polygon([(-0.47, -0.06), (-0.33, roof + 0.09), (-0.05, roof + 0.09), (-0.05, -0.06)], colors.detail)
    pen.polygon([(0.05, -0.06), (0.05, roof + 0.09), (0.3, roof + 0.09), (0.47, -0.06)], colors.detail)
    for x in (-0.55, 0.55):
        pen.ellipse(x, 0.42, 0.28, 0.28, colors.dark)
        pen.ellipse(x, 0.42, 0.12, 0.12, colors.detail)


def _blocks(pen: Pen, colors: Palette, rng: Generator) -> None:
    half = rng.uniform(0.38, 0.43)
    for x, y, face in ((-0.46, 0.48, colors.main), (0.46, 0.48, shade(colors.main, 0.8)), (rng.uniform(-0.2, 0.2), -0.4, colors.main)):
        letter = colors.detail
        pen.rounded(x - half, y - half, x + half, y + half, 0.06, shade(face, 0.6))
        pen.rectangle(x - half * 0.8, y - half * 0.8, x + half * 0.8, y + half * 0.8, face)
        pen.polygon([(x - 0.2, y + 0.22), (x, y - 0.24), (x + 0.2, y + 0.22)], letter)
        pen.polygon([(x - 0.08, y + 0.14), (x, y - 0.04), (x + 0.08, y + 0.14)], face)


def _ball(pen: Pen, colors: Palette, rng: Generator) -> None:
    radius, start = rng.uniform(0.8, 0.92), rng.uniform(0, 60)
    pen.ellipse(0, 0, radius, radius, colors.main)
    for index in range(6):
        angles = np.radians(np.linspace(start + index * 60, start + index * 60 + 60, 9))
        fan = [(0.0, 0.0), *[(float(np.cos(a)) * radius, float(np.sin(a)) * radius) for a in angles]]
        pen.polygon(fan, (colors.main, colors.detail)[index % 2])
    pen.ellipse(0, 0, 0.18, 0.18, colors.second)


PRODUCTS: dict[str, dict[str, Drawer]] = {
    "electronics": {"phone": _phone, "laptop": _laptop, "headphones": _headphones, "camera": _camera},
    "clothing": {"t-shirt": _t_shirt, "jumper": _jumper, "trousers": _trousers, "dress": _dress},
    "home": {"lamp": _lamp, "chair": _chair, "mug": _mug, "plant": _plant},
    "books": {"hardcover": _closed_book, "open book": _open_book, "book stack": _stack, "book set": _row},
    "toys": {"teddy": _teddy, "car": _car, "building blocks": _blocks, "ball": _ball},
}
