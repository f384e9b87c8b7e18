"""Where worker processes put the pixels of a bucket: a local file with a slot for each object, so that no pixel goes through a pipe.

What is left of a killed run is removed by the next one.
"""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

HEADER = 128
"""Bytes before the first slot: the header of the .npy format, of one length for every number of images."""


@contextmanager
def pixel_folder(home: Path) -> Iterator[Path]:
    """A folder for the pixel files of one run; removed at the end, as are those of runs that were killed."""
    place = home / "cache" / "decoding"
    place.mkdir(parents=True, exist_ok=True)
    for left in place.iterdir():
        if not _alive(left.name.partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class PixelFile:
    """The file of one bucket.

    Args:
        path: where; it must not exist.
        objects: slots.
        size: side of the square images in pixels.
    """

    def __init__(self, path: Path, objects: int, size: int) -> None:
        self.path, self._objects, self._size = path, objects, size
        self._row = size * size * 3
        with path.open("xb") as file:
            file.truncate(HEADER + objects * self._row)

    def offset(self, slot: int) -> int:
        """Where a slot begins, in bytes."""
        return HEADER + slot * self._row

    def put(self, slot: int, pixels: bytes | memoryview) -> None:
        """Fill a slot."""
        with opened(self.path) as file:
            write_at(file, self.offset(slot), pixels)

    def finish(self) -> Path:
        """Make it an (objects, size, size, 3) uint8 array, zeros where no slot was filled. Returns its path."""
        with self.path.open("r+b") as file:
            file.write(npy_header(self._objects, self._size))
        return self.path

    def remove(self) -> None:
        """Give its room back; a store that took the file keeps it."""
        self.path.unlink(missing_ok=True)


def npy_header(images: int, size: int) -> bytes:
    """The first `HEADER` bytes of a .npy file with an (images, size, size, 3) uint8 array."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (images, size, size, 3)})
    assert header.tell() == HEADER
    return header.getvalue()


@contextmanager
def opened(path: Path | str) -> Iterator[int]:
    """A pixel file, for `write_at`."""
    file = os.open(path, os.O_WRONLY)
    try:
        yield file
    finally:
        os.close(file)


def write_at(file: int, offset: int, data: bytes | memoryview) -> None:
    """Write all of the bytes there."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True
