"""Removing stored versions while others publish: whoever removes says first which, and whoever publishes looks there before it is done.

Both sides write before they read. The remover writes its notice, and then reads which versions were pointed to lately; a publisher writes
the version's record, and then reads the notices. So at least one of them sees the other: the remover spares the version, or the
publisher waits for the notice to end, finds its files gone, and writes them again. A notice ends by itself, so a killed remover holds
nobody up; clocks may differ by `SKEW_S`.
"""

import os
import secrets
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline_project.storage.byte_store import ByteStore

NOTICES = "artifacts/housekeeping/removing/"
NOTICE_S = 120.0
SKEW_S = 5.0
_POLL_S = 0.25


class NoticeExpiredError(RuntimeError):
    """The remover was too slow: its notice ended, so nothing more may be removed under it."""


class RemovalNotice:
    """Which versions are about to be removed, until when.

    Args:
        store: where the versions lie.
        by: who removes.
        seconds: how long each `announce` and `keep_up` holds.
    """

    def __init__(self, store: ByteStore, by: str, seconds: float = NOTICE_S) -> None:
        self.seconds = seconds
        self._store, self._by = store, by
        self._key = f"{NOTICES}{secrets.token_hex(8)}.json"
        self._prefixes: list[str] = []
        self._until = datetime.min.replace(tzinfo=UTC)

    @property
    def holds(self) -> bool:
        """Whether nobody can have gone past it yet."""
        return self._left() > SKEW_S

    def announce(self, prefixes: Iterable[str]) -> None:
        """Say that these version folders (they end in "/") are about to be removed. Read what is live after it, never before."""
        self._prefixes = sorted(prefixes)
        self._write()

    def keep_up(self) -> None:
        """Call before each removal: extends the notice where it nears its end.

        Raises:
            NoticeExpiredError: it ended already, so a publisher may have gone past it.
        """
        if not self.holds:
            raise NoticeExpiredError(f"{self._store.uri} is so slow that the notice of {self._by} ended. Run it again.")
        if self._left() < self.seconds / 2:
            before = self._until
            self._write()
            if (before - datetime.now(UTC)).total_seconds() <= SKEW_S:  # the new end was told too late
                raise NoticeExpiredError(f"{self._store.uri} is so slow that the notice of {self._by} ended. Run it again.")

    def withdraw(self) -> None:
        """Nothing is being removed any more."""
        self._store.delete(self._key)

    def _left(self) -> float:
        return (self._until - datetime.now(UTC)).total_seconds()

    def _write(self) -> None:
        until = datetime.now(UTC) + timedelta(seconds=self.seconds)
        notice = {"version": 1, "by": self._by, "until": until.isoformat(), "removing": self._prefixes}
        self._store.write_json(self._key, notice | {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())})
        self._until = until


def notices(store: ByteStore) -> list[dict[str, Any]]:
    """The notices that hold at this moment, each {by, until, removing}. Damaged ones, and those that ended, are passed over."""
    found = []
    for key in store.list(NOTICES):
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            notice: dict[str, Any] = store.read_json(key)
            if _holds(notice):
                found.append(notice)
    return found


def drop_ended_notices(store: ByteStore) -> None:
    """Remove what killed removers left."""
    for key in store.list(NOTICES):
        with suppress(FileNotFoundError):
            holds = False
            with suppress(ValueError, KeyError, TypeError):
                holds = _holds(store.read_json(key))
            if not holds:
                store.delete(key)


def wait_while_removed(store: ByteStore, prefix: str) -> None:
    """Return when no notice names this version folder; at once, nearly always."""
    while any(prefix in notice["removing"] for notice in notices(store)):
        time.sleep(_POLL_S)


def _holds(notice: dict[str, Any]) -> bool:
    """Whether its time has not come, and its process is not known to be dead."""
    if datetime.fromisoformat(notice["until"]) + timedelta(seconds=SKEW_S) <= datetime.now(UTC):
        return False
    return bool(notice["host"] != socket.gethostname() or _started(notice["pid"]) == notice["started"])


def _started(pid: int) -> float | None:
    """When a process of this machine started, seconds since the epoch; None where there is none."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
