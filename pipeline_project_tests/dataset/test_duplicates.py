"""Near duplicates: the banded search finds what comparing all pairs finds, neither more nor less."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_project.dataset.duplicates import near_duplicate_groups


def brute_force(values: list[int], distance: int) -> list[int]:
    group = list(range(len(values)))
    for i in range(len(values)):
        for j in range(i):
            if (values[i] ^ values[j]).bit_count() <= distance:
                low, high = sorted((group[i], group[j]))
                group = [low if g == high else g for g in group]
    return group


@st.composite
def hashes(draw: st.DrawFn) -> list[int]:
    """Random hashes, and copies of them with a few bits flipped anywhere."""
    values = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6))
    for _ in range(draw(st.integers(0, 12))):
        value = draw(st.sampled_from(values))
        for bit in draw(st.lists(st.integers(0, 63), max_size=6)):
            value ^= 1 << bit
        values.append(value)
    return draw(st.permutations(values))


@settings(max_examples=150, deadline=None)
@given(values=hashes(), distance=st.integers(0, 16))
def test_banded_search_equals_all_pairs(values: list[int], distance: int) -> None:
    assert near_duplicate_groups([f"{v:016x}" for v in values], distance).tolist() == brute_force(values, distance)


def test_edge_cases() -> None:
    assert near_duplicate_groups([], 3).tolist() == []
    assert near_duplicate_groups(["f" * 16], 3).tolist() == [0]
    assert near_duplicate_groups(["0" * 16, "f" * 16, "0" * 16], 0).tolist() == [0, 1, 0]


def test_groups_join_through_a_common_neighbour() -> None:
    assert near_duplicate_groups([f"{v:016x}" for v in (0b111111, 0, 0b000111)], 3).tolist() == [0, 0, 0]


def test_unrelated_hashes_stay_apart() -> None:
    values = np.random.default_rng(0).integers(0, 2**64, 3000, dtype=np.uint64, endpoint=False)
    groups = near_duplicate_groups([f"{int(v):016x}" for v in values], 3)
    assert groups.tolist() == list(range(3000))
