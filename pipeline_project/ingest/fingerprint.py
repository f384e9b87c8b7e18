"""What a day looks like from outside: a fingerprint of its objects and label rows that any listing order gives alike."""

from collections.abc import Mapping
from typing import Self

from pipeline_project.digests import canonical_json, sha256_bytes

_MODULUS = 1 << 256


class DayFingerprint:
    """The sum, modulo 2^256, of the SHA-256 of each thing added (the multiset hash AdHash of Bellare and Micciancio, 1997).

    Order does not count and a thing added twice does; so a scan in pieces, which keeps only this number for each day, ends with the same
    fingerprint as one that sees the whole day at once.
    """

    def __init__(self, total: int = 0) -> None:
        self.total = total

    @classmethod
    def of_text(cls, text: str) -> Self:
        """From what `hexdigest` gave."""
        return cls(int(text, 16))

    def add_object(self, key: str, size: int, etag: str) -> None:
        """An image of the day."""
        self._add("object", key, size, etag)

    def add_label(self, image: str, label: str | None, attributes: Mapping[str, str]) -> None:
        """A label row of the day."""
        self._add("label", image, label, dict(attributes))

    def add_unreadable_label_file(self, key: str, size: int, etag: str) -> None:
        """A label file whose rows cannot be told; it concerns each day that it may speak of."""
        self._add("label file", key, size, etag)

    def add_total(self, total: int) -> None:
        """Everything that another fingerprint, of this `total`, holds."""
        self.total = (self.total + total) % _MODULUS

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return f"{self.total:064x}"

    def _add(self, *what: object) -> None:
        self.add_total(int(sha256_bytes(canonical_json(what)), 16))
