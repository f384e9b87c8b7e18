"""Images from web servers: only hosts that the settings list, private addresses only if listed, no redirects elsewhere, limited bytes."""

import ipaddress
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from pipeline_project.ingest.sources.base import SourceError, SourceUnreachableError, gone
from pipeline_project.storage.s3_client import Patience

if TYPE_CHECKING:
    from httpx import Response

_REDIRECTS = 5
_AGAIN = {429, 500, 502, 503, 504}


class _LaterError(Exception):
    """Worth another attempt."""


class WebImages:
    """Reads URLs.

    A host's address is looked up once and that address is connected to, so a name cannot lead to one address when it is checked and to
    another when it is used. Proxies of the environment are not used for the same reason.

    Args:
        hosts: names, or addresses and networks such as 10.2.0.0/16, that URLs may lead to. A private address needs both its name
            (or itself) in the URL's place and the address in the list.
        max_bytes: a larger answer is refused.
        patience: timeouts and attempts.
    """

    def __init__(self, hosts: Sequence[str], max_bytes: int, patience: Patience) -> None:
        self._hosts, self._max_bytes, self._patience = hosts, max_bytes, patience

    def allows(self, url: str) -> bool:
        """Whether the URL's host is listed; nothing is looked up."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and bool(host) and not parts.username and self._listed(host or "")

    def read(self, url: str, key: str, first_bytes: int | None = None) -> bytes:
        """The bytes at a URL.

        Raises:
            FileNotFoundError: the server says 404 or 410.
            SourceError: the host, or one that it redirects to, is not allowed.
            SourceUnreachableError: no answer, a refusal, or an answer that is not whole or too large.
        """
        why = ""
        for attempt in range(self._patience.attempts):
            if attempt:
                time.sleep(self._patience.pause_s * 2 ** (attempt - 1))
            try:
                return self._follow(url, key, first_bytes)
            except _LaterError as error:
                why = str(error)
        raise SourceUnreachableError(
            f"data.source: {_shown(url)} cannot be read: {why}, {self._patience.attempts} times. "
            "Check that server and the network; then materialize raw_images again."
        )

    def _follow(self, url: str, key: str, first_bytes: int | None) -> bytes:
        place = url
        for _ in range(_REDIRECTS + 1):
            if not self.allows(place) or (url.startswith("https:") and not place.startswith("https:")):
                raise SourceError(
                    f"data.source: {_shown(url)} leads to {_shown(place)}, which data.table.hosts does not allow. "
                    "List that host, or correct the row."
                )
            answer = self._ask(place, key, first_bytes)
            if isinstance(answer, bytes):
                return answer
            place = answer
        raise SourceUnreachableError(f"data.source: {_shown(url)} redirects more than {_REDIRECTS} times. Correct the row or that server.")

    def _ask(self, url: str, key: str, first_bytes: int | None) -> bytes | str:
        """The bytes, or where the server says they are."""
        import httpx

        parts = urlsplit(url)
        host = parts.hostname or ""
        address = self._address(host, parts.port or (443 if parts.scheme == "https" else 80))
        timeout = httpx.Timeout(self._patience.read_s, connect=self._patience.connect_s)
        headers = {"Host": parts.netloc, "Accept-Encoding": "identity", "User-Agent": "pipeline-project"}
        if first_bytes:
            headers["Range"] = f"bytes=0-{first_bytes - 1}"
        pinned = httpx.URL(url).copy_with(host=address)
        limit = first_bytes or self._max_bytes
        try:
            with (
                httpx.Client(timeout=timeout, trust_env=False, follow_redirects=False) as client,
                client.stream("GET", pinned, headers=headers, extensions={"sni_hostname": host}) as answer,
            ):
                return self._body(answer, url, key, limit, bool(first_bytes))
        except httpx.HTTPError as error:
            raise _LaterError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from None

    def _body(self, answer: "Response", url: str, key: str, limit: int, only_first: bool) -> bytes | str:
        status = answer.status_code
        if status in (301, 302, 303, 307, 308) and answer.headers.get("Location"):
            return urljoin(url, answer.headers["Location"])
        if status in (404, 410):
            raise FileNotFoundError(gone(key, _shown(url)))
        if status == 416:  # a range of an empty file
            return b""
        if status in _AGAIN:
            raise _LaterError(f"the server says {status}")
        if status not in (200, 206):
            raise SourceUnreachableError(
                f"data.source: {_shown(url)} cannot be read: the server says {status}. Check that it may be read without a login."
            )
        data = bytearray()
        for piece in answer.iter_raw():
            data += piece
            if len(data) > limit:
                if only_first:
                    return bytes(data[:limit])
                raise SourceUnreachableError(
                    f"data.source: {_shown(url)} is larger than ingest.max_bytes ({limit:,}). Remove the row, or raise the limit."
                )
        announced = answer.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced) != len(data):
            raise _LaterError(f"{len(data):,} of {int(announced):,} bytes came")
        return bytes(data)

    def _address(self, host: str, port: int) -> str:
        """The address to connect to. Raises for a private one that is not listed."""
        try:
            found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except OSError as error:
            raise _LaterError(f"the name {host} cannot be resolved ({error.strerror})") from None
        for address in found:
            if ipaddress.ip_address(address).is_global or self._network_listed(address):
                return address
        raise SourceError(
            f"data.source: {host} has the private address {found[0]}. "
            "If it is meant, add that address to data.table.hosts; else correct the row."
        )

    def _listed(self, host: str) -> bool:
        return host.lower() in (name.lower() for name in self._hosts) or self._network_listed(host)

    def _network_listed(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        for listed in self._hosts:
            try:
                if address in ipaddress.ip_network(listed, strict=False):
                    return True
            except ValueError:
                continue
        return False


def _shown(url: str) -> str:
    """The URL without what may be a secret: user, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
