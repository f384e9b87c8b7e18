"""How much the finders find, and how much wrongly, on cases made for it with a seed.

The figures are of generated cases, not of anybody's catalogue: texts from templates in the ways that people write, and scikit-image's
bundled faces (100 press photographs of 25 pixels, Labeled Faces in the Wild) enlarged and blended into its other pictures. They show
what kinds of cases are missed, and that a detector works at all; real photographs, with profiles, hats and hands, are harder.
"""

import copy
import functools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.ingest.privacy.faces import Box, FaceFinder
from pipeline_project.ingest.privacy.text import KINDS, mask_personal_data
from pipeline_project.statistics.intervals import wilson_interval

CASES = 200
PICTURE_SIDE = 320
FACE_SHARES = (0.1, 0.15, 0.25, 0.5)
TILTS = (0.0, 15.0, 30.0)
BRIGHTNESSES = (0.35, 1.0, 1.5)
_FACES = 100  # of the bundled pictures, the first are faces
_CROP = 25

_FRAMES = ("{}", "Leather bag, questions to {} please", "{} - hand made shirt", "Size M (contact: {})", "Sold by Anna, {}; new", "call {}!")
_NAMES = ("anna.berg", "j_smith", "o'neill", "info+shop", "m.garcia-lopez", "x2000", "sales")
_HOSTS = ("example.com", "mail.example.co.uk", "shop-online.de", "a.museum", "b\u00fccher.example")


def text_recall(phone_regions: Sequence[str] | None = None, *, seed: int = 1, cases: int = CASES) -> dict[str, Any]:
    """Recall of each kind, and false hits in ordinary product texts; measured once a process.

    Returns:
        {"kinds": {kind: {cases, found, recall, low, high}}, "clean": {texts, with_false_hits, share, low, high, by_kind}, "seed"}; `found`
        counts texts from which the whole of the planted piece is gone; low and high are 95% Wilson bounds.
    """
    return copy.deepcopy(_text_recall(None if phone_regions is None else tuple(phone_regions), seed, cases))


@functools.cache
def _text_recall(phone_regions: tuple[str, ...] | None, seed: int, cases: int) -> dict[str, Any]:
    draw = random.Random(seed)  # noqa: S311
    kinds = {}
    for kind in KINDS:
        found = 0
        for _ in range(cases):
            piece = personal_piece(kind, draw)
            masked, hits = mask_personal_data(draw.choice(_FRAMES).format(piece), phone_regions)
            found += hits[kind] == 1 and hits.total() == 1 and masked.count(f"[{kind}]") == 1 and not _left_over(piece, masked)
        kinds[kind] = {"cases": cases, "found": found, "recall": round(found / cases, 4), **_bounds(found, cases)}
    wrong, by_kind = 0, Counter[str]()
    for _ in range(cases * 3):
        hits = mask_personal_data(clean_text(draw), phone_regions)[1]
        wrong += bool(hits)
        by_kind.update(hits)
    clean = {"texts": cases * 3, "with_false_hits": wrong, "share": round(wrong / (cases * 3), 4), **_bounds(wrong, cases * 3)}
    return {"kinds": kinds, "clean": {**clean, "by_kind": dict(sorted(by_kind.items()))}, "seed": seed}


def _left_over(piece: str, masked: str) -> bool:
    """Whether a run of four of the piece's digits is still there."""
    digits = "".join(c for c in piece if c.isdigit())
    rest = "".join(c if c.isdigit() else " " for c in masked)
    return len(digits) >= 7 and any(len(run) >= 4 and run in digits for run in rest.split())


def _bounds(successes: int, trials: int) -> dict[str, float]:
    low, high = wilson_interval(successes, trials)
    return {"low": round(low, 4), "high": round(high, 4)}


def personal_piece(kind: str, draw: random.Random) -> str:
    """One e-mail address, card number, IBAN, IP address or telephone number as people write them."""
    makers: Mapping[str, Callable[[random.Random], str]] = {
        "email": _email, "card": _card, "iban": _iban, "ip_address": _ip_address, "phone": _phone
    }  # fmt: skip
    return makers[kind](draw)


def _email(draw: random.Random) -> str:
    name, host = draw.choice(_NAMES), draw.choice(_HOSTS)
    if draw.random() < 0.1:
        return f"{name} (at) {host.replace('.', ' (dot) ')}"
    return draw.choice(("{}@{}", "{}@{}", "mailto:{}@{}", "<{}@{}>")).format(name, host)


def _digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choice("0123456789") for _ in range(count))


def _card(draw: random.Random) -> str:
    start, length, groups = draw.choice(
        [("4", 16, (4, 4, 4, 4)), ("52", 16, (4, 4, 4, 4)), ("2720", 16, (4, 4, 4, 4)), ("37", 15, (4, 6, 5)), ("6011", 16, (4, 4, 4, 4)),
         ("36", 14, (4, 6, 4)), ("3530", 16, (4, 4, 4, 4)), ("6212", 19, (4, 4, 4, 4, 3))]
    )  # fmt: skip
    body = start + _digits(draw, length - 1 - len(start))
    total = sum(int(d) if n % 2 else int(d) * 2 - 9 * (int(d) > 4) for n, d in enumerate(reversed(body)))
    return _grouped(body + str(-total % 10), groups, draw.choice(("", " ", "-", ".", "\u00a0")))


def _iban(draw: random.Random) -> str:
    country, length, letters = draw.choice(
        [("DE", 22, ""), ("GB", 22, "WEST"), ("FR", 27, ""), ("NL", 18, "ABNA"), ("NO", 15, ""), ("IT", 27, "X")]
    )
    body = letters + _digits(draw, length - 4 - len(letters))
    check = 98 - int("".join(str(int(c, 36)) for c in f"{body}{country}00")) % 97
    text = f"{country}{check:02d}{body}"
    text = text.lower() if draw.random() < 0.1 else text
    return text if draw.random() < 0.5 else " ".join(text[i : i + 4] for i in range(0, len(text), 4))


def _ip_address(draw: random.Random) -> str:
    if draw.random() < 0.25:
        return (
            ":".join(f"{draw.randrange(1, 65536):x}" for _ in range(8)) if draw.random() < 0.5 else f"2001:db8::{draw.randrange(65536):x}"
        )
    return ".".join(str(draw.randrange(1, 255)) for _ in range(4))


def _phone(draw: random.Random) -> str:
    """A number of Germany, Great Britain or the United States, or an international one; some without any separator."""
    d = functools.partial(_digits, draw)
    forms = (
        lambda: f"+49 {draw.choice(('30', '89', '171', '40'))} {d(4)} {d(4)}",
        lambda: f"+49{draw.choice(('30', '171', '152'))}{d(7)}",
        lambda: f"+49 (0){draw.choice(('30', '221'))} {d(6)}",
        lambda: f"0049 {draw.choice(('30', '171'))} {d(7)}",
        lambda: f"0{draw.choice(('30', '89', '221', '6221'))}/{d(6)}",
        lambda: f"0{draw.choice(('171', '152', '160'))} {d(7)}",
        lambda: f"0{draw.choice(('171', '152', '160'))}{d(7)}",
        lambda: f"(0{draw.choice(('30', '40'))}) {d(3)} {d(4)}",
        lambda: f"020 {draw.choice('3789')}{d(3)} {d(4)}",
        lambda: f"07{draw.choice('4579')}{d(2)} {d(3)} {d(3)}",
        lambda: f"07{draw.choice('4579')}{d(8)}",
        lambda: f"0161 {draw.choice('2345')}{d(2)} {d(4)}",
        lambda: f"+44 20 {draw.choice('378')}{d(3)} {d(4)}",
        lambda: f"({draw.randrange(201, 990)}) {draw.randrange(200, 1000)}-{d(4)}",
        lambda: f"{draw.randrange(201, 990)}-{draw.randrange(200, 1000)}-{d(4)}",
        lambda: f"{draw.randrange(201, 990)}.{draw.randrange(200, 1000)}.{d(4)}",
        lambda: f"+1 {draw.randrange(201, 990)} {draw.randrange(200, 1000)} {d(4)}",
        lambda: f"{draw.randrange(201, 990)}{draw.randrange(200, 1000)}{d(4)}",  # cannot be told from an article number
        lambda: f"+33 {draw.choice('12345679')} {d(2)} {d(2)} {d(2)} {d(2)}",
        lambda: f"+91 {draw.choice('6789')}{d(4)} {d(5)}",
        lambda: f"+351 9{d(2)} {d(3)} {d(3)}",
    )
    return draw.choice(forms)()


def _grouped(digits: str, groups: Sequence[int], gap: str) -> str:
    parts, start = [], 0
    for size in groups:
        parts.append(digits[start : start + size])
        start += size
    return gap.join(parts)


def _gtin(draw: random.Random, length: int, start: str = "") -> str:
    body = start + _digits(draw, length - 1 - len(start))
    total = sum(int(d) * (3, 1)[n % 2] for n, d in enumerate(reversed(body)))
    return body + str(-total % 10)


def clean_text(draw: random.Random) -> str:
    """A product text with the numbers that products have, and nothing of a person."""
    r = draw.randrange
    day = f"{r(1, 29):02d}", f"{r(1, 13):02d}", str(r(1990, 2031))
    forms = (
        lambda: f"EAN {_gtin(draw, 13, draw.choice(('40', '50', '978', '')))}",
        lambda: f"UPC {_gtin(draw, 12, '0')} pack of {r(2, 20)}",
        lambda: f"GTIN {_gtin(draw, 14, draw.choice(('1', '3', '')))}",
        lambda: f"ISBN 978-{r(0, 10)}-{r(10, 100)}-{r(100000, 1000000)}-{r(0, 10)}",
        lambda: f"ISBN {r(0, 10)}-{r(100, 1000)}-{r(10000, 100000)}-{r(0, 10)}",
        lambda: f"Table {r(20, 300)} x {r(20, 300)} x {r(20, 300)} cm",
        lambda: f"Shirt size {r(34, 60)}/{r(34, 60)}, {r(1, 300)}.{r(0, 100):02d} EUR",
        lambda: f"was ${r(1, 10)},{r(100, 1000)}.{r(0, 100):02d}, now {r(100, 1000)}.99",
        lambda: f"{r(1, 10)}.{r(100, 1000)}.{r(100, 1000)},{r(10, 100)} EUR",
        lambda: f"SKU {r(1000, 10000)}-{r(10, 100)}-{draw.choice('ABCXYZ')}{r(100, 1000)}",
        lambda: f"article {r(10**7, 10**10)}",
        lambda: f"Art.-Nr. {r(100, 1000)}.{r(100, 1000)}.{r(10, 100)}",
        lambda: f"Calendar from {day[2]}-{day[1]}-{day[0]}",
        lambda: f"made on {day[0]}.{day[1]}.{day[2]} {r(0, 24):02d}:{r(0, 60):02d}",
        lambda: f"delivery {day[1]}/{day[0]}/{day[2]} to {day[1]}/{day[0]}/{int(day[2]) + 1}",
        lambda: f"at {day[2]}-{day[1]}-{day[0]}T{r(0, 24):02d}:{r(0, 60):02d}:{r(0, 60):02d}Z",
        lambda: f"phone {r(32, 1024)}/{r(32, 1024)} GB, {r(5, 8)}.{r(0, 10)} inch, {day[2]}",
        lambda: f"mobile {day[2]}-{int(day[2]) + 2} edition",
        lambda: f"firmware {r(1, 20)}.{r(0, 100)}.{r(0, 100)}.{r(0, 1000)}",
        lambda: f"{r(100, 1000)} {r(100, 1000)} {r(100, 1000)} pieces in stock",
        lambda: f"{r(1, 9)}@{r(1, 100)}.{r(10, 100)} each",
        lambda: f"serial {draw.choice('ABCDE')}{r(10, 100)}{draw.choice('XYZ')}{_digits(draw, 10)}",
        lambda: f"parcel {_digits(draw, 20)}",
        lambda: f"MAC {':'.join(f'{r(256):02x}' for _ in range(6))}",
        lambda: f"resistors {r(1, 99)}0 ohm +-{r(1, 20)}% at -{r(10, 60)}...+{r(60, 200)} C",
        lambda: f"model {r(1000, 10000)} {r(1000, 10000)}, {r(1, 50)} kg",
        lambda: f"colour #{r(2**24):06x}, hash {r(2**64):016x}",
        lambda: f"{r(1900, 2030)}/{r(10, 100)} collection no. {r(1, 1000):03d}-{r(1, 100):02d}",
    )
    return draw.choice(forms)()


def face_recall(finder: FaceFinder, *, seed: int = 1, cases: int = 8) -> dict[str, Any]:
    """Recall over the size, tilt and brightness of one face a picture, and false hits in pictures without any.

    Args:
        finder: the detector.
        seed: which faces, where, on which picture.
        cases: pictures a point, of which there are `len(FACE_SHARES) + len(TILTS) + len(BRIGHTNESSES) - 2`; twice as many show no face.

    Returns:
        {"points": [{share, tilt, brightness, cases, found, recall, low, high}],
        "without_face": {pictures, with_false_hits, share, low, high}, "seed"}. `share` is the face's width over the picture's.
    """
    usual = FACE_SHARES[2], TILTS[0], 1.0
    settings = {(share, *usual[1:]) for share in FACE_SHARES}
    settings |= {(usual[0], tilt, usual[2]) for tilt in TILTS} | {(*usual[:2], brightness) for brightness in BRIGHTNESSES}
    points = []
    for share, tilt, brightness in sorted(settings):
        found = 0
        for case in range(cases):
            picture, box = face_picture(case * 7919 + seed, share=share, tilt=tilt, brightness=brightness)
            found += any(_covers(hit, box) for hit in finder.find(picture))
        points.append(
            {"share": share, "tilt": tilt, "brightness": brightness, "cases": cases, "found": found, "recall": round(found / cases, 4)}
            | _bounds(found, cases)
        )
    empty = [finder.find(face_picture(case * 7919 + seed, face=False)[0]) for case in range(cases * 2)]
    wrong = sum(map(bool, empty))
    without = {"pictures": len(empty), "with_false_hits": wrong, "share": round(wrong / len(empty), 4), **_bounds(wrong, len(empty))}
    return {"points": points, "without_face": without, "seed": seed}


def face_picture(
    seed: int, *, share: float = 0.25, tilt: float = 0.0, brightness: float = 1.0, face: bool = True
) -> tuple[NDArray[np.uint8], Box]:
    """A picture (320, 320, 3) uint8 with one real face blended into it, and where it is.

    Args:
        seed: chooses face, place and picture; neighbours differ in all of them.
        share: the face's width over the picture's.
        tilt: degrees.
        brightness: factor on all pixels; 1 leaves them.
        face: False blends in one of the bundled pictures that show no face, in the same way.
    """
    import cv2

    draw = np.random.default_rng(seed)
    crops, scenes = _bundled()
    scene = scenes[int(draw.integers(len(scenes)))].astype(np.float32)
    scene = scene[:, ::-1] if draw.random() < 0.5 else scene
    crop: NDArray[np.float32] = crops[int(draw.integers(_FACES)) + (0 if face else _FACES)]
    side = max(8, round(share * PICTURE_SIDE))
    border = _CROP // 3
    patch: NDArray[Any] = cv2.copyMakeBorder(crop, border, border, border, border, cv2.BORDER_REFLECT)
    whole = round(side * (_CROP + 2 * border) / _CROP)
    turn = cv2.getRotationMatrix2D((whole / 2, whole / 2), tilt, 1.0)
    patch = cv2.warpAffine(
        cv2.resize(patch, (whole, whole), interpolation=cv2.INTER_CUBIC), turn, (whole, whole), borderMode=cv2.BORDER_REFLECT
    )
    mask: NDArray[Any] = np.zeros((whole, whole), np.float32)
    cv2.ellipse(mask, (whole // 2, whole // 2), (round(whole * 0.38), round(whole * 0.44)), tilt, 0, 360, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), whole * 0.04)[..., None]
    room = PICTURE_SIDE - whole
    x, y = (int(draw.integers(0, room + 1)) for _ in range(2))
    skin = np.clip(patch, 0, 255)[..., None] * np.array([1.08, 1.0, 0.9], np.float32)
    picture = scene.copy()
    picture[y : y + whole, x : x + whole] = picture[y : y + whole, x : x + whole] * (1 - mask) + skin * mask
    edge = (whole - side) // 2
    return np.clip(picture * brightness, 0, 255).astype(np.uint8), Box(x + edge, y + edge, side, side)


@functools.cache
def _bundled() -> tuple[NDArray[np.float32], list[NDArray[np.uint8]]]:
    """The bundled crops (200, 25, 25) 0-255, faces first, and scenes (320, 320, 3) without a human face."""
    from PIL import Image
    from skimage import data

    crops = (data.lfw_subset() * 255).astype(np.float32)  # type: ignore[no-untyped-call,unused-ignore]
    scenes = []
    for name in ("coffee", "brick", "rocket", "chelsea", "grass", "gravel", "page", "motorcycle_left"):
        path = f"{data.__path__[0]}/{name}.{'jpg' if name == 'rocket' else 'png'}"
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)
        scenes.append(np.asarray(small))
    return crops, scenes


def _covers(hit: Box, face: Box) -> bool:
    """Whether a hit, with the margin that masking adds, takes in the middle of the face and is of its size."""
    centre_x, centre_y = face.x + face.width / 2, face.y + face.height / 2
    inside = hit.x <= centre_x <= hit.x + hit.width and hit.y <= centre_y <= hit.y + hit.height
    return inside and 0.5 <= hit.width / face.width <= 2.5
