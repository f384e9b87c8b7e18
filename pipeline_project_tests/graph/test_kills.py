"""SIGKILL at random moments on the real platform: the same results as undisturbed, and nothing left behind. A short `make drill-kills`."""

from pathlib import Path

import pytest

from benchmarks.drill_kills import drill

pytestmark = pytest.mark.slow
KILLS = 4


def test_killed_at_random_moments_it_ends_with_the_same_results(tmp_path: Path) -> None:
    report = drill(tmp_path, kills=KILLS)
    assert report["different"] == []
    assert report["digests"] >= 15
    assert report["left_behind"] == {"runs": [], "slots": [], "locks": [], "processes": []}
    assert report["kills"] == KILLS
    assert report["ok"]
