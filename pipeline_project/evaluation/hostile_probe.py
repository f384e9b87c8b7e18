"""security_scans_clear, the server's half: hostile requests against the real server, byte by byte over a socket.

An HTTP library would refuse to send most of these. The server must answer each with 4xx, and a good request afterwards with 200.
"""

import secrets
import select
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline_project.evaluation.security_scan import Finding

_TIMEOUT_S = 30.0
_LARGE_BYTES = 50_000_000
_BLOCK = b"\0" * 65_536
_INJECTED = "x-injected"


@dataclass(frozen=True)
class Answer:
    """A raw HTTP answer: the status, or None when the connection ended without one, the header lines, and the body."""

    status: int | None
    headers: tuple[str, ...]
    body: bytes


@dataclass(frozen=True)
class Probe:
    """One hostile request. `padding` bytes of zeros follow the body."""

    name: str
    body: bytes
    headers: Mapping[str, bytes]
    target: str = "/predict"
    method: str = "POST"
    padding: int = 0


def hostile_requests(image: bytes) -> list[Probe]:
    """The probes. `image` is a good image, to be cut short."""
    multipart = {"Content-Type": b"multipart/form-data; boundary=probe"}
    return [
        Probe("empty body", b"", {}),
        Probe("empty multipart body", b"", multipart),
        Probe("empty file", form(b""), multipart),
        Probe("truncated image", form(image[: len(image) // 2]), multipart),
        Probe("truncated multipart", form(image)[: len(image) // 2], multipart),
        Probe("text named .jpg", form(b"this is no image, whatever its name says"), multipart),
        Probe("decompression bomb", form(png_bomb(), "bomb.png"), multipart),
        Probe("50 MB body", form(b"", "large.jpg")[:-12], multipart, padding=_LARGE_BYTES),
        Probe("path traversal in the file name", form(b"root:x:0:0", "../../../../etc/passwd"), multipart),
        Probe("path traversal in the address", b"", {}, target="/../../../../etc/passwd", method="GET"),
        Probe("encoded path traversal", b"", {}, target="/%2e%2e/%2e%2e/%2e%2e/etc/passwd", method="GET"),
        Probe("line break in X-Request-ID", b"", {"X-Request-ID": f"a\r{_INJECTED}: yes".encode()}),
        Probe("encoded line break in X-Request-ID", form(b""), multipart | {"X-Request-ID": f"a%0d%0a{_INJECTED}: yes".encode()}),
        Probe("script in X-Request-ID", form(b""), multipart | {"X-Request-ID": b'"><script>alert(1)</script>'}),
        Probe("very long X-Request-ID", form(b""), multipart | {"X-Request-ID": b"a" * 6000}),
        Probe("unknown method", b"", {}, method="PROPFIND"),
    ]


def probe_server(url: str, image: bytes) -> list[Finding]:
    """Send every hostile request, then a good one.

    Args:
        url: the server's address, such as http://127.0.0.1:8001.
        image: the bytes of an image that the server accepts.

    Returns:
        a finding for every answer that is not 4xx, that reflects what was injected or shows a system file, and for a good request
        that is not answered with 200 afterwards.
    """
    findings = []
    for probe in hostile_requests(image):
        answer = send(url, probe)
        if answer.status is None or not 400 <= answer.status < 500:
            got = "no answer" if answer.status is None else str(answer.status)
            findings.append(Finding("hostile_input", probe.name, f"{got}; a 4xx answer was expected"))
        if any(line.lower().startswith(_INJECTED) for line in answer.headers):
            findings.append(Finding("header_injection", probe.name, "the answer carries a header that the request injected"))
        if b"<script>alert" in answer.body or b"root:" in answer.body:
            findings.append(Finding("reflected_input", probe.name, "the answer repeats hostile input, or shows a system file"))
    good = send(url, Probe("good image", form(image), {"Content-Type": b"multipart/form-data; boundary=probe"}))
    if good.status != 200:
        findings.append(Finding("not_serving", "good image", f"{good.status or 'no answer'} after the hostile requests; 200 was expected"))
    return findings


def form(data: bytes, file_name: str = "image.jpg") -> bytes:
    """A multipart body with one field `file`, boundary `probe`."""
    head = f'--probe\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head.encode() + data + b"\r\n--probe--\r\n"


def png_bomb(side: int = 30_000) -> bytes:
    """A small PNG that announces side x side pixels: 2.7 GB once decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20), 9)) + chunk(b"IEND", b"")


def send(url: str, probe: Probe) -> Answer:
    """Send one request over a fresh connection and read the answer, even if it comes before all was sent."""
    address = urlsplit(url)
    length = len(probe.body) + probe.padding
    lines = [f"{probe.method} {probe.target} HTTP/1.1", f"Host: {address.netloc}", "Connection: close", f"Content-Length: {length}"]
    head = "\r\n".join(lines).encode() + b"".join(b"\r\n" + k.encode() + b": " + v for k, v in probe.headers.items())
    if "X-Request-ID" not in probe.headers:
        head += b"\r\nX-Request-ID: probe-" + secrets.token_hex(6).encode()
    received = b""
    try:
        with socket.create_connection((address.hostname or "127.0.0.1", address.port or 80), timeout=_TIMEOUT_S) as connection:
            try:
                for block in _blocks(head + b"\r\n\r\n" + probe.body, probe.padding):
                    if select.select([connection], [], [], 0)[0]:
                        break  # answered already: stop sending and read
                    connection.sendall(block)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the server closed its end; its answer may still be there
            while part := connection.recv(65_536):
                received += part
    except (OSError, TimeoutError):
        pass  # what was received until then is judged
    return _parsed(received)


def _blocks(start: bytes, padding: int) -> Iterator[bytes]:
    yield start
    for sent in range(0, padding, len(_BLOCK)):
        yield _BLOCK[: min(len(_BLOCK), padding - sent)]


def _parsed(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *headers = head.decode("latin-1").split("\r\n")
    parts = status_line.split(" ")
    status = int(parts[1]) if len(parts) > 1 and parts[0].startswith("HTTP/") and parts[1].isdigit() else None
    return Answer(status, tuple(headers), body)
