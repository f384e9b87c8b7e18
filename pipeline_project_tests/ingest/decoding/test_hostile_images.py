"""Images that kill, hang or starve the process that decodes them; processes that are killed; parents that end. All with real processes."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipeline_project.digests import sha256_bytes
from pipeline_project.ingest.decoding import shards
from pipeline_project_tests.ingest.decoding.conftest import Shop, workers
from pipeline_project_tests.ingest.decoding.test_decode_day import facts, values

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("segfault", "decoder_crashed", "does not survive it (SIGSEGV)"),
        ("leave", "decoder_crashed", "does not survive it (exit status 3)"),
        ("eat", "decoder_crashed", "more memory than ingest.decode_memory_mb (256 MB)"),
        ("hang", "decode_time", "takes longer than ingest.decode_seconds (0.5 s)"),
    ],
)
def test_only_the_image_that_does_it_bears_it(shop: Shop, text: str, code: str, words: str) -> None:
    shop.settings |= {"INGEST__DECODE_SECONDS": "0.5" if text == "hang" else "60", "INGEST__DECODE_MEMORY_MB": "256"}
    shop.put(**{f"{n:02d}": str(n) for n in range(40)}, **{"17x": text})
    found = shop.decode()
    rejects = {key: row for key, row in facts(found).items() if row["code"]}
    assert list(rejects) == ["17x"]
    assert rejects["17x"]["code"] == code
    assert words in rejects["17x"]["detail"]
    assert (rejects["17x"]["image_id"], rejects["17x"]["size"]) == (sha256_bytes(text.encode()), len(text))
    assert values(shop, found) == {f"{n:02d}": n for n in range(40)}
    assert shop.decode().decoded == 1, "what may have been the machine's fault is tried again, and nothing else"


def test_two_of_a_kind_alone_and_together(shop: Shop) -> None:
    shop.put(a="segfault", b="leave")
    assert {row["code"] for row in facts(shop.decode()).values()} == {"decoder_crashed"}
    (shop.source / "a").unlink()
    assert facts(shop.decode())["b"]["detail"] == "the decoder does not survive it (exit status 3)"


def test_a_fault_of_the_program_is_an_error_not_a_reject(shop: Shop) -> None:
    shop.put(a="1", b="fault")
    with pytest.raises(RuntimeError, match="a fault of the program"):
        shop.decode()


def test_workers_killed_at_random_moments_change_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BUCKET", 50)
    shop.put(**{f"{n:03d}": f"slow{n % 200}" for n in range(300)})
    expected = shop.decode()
    shop.home = "again"
    ended = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        choose = random.Random(7)
        while not ended.wait(choose.uniform(0.02, 0.2)) and len(killed) < 15:
            with suppress(psutil.NoSuchProcess):
                for process in choose.sample(found := workers(), k=min(1, len(found))):
                    process.kill()
                    killed.append(process.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        found = shop.decode()
    finally:
        ended.set()
        thread.join()
    assert len(killed) > 3
    assert found.facts.equals(expected.facts)
    assert found.shards == expected.shards


_PROGRAM = textwrap.dedent("""
    import sys
    from pathlib import Path
    from pipeline_project_tests.ingest.decoding.conftest import Shop
    from pipeline_project.ingest.decoding import shards
    shards.BUCKET = 20
    if __name__ == "__main__":
        shop = Shop(Path(sys.argv[1]), settings={"INGEST__DECODE_SECONDS": "600"})
        print("begun", flush=True)
        try:
            shop.decode()
        except KeyboardInterrupt:
            print("stopped", flush=True)
            sys.exit(130)
""")


def started(shop: Shop) -> subprocess.Popen[str]:
    """A process of its own that decodes the shop; in a process group of its own."""
    program = shop.root / "program.py"
    program.write_text(_PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(program), str(shop.root)], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_parent(shop: Shop, how: signal.Signals) -> None:
    shop.put(a="hang", b="1", c="hang", **{f"x{n:02d}": "hang" for n in range(40)})
    with started(shop) as parent:
        below: list[psutil.Process] = []
        deadline = time.monotonic() + 60
        while len([c for c in below if c.ppid() != parent.pid]) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
            below = psutil.Process(parent.pid).children(recursive=True)
        assert len(below) >= 3, "the fork server and two workers"
        parent.send_signal(how)
        parent.wait(30)
        assert psutil.wait_procs(below, timeout=20)[1] == []


def test_a_killed_run_goes_on_where_it_was(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BUCKET", 20)
    shop.put(**{f"{n:03d}": f"slow{n % 200}" for n in range(400)})
    shop.home = "undisturbed"
    expected = shop.decode()
    shop.home = "home"
    with started(shop) as parent:
        deadline = time.monotonic() + 60
        while len(list((shop.root / "home").rglob("head.json"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        parent.kill()
    found = shop.decode()
    assert 0 < found.decoded < 400
    assert found.facts.equals(expected.facts)
    assert found.shards == expected.shards
