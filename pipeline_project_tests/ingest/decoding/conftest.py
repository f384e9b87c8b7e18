"""A folder of objects, and a project that reads it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from pipeline_project.ingest.decoding import DecodedDay, decode_day
from pipeline_project.ingest.decoding.worker import ExaminerFactory
from pipeline_project.ingest.sources import open_source
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact
from pipeline_project_tests.ingest.decoding.examiners import TextExaminer

DAY = date(2026, 11, 3)


@dataclass
class Shop:
    """A source folder and a home; `decode` is one run over what lies there now."""

    root: Path
    examiner: ExaminerFactory = TextExaminer
    settings: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    home: str = "home"
    address: str = ""
    """of the source, where it is not the folder"""
    _contexts: dict[tuple[tuple[str, str], ...], StageContext] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.source.mkdir(parents=True, exist_ok=True)

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def environment(self) -> dict[str, str]:
        chosen = {"IMAGE__SIZE": "32", "INGEST__WORKERS": "2"} | self.settings
        names = {f"PIPELINE__{name}": value for name, value in chosen.items()}
        return {"PIPELINE_HOME": str(self.root / self.home), "PIPELINE__DATA__SOURCE": self.address or str(self.source)} | names

    @property
    def context(self) -> StageContext:
        key = tuple(sorted(self.environment.items()))
        if key not in self._contexts:
            self._contexts[key] = StageContext.open(load_settings("sample", environment=self.environment), self.told.append)
        return self._contexts[key]

    def put(self, **texts: str | bytes) -> None:
        """Objects by name; each write gives a new time, so a new ETag."""
        for name, text in texts.items():
            path = self.source / name
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            os.utime(path, ns=(0, next(_CLOCK)))

    def listed(self) -> pa.Table:
        found = open_source(self.context.settings).list_all()
        names = ("key", "size", "etag")
        types = (pa.string(), pa.int64(), pa.string())
        return pa.table({n: pa.array([getattr(o, n) for o in found], t) for n, t in zip(names, types, strict=True)})

    def decode(self, objects: pa.Table | None = None) -> DecodedDay:
        return decode_day(self.context, DAY, self.listed() if objects is None else objects, examiner=self.examiner)

    def shards(self, found: DecodedDay) -> list[Artifact]:
        return [self.context.artifacts.version("image_shard", ref.digest, ref.partition) for ref in found.shards]


_CLOCK = iter(range(10**18, 10**19, 10**9))


def workers() -> list[psutil.Process]:
    """The decoding processes of this process: children of its fork server."""
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.ppid() == server and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture(autouse=True)
def _no_process_stays() -> Iterator[None]:
    yield
    assert workers() == []
