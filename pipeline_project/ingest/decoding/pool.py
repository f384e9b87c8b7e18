"""Worker processes, one pipe each: whatever happens to one of them, and at whatever moment, concerns its own batch only.

A pool with one pipe for all (multiprocessing.Pool, concurrent.futures, pebble) stalls when a process is killed while it holds the pipe's
lock or has sent half a message.
"""

import multiprocessing
import queue
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline_project.ingest.decoding.rows import Row
from pipeline_project.ingest.decoding.worker import OUT_OF_MEMORY, READY, Batch, Orders, receive_raw, serve
from pipeline_project.ingest.sources import SourceUnreachableError
from pipeline_project.settings import child_environment

TRANSIENT = frozenset({"decode_time", "decoder_crashed"})
"""Reject codes that say something of the machine, too: such images are tried again by the next run."""
_DEATHS = 2  # of workers at an image before it is blamed
_KILLS = 6  # where the worker was killed from outside: by an operator, or by a system out of memory
_START_S = 120.0
_ENDING_S = 30.0  # a process that has closed its pipe is ending, perhaps with much memory to give back
_PATIENCE_S = 900.0  # for a source that answers neither with bytes nor with an error
_FORKING = multiprocessing.get_context("forkserver")

Looked = tuple[list[Row], list[memoryview]]


class _WorkerDiedError(Exception):
    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


class DecodingPool:
    """Looks at batches of objects. Leaves no process behind, however its block is left.

    Args:
        workers: processes, started when first needed.
    """

    def __init__(self, orders: Orders, workers: int) -> None:
        self._decoders = [_Decoder(orders) for _ in range(workers)]
        self._idle: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()
        for decoder in self._decoders:
            self._idle.put(decoder)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decoding")

    def __enter__(self) -> "DecodingPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for decoder in self._decoders:
            decoder.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()

    def submit(self, keys: Sequence[str], into: tuple[str, Mapping[str, int]] | None = None) -> "Future[Looked]":
        """The rows of these objects in order, and the bytes of the pixels of those that can be used, unless they go `into` a file.

        The future raises `SourceError` or `FileNotFoundError` as the source does.
        """
        return self._threads.submit(self._run, Batch(tuple(keys), into=into))

    def _run(self, batch: Batch) -> Looked:
        decoder = self._idle.get()
        try:
            return decoder.look_at(batch)
        finally:
            self._idle.put(decoder)


class _Decoder:
    """One worker process, started anew when it has died."""

    def __init__(self, orders: Orders) -> None:
        self._orders, self._stopped = orders, False
        self._process: ForkServerProcess | None = None
        self._pipe: Connection | None = None

    def look_at(self, batch: Batch) -> Looked:
        try:
            return self._ask(batch)
        except _WorkerDiedError as death:
            first = death
        rows: list[Row] = []
        pixels: list[memoryview] = []
        for key in batch.keys:  # one of them did it, and only that one shall bear it
            one, image = self._alone(replace(batch, keys=(key,)), first if len(batch.keys) == 1 else None)
            rows += one
            pixels += image
        return rows, pixels

    def _alone(self, batch: Batch, earlier: _WorkerDiedError | None) -> Looked:
        deaths, kills = (0, 0) if earlier is None else _counted(earlier, 0, 0)
        while True:
            try:
                return self._ask(batch)
            except _WorkerDiedError as death:
                deaths, kills = _counted(death, deaths, kills)
                if deaths >= _DEATHS or kills >= _KILLS:
                    code, detail = self._blame(death.status)
                    (row,), _ = self._ask(replace(batch, decode=False))
                    return [row if row.code else replace(row, code=code, detail=detail)], []

    def _ask(self, batch: Batch) -> Looked:
        pipe, keys = self._started(), batch.keys
        try:
            pipe.send(batch)
            seconds = _PATIENCE_S + len(keys) * self._orders.settings.ingest.decode_seconds
            if not pipe.poll(seconds):
                if self._process is not None:
                    self._process.kill()
                self._end()
                raise SourceUnreachableError(
                    f"data.source: no answer within {seconds:.0f} s when reading {keys[0]} and {len(keys) - 1} more. "
                    "Check the source and the network, then materialize validated_manifest again."
                )
            answer = pipe.recv()
            if isinstance(answer, Exception):
                raise answer
            rows, sizes = answer
            pixels = receive_raw(pipe, sum(sizes))
            ends = list(accumulate(sizes))
            return rows, [pixels[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        except (EOFError, ConnectionError):
            raise _WorkerDiedError(self._end()) from None

    def _started(self) -> Connection:
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        status: int | None = None
        for _ in range(_KILLS):
            self._end()
            try:
                pipe = self._start()
            except (EOFError, OSError):  # the fork server was killed; the next start begins with another one
                status = -signal.SIGKILL
                continue
            answer: Any = None
            with suppress(EOFError, ConnectionError):
                answer = pipe.recv() if pipe.poll(_START_S) else None
            if isinstance(answer, Exception):
                self._end()
                raise answer
            if answer == READY:
                return pipe
            status = self._end()
            if status != -signal.SIGKILL:  # not by a hand from outside: it would not start the next time either
                break
        raise RuntimeError(f"A process that decodes images did not start (exit status {status}). See what it wrote to the log above.")

    def _start(self) -> Connection:
        _FORKING.set_forkserver_preload(["pipeline_project.ingest.decoding.preloaded"])
        self._pipe, theirs = _FORKING.Pipe()
        told = (theirs, self._orders, child_environment(self._orders.settings), str(Path.cwd()))
        process = _FORKING.Process(target=serve, args=told, name="image-decoder", daemon=True)
        process.start()
        theirs.close()  # so that the end of the worker is the end of the pipe
        self._process = process
        if self._stopped:  # while it was starting
            process.kill()
        return self._pipe

    def stop(self) -> None:
        """End the process now; a batch that it is at fails."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def close(self) -> None:
        """Give the pipe back, after `stop`."""
        with suppress(CancelledError):
            self._end()

    def _end(self) -> int | None:
        """Collect what is left of the process. Returns its exit status."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if pipe is not None:
            pipe.close()
        if process is None:
            return None
        process.join(_ENDING_S)
        if process.is_alive():
            process.kill()
            process.join()
        if self._stopped:
            raise CancelledError
        return process.exitcode

    def _blame(self, status: int | None) -> tuple[str, str]:
        ingest = self._orders.settings.ingest
        if status == -signal.SIGALRM:
            return "decode_time", f"decoding takes longer than ingest.decode_seconds ({ingest.decode_seconds:g} s)"
        if status == OUT_OF_MEMORY:
            return "decoder_crashed", f"decoding needs more memory than ingest.decode_memory_mb ({ingest.decode_memory_mb} MB)"
        how = signal.Signals(-status).name if status is not None and status < 0 else f"exit status {status}"
        return "decoder_crashed", f"the decoder does not survive it ({how})"


def _counted(death: _WorkerDiedError, deaths: int, kills: int) -> tuple[int, int]:
    return (deaths, kills + 1) if death.status == -signal.SIGKILL else (deaths + 1, kills)
