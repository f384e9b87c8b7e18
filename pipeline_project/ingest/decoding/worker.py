"""The worker's side: read objects, look at each under limits of time and memory, send facts and pixels back.

Nothing that an image does to the decoder leaves this process. A decoder that takes too long ends it by SIGALRM, one that takes too much
memory by an exit status; the parent tells by these what was wrong, and which image it was.
"""

import contextlib
import ctypes
import gc
import os
import pickle
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.imaging import ImageRejectedError
from pipeline_project.ingest.decoding.examine import Examined, describe
from pipeline_project.ingest.decoding.pixel_file import opened, write_at
from pipeline_project.ingest.decoding.rows import ERASED, ERASED_DETAIL, Row
from pipeline_project.ingest.sources import open_source
from pipeline_project.settings import Settings, take_environment
from pipeline_project.storage import ByteStore
from pipeline_project.storage.byte_store import open_store
from pipeline_project.storage.overlapped import THREADS, Overlapped

_TOGETHER, _TOGETHER_BYTES = 8, 16 << 20  # decoded images that are resized, hashed and measured in turn
OUT_OF_MEMORY = 77  # exit status
READY = "ready"
_STACK = 1 << 20
_SLACK = 128 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

ExaminerFactory = Callable[[Settings], Callable[[bytes], Examined]]


@dataclass(frozen=True)
class Orders:
    """What a worker needs to know. `erased`: image ids that must not come back; `repairs`: {image id: store key of its repair}."""

    settings: Settings
    examiner: ExaminerFactory
    erased: frozenset[str] = frozenset()
    repairs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Objects to look at, or (`decode` False) only to read and name: their decoder is known to fail.

    `into`: a pixel file and, by key, where in it the pixels go; None where they are wanted back.
    """

    keys: tuple[str, ...]
    decode: bool = True
    into: tuple[str, Mapping[str, int]] | None = None


def serve(pipe: Connection, orders: Orders, environment: Mapping[str, str], folder: str) -> None:
    """Answer batches until the parent closes the pipe or ends. The target of a worker process.

    Args:
        environment: the parent's, where credentials are; the fork server has it as it was when that started.
        folder: the parent's working directory.
    """
    take_environment(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default ends the process, even deep inside a decoder
    threading.stack_size(_STACK)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _keep_freed_memory()
        worker = _Worker(orders)
        _limit_memory(orders.settings.ingest.decode_memory_mb << 20)
    except Exception as error:
        pipe.send(_portable(error))
        os._exit(1)
    gc.freeze()  # what was loaded stays; it need not be looked through again and again
    pipe.send(READY)
    while True:
        try:
            batch = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        try:
            rows, pixels = worker.look_at(batch)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:
            pipe.send(_portable(error))
            continue
        pipe.send((rows, [len(image) for image in pixels]))
        _send_raw(pipe, pixels)


class _Worker:
    def __init__(self, orders: Orders) -> None:
        self._orders, self._settings = orders, orders.settings
        self._source, self._overlapped = open_source(orders.settings), Overlapped()
        self._store: ByteStore | None = open_store(orders.settings) if orders.repairs else None
        self._examine = orders.examiner(orders.settings)
        self._seconds = orders.settings.ingest.decode_seconds

    def look_at(self, batch: Batch) -> tuple[list[Row], list[memoryview]]:
        """The rows of a batch in order, and the pixels of those that can be used, unless they are wanted in a file."""
        rows: list[Row] = []
        pixels: list[memoryview] = []
        waiting: list[tuple[int, Examined]] = []
        path, offsets = batch.into or (None, {})
        with opened(path) if path is not None else nullcontext(-1) as file:

            def finish() -> None:
                for (place, _), about in zip(waiting, describe([found for _, found in waiting]), strict=True):
                    rows[place] = replace(rows[place], perceptual_hash=about.perceptual_hash, measured=about.measured)
                    image = np.ascontiguousarray(about.pixels).data.cast("B")
                    if path is None:
                        pixels.append(image)
                    else:
                        write_at(file, offsets[rows[place].key], image)
                waiting.clear()

            for key, data in zip(batch.keys, self._overlapped.map(self._source.read, batch.keys), strict=True):
                row, found = self._look(key, data, batch.decode)
                if found is not None:
                    waiting.append((len(rows), found))
                rows.append(row)
                if len(waiting) == _TOGETHER or sum(one.rgb.nbytes for _, one in waiting) > _TOGETHER_BYTES:
                    finish()
            finish()
        return rows, pixels

    def _look(self, key: str, data: bytes, decode: bool) -> tuple[Row, Examined | None]:
        source_id, read = sha256_bytes(data), len(data)
        repair = self._orders.repairs.get(source_id)
        image_id = source_id
        if repair is not None and self._store is not None:
            data = self._store.read(repair)
            image_id = sha256_bytes(data)
        known: dict[str, Any] = {"source_id": source_id, "repair": repair, "read": read}
        if image_id in self._orders.erased:
            return Row(key, image_id, len(data), code=ERASED, detail=ERASED_DETAIL, **known), None
        if not decode:
            return Row(key, image_id, len(data), **known), None
        try:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
            found = self._examine(data)
        except ImageRejectedError as reason:
            return Row(key, image_id, len(data), code=reason.code, detail=reason.detail, **known), None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        notes = canonical_json(sorted([*found.notes, *(["repaired"] if repair is not None else [])])).decode()
        facts = (found.format, found.mode, found.width, found.height, notes, None, found.faces)
        return Row(key, image_id, len(data), *facts, **known), found


def _send_raw(pipe: Connection, images: Sequence[memoryview]) -> None:
    """Pixels behind the message of their rows, without the copies that a message of its own costs."""
    for image in images:
        rest = image
        while rest:
            rest = rest[os.write(pipe.fileno(), rest) :]


def receive_raw(pipe: Connection, count: int) -> memoryview:
    """The other side of `_send_raw`. Raises `EOFError` when the sender ends before `count` bytes."""
    found = memoryview(bytearray(count))
    rest = found
    while rest:
        got = os.readv(pipe.fileno(), [rest])
        if not got:
            raise EOFError
        rest = rest[got:]
    return found


def _end_with_parent() -> None:
    """A killed parent leaves no worker behind, also when the worker is busy."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _keep_freed_memory() -> None:
    """Let glibc keep what one image gave back for the next: to ask the kernel for it each time costs an eighth of the whole work."""
    with contextlib.suppress(OSError, AttributeError):  # another libc does as it likes
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def _limit_memory(allowed: int) -> None:
    """Let the process have `allowed` bytes beside what it holds now. Data, not address space: what is only reserved costs nothing."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        status = Path("/proc/self/status").read_text("ascii")
        held = int(status.partition("VmData:")[2].split()[0]) << 10
        limit = held + allowed + THREADS * _STACK + _SLACK
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _portable(error: Exception) -> Exception:
    """The error itself if it survives the way to the parent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # what this process has just written
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
