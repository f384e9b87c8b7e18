"""A TCP proxy on loopback that misbehaves on demand: network faults as they are, below HTTP, in front of any server.

It forwards bytes unread. Faults are set while it runs and concern what comes after.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from typing import Self
from urllib.parse import urlsplit

_PIECE = 65536
_POLL_S = 0.05


class FaultyProxy:
    """Stands before a server.

    Attributes:
        delay_s: each piece of an answer (up to 64 KiB) comes this much later.
        refusals: so many of the next connections are reset as soon as they are made; each one counts down.
        cuts: so many of the next long answers are cut; each one counts down.
        spacing: faults that are counted strike only at each such many occasions, so that none meets all attempts of one request.
        cut_after: an answer is cut, its connection reset, once so many bytes of it went through.
        swallows: so many of the next answers are lost: the request reaches the server, and the connection is reset instead of an answer.
        silent: connections are taken, and nothing is ever answered.
        connections: how many were made so far.
        bytes_back: how many bytes of answers went through so far.
    """

    def __init__(self, endpoint: str) -> None:
        address = urlsplit(endpoint)
        assert address.hostname is not None
        assert address.port is not None
        self._upstream = (address.hostname, address.port)
        self.delay_s = 0.0
        self.refusals = self.cuts = self.swallows = self.connections = self.bytes_back = 0
        self.cut_after = self._occasions = 0
        self.spacing = 1
        self.silent = False
        self._lock = threading.Lock()
        self._closed = False
        self._generation = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(_POLL_S)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def drop_connections(self) -> None:
        """Reset what is open now, so that the next request needs a connection of its own."""
        with self._lock:
            self._generation += 1
        time.sleep(3 * _POLL_S)

    def close(self) -> None:
        """Stop listening and drop every connection: from now on nobody answers here."""
        self._closed = True
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _spend(self, name: str) -> bool:
        with self._lock:
            left: int = getattr(self, name)
            self._occasions += left > 0
            strikes = left > 0 and self._occasions % self.spacing == 0
            if strikes:
                setattr(self, name, left - 1)
            return strikes

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.connections += 1
            if self._spend("refusals"):
                _reset(client)
                continue
            thread = threading.Thread(target=self._forward, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _forward(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.create_connection(self._upstream, timeout=10) as server:
            answered, generation = 0, self._generation  # bytes of the present answer
            while not self._closed and generation == self._generation:
                readable, _, _ = select.select([client, server], [], [], _POLL_S)
                if self.silent:
                    time.sleep(_POLL_S)
                    continue
                if server in readable:
                    piece = server.recv(_PIECE)
                    if not piece:  # the server ends the connection as it should
                        client.close()
                        return
                    if not answered and self._spend("swallows"):
                        break
                    if self.delay_s:
                        time.sleep(self.delay_s)
                    if self.cuts and answered + len(piece) > self.cut_after and self._spend("cuts"):
                        client.sendall(piece[: max(0, self.cut_after - answered)])
                        break
                    answered += len(piece)
                    self.bytes_back += len(piece)
                    client.sendall(piece)
                if client in readable:
                    asked = client.recv(_PIECE)
                    if not asked:
                        break
                    answered = 0
                    server.sendall(asked)
        _reset(client)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, as a dead peer's system answers
        connection.close()
