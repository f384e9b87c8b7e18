"""Reading request bodies from strangers: bounded in bytes, in time and in memory, and cut off while reading, not afterwards."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM_OVERHEAD_BYTES = 64_000  # boundaries, part headers and small fields around the file
BODY_TIMEOUT_S = 30.0
_LARGE_BYTES = 1_000_000  # parsing more than this would hold up the other requests
_MAX_PARTS = 20


class RequestError(Exception):
    """A request cannot be answered. `status` is the HTTP code, `code` is stable, the message says what to do."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class UploadBudget:
    """How many requests, and how many bytes of their bodies, one worker holds at once, whoever sends them."""

    def __init__(self, max_bytes: int, max_requests: int) -> None:
        self._free_bytes, self._free_requests = max_bytes, max_requests

    @contextmanager
    def lease(self) -> Iterator["Lease"]:
        """Room for one request until its answer is ready. Raises `RequestError` (503) when too many are under way."""
        if self._free_requests <= 0:
            raise _OVERLOADED
        self._free_requests -= 1
        lease = Lease(self)
        try:
            yield lease
        finally:
            self._free_requests += 1
            self._free_bytes += lease.taken

    def take(self, size: int) -> None:
        """Count bytes out of what is free. Raises `RequestError` (503)."""
        if size > self._free_bytes:
            raise _OVERLOADED
        self._free_bytes -= size


class Lease:
    """One request's share of the budget."""

    def __init__(self, budget: UploadBudget) -> None:
        self._budget, self.taken = budget, 0

    def take(self, size: int) -> None:
        """Take bytes until the lease ends. Raises `RequestError` (503)."""
        self._budget.take(size)
        self.taken += size


_OVERLOADED = RequestError(503, "overloaded", "too many requests at once; try again in a second")


async def read_body(request: Request, limit: int, lease: Lease) -> bytes:
    """The request's body.

    Args:
        limit: bytes; one more and the request fails while it is still being read.

    Raises:
        RequestError: 413 too large, 408 too slow, 503 when too many uploads are under way.
    """
    announced = request.headers.get("content-length", "0")
    impatient = request.headers.get("expect", "").lower() == "100-continue"  # it sends nothing before we ask for it
    stream = request.stream()
    chunks: list[bytes] = []
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            if announced.isdecimal() and int(announced) > limit:
                if not impatient:
                    await _discard(stream, limit)
                raise _too_large(limit)
            async for chunk in stream:
                if lease.taken + len(chunk) > limit:
                    chunks.clear()
                    await _discard(stream, limit)
                    raise _too_large(limit)
                lease.take(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise RequestError(408, "too_slow", f"the request did not arrive within {BODY_TIMEOUT_S:g} s; send it again") from None
    return b"".join(chunks)


async def _discard(stream: AsyncIterator[bytes], limit: int) -> None:
    """Read on for a moment: a client that is still sending would see a broken connection instead of the answer."""
    seen = 0
    async for chunk in stream:
        seen += len(chunk)
        if seen > limit:
            return


def _too_large(limit: int) -> RequestError:
    return RequestError(413, "too_large", f"the request is larger than {limit} bytes; send a smaller image")


async def read_upload(request: Request, max_bytes: int, lease: Lease) -> bytes:
    """The bytes of the multipart field `file`.

    Raises:
        RequestError: as `read_body`; 413 also when the file alone is too large; 400 when there is no such field.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise RequestError(400, "not_multipart", "send the image as multipart/form-data in a field named `file`")
    body = await read_body(request, max_bytes + FORM_OVERHEAD_BYTES, lease)
    data = file_field(body, boundary) if len(body) < _LARGE_BYTES else await asyncio.to_thread(file_field, body, boundary)
    if len(data) > max_bytes:
        raise RequestError(413, "too_large", f"the file is larger than {max_bytes} bytes; send a smaller image")
    return data


def file_field(body: bytes, boundary: bytes, name: bytes = b"file") -> bytes:
    """One field of a multipart body. Raises `RequestError` (400) when the body is malformed, cut short, or lacks the field."""
    parts = _Parts(name)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(400, "bad_multipart", f"the multipart body is malformed: {error}") from None
    if parts.found is None or not parts.ended:
        raise RequestError(400, "no_file", "the multipart body has no complete field named `file`")
    return b"".join(parts.found)


class _Parts:
    """Collects the first part of the wanted name."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._field, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._keep, self._count = False, 0
        self.found: list[bytes] | None = None
        self.ended = False

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._headers = {}
        self._count += 1
        if self._count > _MAX_PARTS:  # a body of very many tiny parts would take seconds to parse
            raise RequestError(400, "bad_multipart", f"the multipart body has more than {_MAX_PARTS} parts")

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._keep = self.found is None and options.get(b"name") == self._name
        if self._keep:
            self.found = []

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._keep and self.found is not None:
            self.found.append(data[start:end])

    def _part_end(self) -> None:
        self._keep = False

    def _end(self) -> None:
        self.ended = True
