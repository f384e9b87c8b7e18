"""A loopback server that answers S3 listings of as many keys as wanted, without an object behind them; label files it makes when read."""

import hashlib
import json
import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import escape

_PAGE = 1_000
_FIRST_DAY = date(2023, 1, 1)
LABELS = "labels.csv"


@dataclass(frozen=True)
class Keys(Sequence[str]):
    """The keys of a source, in order, made when asked for: images, then one label file with a row for each.

    Attributes:
        images: how many.
        days: dated folders that they are spread over evenly; 0: no folders.
    """

    images: int
    days: int

    def __len__(self) -> int:
        return self.images + 1

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[n] for n in range(*at.indices(len(self)))]
        if not 0 <= at <= self.images:
            raise IndexError(at)
        if at == self.images:
            return LABELS
        if not self.days:
            return f"{at:09}.jpg"
        day, number = divmod(at, -(-self.images // self.days))
        return f"{_FIRST_DAY + timedelta(days=day)}/{number:09}.jpg"

    @lru_cache(1)  # noqa: B019  the server's only instance
    def labels(self) -> bytes:
        """The label file."""
        return "\n".join(["image,label", *(f"{self[n]},toys" for n in range(self.images)), ""]).encode()


def page(keys: Keys, bucket: str, query: dict[str, str]) -> bytes:
    """One answer to ListObjectsV2."""
    after = query.get("continuation-token") or query.get("start-after", "")
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    first = max(bisect_right(keys, after), _first_with(keys, prefix))
    entries: list[str] = []
    folders: list[str] = []
    at, wanted = first, min(int(query.get("max-keys", _PAGE)), _PAGE)
    while at < len(keys) and len(entries) + len(folders) < wanted and keys[at].startswith(prefix):
        key = keys[at]
        below, slash, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else ("", "", "")
        if slash:
            folder = f"{prefix}{below}{slash}"
            folders.append(f"<CommonPrefixes><Prefix>{escape(quote(folder))}</Prefix></CommonPrefixes>")
            after = f"{folder}\U0010ffff"
            at = bisect_right(keys, after)
            continue
        size = len(keys.labels()) if key == LABELS else 20_000
        etag = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
        moment = f"{_FIRST_DAY + timedelta(days=at % 1_000)}T08:00:00.000Z"
        entries.append(
            f"<Contents><Key>{quote(key)}</Key><LastModified>{moment}</LastModified><ETag>&quot;{etag}&quot;</ETag>"
            f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
        after, at = key, at + 1
    more = at < len(keys) and keys[at].startswith(prefix)
    token = f"<NextContinuationToken>{escape(after)}</NextContinuationToken>" if more else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket}</Name><Prefix>{quote(prefix)}</Prefix><KeyCount>{len(entries) + len(folders)}</KeyCount>"
        f"<MaxKeys>{wanted}</MaxKeys><EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(entries)}{''.join(folders)}"
        "</ListBucketResult>"
    ).encode()


def _first_with(keys: Keys, prefix: str) -> int:
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if keys[middle] < prefix else (low, middle)
    return low


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    keys: Keys

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        bucket, _, key = address.path.lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        if query.get("list-type") == "2":
            self._answer(200, page(self.keys, bucket, query), "application/xml")
        elif key == LABELS:
            self._answer(200, self.keys.labels(), "text/csv")
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are not worth a line."""


def main() -> None:
    """Serve until killed. Arguments: how many images, in how many dated folders. The first line of output is JSON with the port."""
    _Handler.keys = Keys(int(sys.argv[1]), int(sys.argv[2]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
