"""Damaged and strange images made from real-looking ones, and a process that decodes them under a memory limit.

`python -m pipeline_project_tests.imaging.fuzzing COUNT SEED SPARE_MB` prints a JSON line before and after every case: what it was, and
what came of it.
"""

import io
import json
import resource
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from pipeline_project.imaging import DecodeLimits, ImageRejectedError, decode_image, measure, perceptual_hash, to_pixels
from pipeline_project.imaging.jpeg import JpegLayout
from pipeline_project.sample import PRODUCTS, product_photo
from pipeline_project_tests.imaging.files import ANY, CODES, encoded, icc, matrix_profile, png, png_chunk, segment, smooth

LIMITS = DecodeLimits(ANY, max_bytes=20_000_000, max_pixels=50_000_000, min_side=16)
CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"
SIZE = 64
PROFILE = matrix_profile(1.8, [(0.6, 0.3, 0.02), (0.2, 0.63, 0.06), (0.15, 0.06, 0.74)])
Damage = Callable[[Generator, str, bytes, dict[str, bytes]], bytes]


def originals(rng: Generator) -> dict[str, bytes]:
    """Undamaged files of every kind, from drawn photos, and real ones where they are at hand."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    photos = [product_photo(label, rng) for label in sorted(PRODUCTS)]
    image = Image.open(io.BytesIO(photos[0]))
    found = {f"drawn{number}.jpg": photo for number, photo in enumerate(photos)}
    found |= {
        "progressive.jpg": encoded(image, "JPEG", progressive=True, exif=exif),
        "restarts.jpg": encoded(image, "JPEG", restart_marker_blocks=8),
        "inks.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "grey.jpg": encoded(image.convert("L"), "JPEG"),
        "profiled.jpg": encoded(image, "JPEG", icc_profile=PROFILE),
        "profiled.webp": encoded(image, "WEBP", icc_profile=PROFILE),
        "plain.png": encoded(image, exif=exif),
        "interlaced.png": encoded(image.quantize(32)),
        "alpha.png": encoded(image.convert("RGBA")),
        "deep.png": encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)),
        "lossy.webp": encoded(image, "WEBP", exif=exif),
        "lossless.webp": encoded(image.convert("RGBA"), "WEBP", lossless=True),
        "plain.gif": encoded(image, "GIF"),
        "plain.bmp": encoded(image, "BMP"),
        "plain.tiff": encoded(image, "TIFF"),
        "lzw.tiff": encoded(image, "TIFF", compression="tiff_lzw"),
        "jpeg.tiff": encoded(image, "TIFF", compression="jpeg"),
        "lab.tiff": encoded(Image.merge("LAB", image.split()), "TIFF"),
    }
    if CLOTHING.is_dir():
        found |= {path.name: path.read_bytes() for path in sorted(CLOTHING.rglob("*.jpg"))[::800]}
    return found


# --- ways to damage ---------------------------------------------------------------------------------------------------------------


def flip_bits(rng: Generator, _: str, data: bytes, __: dict[str, bytes]) -> bytes:
    """A few bits anywhere."""
    broken = bytearray(data)
    for place in rng.integers(0, len(broken), rng.integers(1, 9)):
        broken[place] ^= 1 << int(rng.integers(8))
    return bytes(broken)


def flip_header_bits(rng: Generator, _: str, data: bytes, __: dict[str, bytes]) -> bytes:
    """A few bits among the first, where formats keep what decoders believe."""
    return flip_bits(rng, _, data[:200], __) + data[200:]


def cut(rng: Generator, _: str, data: bytes, __: dict[str, bytes]) -> bytes:
    """The end is missing."""
    return data[: int(rng.integers(1, len(data)))]


def lose(rng: Generator, _: str, data: bytes, __: dict[str, bytes]) -> bytes:
    """A block in the middle is missing, as after a broken transfer."""
    start = int(rng.integers(0, len(data)))
    return data[:start] + data[start + int(rng.integers(1, 600)) :]


def blank(rng: Generator, _: str, data: bytes, __: dict[str, bytes]) -> bytes:
    """A block of a disk is zeros, or noise."""
    start, length = int(rng.integers(0, len(data))), int(rng.integers(1, 600))
    return data[:start] + (bytes(length) if rng.random() < 0.5 else rng.bytes(length)) + data[start + length :]


def repeat(rng: Generator, _: str, data: bytes, __: dict[str, bytes]) -> bytes:
    """A block comes twice."""
    start, length = int(rng.integers(0, len(data))), int(rng.integers(1, 600))
    return data[: start + length] + data[start:]


def swap_head(rng: Generator, _: str, data: bytes, others: dict[str, bytes]) -> bytes:
    """The head of one file before the body of another."""
    other = others[str(rng.choice(sorted(others)))]
    length = int(rng.choice([4, 8, 16, 40, 200]))
    return other[:length] + data[length:]


def append(rng: Generator, _: str, data: bytes, others: dict[str, bytes]) -> bytes:
    """A polyglot: an archive, a page or another image behind the image."""
    tails = [b"PK\x03\x04" + rng.bytes(300), b"<script>alert(1)</script>", bytes(500), others[str(rng.choice(sorted(others)))]]
    return data + tails[int(rng.integers(len(tails)))]


def random_bytes(rng: Generator, _: str, data: bytes, __: dict[str, bytes]) -> bytes:
    """Noise behind a true signature."""
    return data[: int(rng.choice([0, 3, 8, 12, 30]))] + rng.bytes(int(rng.integers(0, 2000)))


def other_size(rng: Generator, name: str, data: bytes, _: dict[str, bytes]) -> bytes:
    """A header that names another width and height, with checksums that agree."""
    width, height = (int(value) for value in rng.choice([0, 1, 15, 16, 100, 300, 7000, 16_383, 30_000, 65_535], 2))
    broken = bytearray(data)
    if name.endswith(".jpg"):
        frames = [part.start for part in JpegLayout.of(data).segments if part.marker in (0xC0, 0xC2)]
        broken[frames[0] + 5 : frames[0] + 9] = struct.pack(">HH", height, width)
    elif name.endswith(".png"):
        broken[16:24] = struct.pack(">II", width, height)
        broken[29:33] = struct.pack(">I", zlib.crc32(bytes(broken[12:29])))
    elif name.endswith(".gif"):
        broken[6:10] = struct.pack("<HH", width, height)
    elif name.endswith(".bmp"):
        broken[18:26] = struct.pack("<ii", width, height)
    elif name == "lossy.webp":
        place = data.index(b"\x9d\x01\x2a") + 3
        broken[place : place + 4] = struct.pack("<HH", width & 0x3FFF, height & 0x3FFF)
    elif name.endswith(".tiff"):
        directory = struct.unpack("<I", data[4:8])[0]
        for entry in range(directory + 2, directory + 2 + 12 * struct.unpack("<H", data[directory : directory + 2])[0], 12):
            tag = struct.unpack("<H", data[entry : entry + 2])[0]
            if tag in (256, 257):
                broken[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(broken)


DAMAGES: dict[str, Damage] = {
    "flip": flip_bits, "flip_header": flip_header_bits, "cut": cut, "lose": lose, "blank": blank, "repeat": repeat, "swap_head": swap_head,
    "append": append, "random": random_bytes, "other_size": other_size,
}  # fmt: skip


def bombs() -> dict[str, bytes]:
    """Small files that ask for much."""
    image, zeros = smooth(64, 64), zlib.compress(bytes(60_000_000), 9)
    plain, jpeg = encoded(image), encoded(image, "JPEG", progressive=True)
    last = max(part.start for part in JpegLayout.of(jpeg).segments if part.marker == 0xDA)
    gif = bytearray(encoded(image, "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    found = {f"{name} in {chunk!r}": plain[:33] + png_chunk(chunk, head + zeros) + plain[33:] for name, chunk, head in [
        ("zeros", b"zTXt", b"comment\0\0"), ("zeros", b"iCCP", b"profile\0\0"), ("zeros", b"iTXt", b"comment\0\1\0\0\0"),
    ]}  # fmt: skip
    return found | {
        "png of 900 million pixels": png(30_000, 30_000, bytes(10_000_000)),
        "png of 49 million pixels, most missing": png(7_000, 7_000, bytes(1_000_000)),
        "png of 49 million pixels": png(7_000, 7_000, bytes(7_001 * 7_000)),
        "deep png of 49 million pixels": png(7_000, 7_000, bytes(56_001 * 7_000 // 4), bits=16, colour=6),
        "png of a million chunks": plain[:33] + png_chunk(b"teSt", b"") * 1_000_000 + plain[33:],
        "jpeg of 5,000 scans": jpeg[:-2] + jpeg[last:-2] * 5_000 + jpeg[-2:],
        "jpeg of a million segments": jpeg[:2] + segment(0xFE, b"") * 1_000_000 + jpeg[2:],
        "gif of 4 billion pixels": bytes(gif),
        "profile of 12 MB": encoded(image, "PNG", icc_profile=icc(b"RGB ", [(b"A2B0", bytes(12_000_000))])),
    }


def cases(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files, the bombs among them; each with a name that says how it was made."""
    rng = np.random.default_rng(seed)
    files = originals(rng)
    dangerous = bombs()
    yield from ((f"bomb: {name}", data) for name, data in dangerous.items())
    for name, data in files.items():
        yield f"whole: {name}", data
    ways, names = sorted(DAMAGES), sorted(files)
    for number in range(count - len(dangerous) - len(files)):
        way, name = ways[number % len(ways)], names[number // len(ways) % len(names)]
        yield f"{way}: {name} {number}", DAMAGES[way](rng, name, files[name], files)


def outcome(data: bytes) -> str:
    """What came of an image: its reason, or `accepted` with its notes. Anything else is a fault, and raised."""
    try:
        result = decode_image(data, LIMITS, SIZE)
    except ImageRejectedError as error:
        assert error.code in CODES, error.code
        assert " at 0x" not in error.detail, error.detail
        return error.code
    pixels = to_pixels(result.pixels, SIZE)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert len(perceptual_hash(pixels)) == 16
    assert all(np.isfinite(value) for value in measure(pixels, result.width / result.height).values())
    return " ".join(["accepted", *result.notes])


def peak_mb() -> int:
    """Of this program alone: `ru_maxrss` would also count what its parent held when it started it."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def _tell(**fields: str | int) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main(count: int, seed: int, spare_mb: int) -> None:
    outcome(encoded(smooth(64, 64), "JPEG", icc_profile=PROFILE))  # everything is loaded before memory is limited
    used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + spare_mb * 2**20, resource.RLIM_INFINITY))
    for name, data in cases(count, seed):
        _tell(begins=name)
        _tell(name=name, outcome=outcome(data), again=outcome(data))
    _tell(peak_mb=peak_mb())


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:4]))
