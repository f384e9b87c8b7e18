"""A closed-loop load generator for the prediction API, cheap enough to share a small machine with the server.

It runs in a process of its own (`python -m pipeline_project.evaluation.load ORDER`), with prebuilt requests on raw keep-alive sockets,
so that neither the caller's interpreter lock nor an HTTP library is what is measured.
"""

import json
import re
import secrets
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:\s*close", re.IGNORECASE)
_TIMEOUT_S = 30.0


class LoadError(ValueError):
    """The load test could not be run, or no request at all was answered."""


@dataclass(frozen=True)
class LoadResult:
    """What a closed loop of clients saw.

    Args:
        requests: answered with 200.
        errors: answered otherwise, or not at all.
        throughput_rps: requests a second of the whole run.
        p50_ms, p95_ms, p99_ms: percentiles of the latency of answered requests, as the client sees it, milliseconds.
        latencies: of every answered request in order of completion, milliseconds.
        first_error: what the first error was, for people; None without one.
        duration_s: of the run, until the last answer.
    """

    requests: int
    errors: int
    throughput_rps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    latencies: list[float] = field(repr=False)
    first_error: str | None = None
    duration_s: float = 0.0


def run_load(url: str, images: Sequence[bytes], connections: int, duration_s: float) -> LoadResult:
    """Send images to POST /predict for a while, each connection as fast as it is answered.

    Args:
        url: of the server, http.
        images: encoded images, sent in turn.
        connections: concurrent keep-alive connections.
        duration_s: seconds.

    Raises:
        LoadError: there are no images, or no request was answered; the message holds the first error.
    """
    if not images or connections < 1 or duration_s <= 0:
        raise LoadError("a load test needs at least one image, one connection and a duration above 0.")
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        with (Path(folder) / "images.bin").open("wb") as file:
            for image in images:
                file.write(struct.pack(">I", len(image)) + image)
        order = {"url": url, "connections": connections, "duration_s": duration_s, "folder": folder}
        done = subprocess.run(
            [sys.executable, "-m", "pipeline_project.evaluation.load", json.dumps(order)],
            capture_output=True,
            text=True,
            timeout=duration_s + 2 * _TIMEOUT_S,
            process_group=0,
            check=False,
        )
        if done.returncode != 0:
            raise LoadError(f"the load generator failed: {done.stderr[-1000:]}")
        latencies = np.load(Path(folder) / "latencies.npy", allow_pickle=False)
        summary = json.loads(done.stdout)
    if not latencies.size:
        raise LoadError(f"{url} answered none of {summary['errors']} requests; the first error: {summary['first_error']}")
    p50, p95, p99 = (float(value) for value in np.percentile(latencies, [50, 95, 99], method="higher"))
    seconds = summary["seconds"]
    return LoadResult(
        int(latencies.size),
        summary["errors"],
        latencies.size / seconds,
        p50,
        p95,
        p99,
        [round(float(value), 3) for value in latencies],
        summary["first_error"],
        seconds,
    )


class _Client(threading.Thread):
    """One connection's loop."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes], first: int, start: threading.Barrier, duration_s: float) -> None:
        super().__init__(daemon=True)
        self._address, self._requests, self._next = (host, port), requests, first
        self._start_barrier, self._duration_s = start, duration_s
        self._socket: socket.socket | None = None
        self.latencies: list[tuple[float, float]] = []
        self.errors: list[str] = []

    def run(self) -> None:
        self._start_barrier.wait()
        deadline = time.perf_counter() + self._duration_s
        while (started := time.perf_counter()) < deadline:
            try:
                status = self._one(self._requests[self._next % len(self._requests)])
            except OSError as error:
                self._close()
                self.errors.append(f"{type(error).__name__}: {error}")
                time.sleep(0.01)  # a server that is away must not be hammered
                continue
            finally:
                self._next += 1
            ended = time.perf_counter()
            if status == 200:
                self.latencies.append((ended, (ended - started) * 1000))
            else:
                self.errors.append(f"HTTP {status}")
                time.sleep(0.01)
        self._close()

    def _one(self, request: bytes) -> int:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=_TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        head = received[:end]
        length = _CONTENT_LENGTH.search(head)
        missing = int(length[1]) - (len(received) - end - 4) if length else 0
        while missing > 0:
            missing -= len(self._more())
        if _CLOSES.search(head):
            self._close()
        return int(head[9:12])

    def _more(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("the server closed the connection before the answer was whole")
        return data

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _request(host: str, port: int, image: bytes) -> bytes:
    boundary = secrets.token_hex(16)
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="image"\r\nContent-Type: application/octet-stream\r\n\r\n'
    ).encode()
    body += image + f"\r\n--{boundary}--\r\n".encode()
    head = f"POST /predict HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: multipart/form-data; boundary={boundary}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _read_images(path: Path) -> list[bytes]:
    data, images, place = path.read_bytes(), [], 0
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        images.append(data[place + 4 : place + 4 + size])
        place += 4 + size
    return images


def _main(order: dict[str, str]) -> None:
    folder, connections = Path(order["folder"]), int(order["connections"])
    address = urlsplit(order["url"])
    host, port = address.hostname or "127.0.0.1", address.port or 80
    requests = [_request(host, port, image) for image in _read_images(folder / "images.bin")]
    start = threading.Barrier(connections + 1)
    clients = [_Client(host, port, requests, index, start, float(order["duration_s"])) for index in range(connections)]
    for client in clients:
        client.start()
    start.wait()
    began = time.perf_counter()
    for client in clients:
        client.join()
    answered = sorted(pair for client in clients for pair in client.latencies)
    errors = [error for client in clients for error in client.errors]
    np.save(folder / "latencies.npy", np.array([latency for _, latency in answered], np.float64))
    summary = {"errors": len(errors), "first_error": errors[0] if errors else None, "seconds": time.perf_counter() - began}
    sys.stdout.write(json.dumps(summary))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
