import itertools

import numpy as np
import pytest

from pipeline_project.monitoring.sequential import block_sizes, compare_proportions


@pytest.mark.parametrize("rate", [0.5, 0.9])
@pytest.mark.parametrize("block", [(1, 1), (4, 1)])
def test_peeking_after_every_block_keeps_the_error_below_the_level(rate, block):
    random = np.random.default_rng(3)
    alarms = 0
    for _ in range(400):
        first, second = (list(random.random(size * 120) < rate) for size in block)
        alarms += compare_proportions(first, second, block=block).p_value < 0.05  # the smallest of 120 looks
    assert alarms / 400 <= 0.05


def test_a_real_difference_is_found():
    random = np.random.default_rng(4)
    found = sum(
        compare_proportions(list(random.random(2000) < 0.85), list(random.random(500) < 0.70), block=(4, 1)).p_value < 0.01
        for _ in range(40)
    )
    assert found >= 36


def test_a_later_look_never_takes_evidence_back():
    random = np.random.default_rng(5)
    first, second = list(random.random(800) < 0.9), list(random.random(200) < 0.7)
    values = [compare_proportions(first[: 4 * n], second[:n], block=(4, 1)).p_value for n in range(0, 200, 10)]
    assert values[0] == 1 and all(later <= earlier for earlier, later in itertools.pairwise(values))


def test_outcomes_that_fill_no_block_wait():
    outcome = compare_proportions([True] * 7, [False] * 3, block=(4, 1))
    assert outcome.blocks == 1 and outcome.used == (4, 1)


def test_blocks_follow_the_split():
    assert block_sizes(0.8, 0.2) == (4, 1) and block_sizes(0.2, 0.8) == (1, 4) and block_sizes(0.5, 0.5) == (1, 1)
    assert block_sizes(0.999, 0.001) == (20, 1)
    with pytest.raises(ValueError, match="weight above 0"):
        block_sizes(1, 0)
    with pytest.raises(ValueError, match="at least one"):
        compare_proportions([], [], block=(0, 1))
