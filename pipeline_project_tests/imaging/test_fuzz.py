"""Thousands of damaged and strange images: none crashes the decoder, takes much memory, or ends in anything but pixels or a reason."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNT, SEED, SPARE_MB = 2300, 20261121, 1024


@dataclass(frozen=True)
class Fuzzed:
    """{case: outcome}, and the most memory that the process held, MB."""

    outcomes: dict[str, str]
    peak_mb: int

    def by_way(self) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for name, outcome in self.outcomes.items():
            found[name.split(":")[0]][outcome.split()[0]] += 1
        return found


@pytest.fixture(scope="module")
def fuzzed() -> Fuzzed:
    command = [sys.executable, "-m", "pipeline_project_tests.imaging.fuzzing", *map(str, (COUNT, SEED, SPARE_MB))]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=240)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    begun = [line["begins"] for line in lines if "begins" in line]
    assert done.returncode == 0, f"{begun[-1:]} ended the process with {done.returncode}: {done.stderr[-2000:]}"
    told = [line for line in lines if "outcome" in line]
    assert [line["name"] for line in told] == begun
    assert [line["name"] for line in told if line["outcome"] != line["again"]] == [], "decided by something beside the bytes"
    return Fuzzed({line["name"]: line["outcome"] for line in told}, lines[-1]["peak_mb"])


@pytest.mark.slow
def test_each_is_accepted_or_refused_with_a_reason(fuzzed: Fuzzed) -> None:
    assert len(fuzzed.outcomes) == COUNT
    ways = fuzzed.by_way()
    assert len(ways) == 12
    assert sum(found.total() - found["accepted"] for found in ways.values()) > COUNT / 2
    assert {"corrupt", "not_an_image", "too_many_pixels", "too_small", "animated", "mode", "too_much_work"} <= set().union(*ways.values())


@pytest.mark.slow
def test_memory_is_bounded(fuzzed: Fuzzed) -> None:
    """The largest image allowed, with alpha and 16 bits, is 400 MB of pixels; nothing takes much more than twice that."""
    assert fuzzed.peak_mb < 1100


@pytest.mark.slow
def test_whole_files_and_polyglots_are_accepted(fuzzed: Fuzzed) -> None:
    ways = fuzzed.by_way()
    assert set(ways["whole"]) == {"accepted"}
    assert set(ways["append"]) == {"accepted"}
    noted = [name for name, outcome in fuzzed.outcomes.items() if name.startswith("append") and "trailing_bytes" in outcome]
    told = [name for name in fuzzed.outcomes if name.startswith("append") and any(kind in name for kind in (".jpg", ".png", ".webp"))]
    assert sorted(noted) == sorted(told), "formats that say where they end"


@pytest.mark.slow
def test_cut_files_are_never_accepted(fuzzed: Fuzzed) -> None:
    assert fuzzed.by_way()["cut"]["accepted"] == 0


@pytest.mark.slow
def test_bombs_are_refused_unless_they_are_as_large_as_they_say(fuzzed: Fuzzed) -> None:
    bombs = {name.removeprefix("bomb: "): outcome for name, outcome in fuzzed.outcomes.items() if name.startswith("bomb")}
    accepted = {name for name, outcome in bombs.items() if outcome.startswith("accepted")}
    assert accepted == {"png of 49 million pixels", "deep png of 49 million pixels"}
    assert {bombs[f"jpeg of {many}"] for many in ("5,000 scans", "a million segments")} == {"too_much_work"}
