"""Near duplicates: the indexed search finds what comparing all pairs finds, neither more nor less, however the hashes lie."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_project.dataset import duplicates
from pipeline_project.dataset.duplicates import hash_values, near_duplicate_groups, suspected_label_noise


def brute_force(values: list[int], distance: int) -> list[int]:
    group = list(range(len(values)))
    for i in range(len(values)):
        for j in range(i):
            if (values[i] ^ values[j]).bit_count() <= distance:
                low, high = sorted((group[i], group[j]))
                group = [low if g == high else g for g in group]
    return group


@contextmanager
def searching(way: str) -> Iterator[None]:
    """Make a search take one of its ways at a size where it can be held against all pairs."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "all pairs":
            patch.setattr(duplicates, "_SORT_NS", 1e12)
        if way in ("chunks", "large buckets"):
            patch.setattr(duplicates, "_BLOCK_NS", 1e15)
        if way == "more chunks":  # what pays for many hashes that agree on few bits
            patch.setattr(duplicates, "_BLOCK_NS", 1e15)
            patch.setattr(duplicates, "_SORT_NS", 0.0)
        if way in ("all pairs", "large buckets"):
            patch.setattr(duplicates, "_SMALL", 1)
            patch.setattr(duplicates, "_ROWS", 2)
            patch.setattr(duplicates, "_COLUMNS", 3)
        patch.setattr(duplicates, "_BUFFER", 3)
        yield


@st.composite
def hashes(draw: st.DrawFn) -> list[int]:
    """Random hashes, blank ones, and copies of them with a few bits flipped anywhere."""
    values = draw(st.lists(st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1 << 63, 2**64 - 1])), min_size=1, max_size=6))
    for _ in range(draw(st.integers(0, 14))):
        value = draw(st.sampled_from(values))
        for bit in draw(st.lists(st.integers(0, 63), max_size=6)):
            value ^= 1 << bit
        values.append(value)
    return draw(st.permutations(values))


@pytest.mark.parametrize("way", ["as it comes", "all pairs", "chunks", "more chunks", "large buckets"])
@settings(max_examples=80, deadline=None)
@given(values=hashes(), distance=st.integers(0, 16))
def test_indexed_search_equals_all_pairs(way: str, values: list[int], distance: int) -> None:
    with searching(way):
        assert near_duplicate_groups([f"{v:016x}" for v in values], distance).tolist() == brute_force(values, distance)


@pytest.mark.parametrize("distance", [1, 3, 8])
def test_every_choice_of_chunks_finds_the_planted_pairs(distance: int) -> None:
    """Pairs that differ in exactly `distance` bits, at random places, among hashes that are far from all."""
    rng = np.random.default_rng(distance)
    values = rng.integers(0, 2**64, 2000, dtype=np.uint64, endpoint=False)
    for n in range(0, 2000, 2):
        bits = rng.choice(64, distance, replace=False).astype(np.uint64)
        values[n + 1] = values[n] ^ np.bitwise_or.reduce(np.uint64(1) << bits)
    expected = [n - n % 2 for n in range(2000)]
    for k in range(1, 4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(duplicates, "_masks", lambda _v, d, k=k: duplicates._chunk_masks(d + k, k))
            assert near_duplicate_groups(values, distance).tolist() == expected


def test_edge_cases() -> None:
    assert near_duplicate_groups([], 3).tolist() == []
    assert near_duplicate_groups(["f" * 16], 3).tolist() == [0]
    assert near_duplicate_groups(["0" * 16, "f" * 16, "0" * 16], 0).tolist() == [0, 1, 0]
    assert hash_values(["00000000000000ff", "8000000000000000"]).tolist() == [255, 2**63]
    for strange in ("ff", "g" * 16, "0" * 17):
        with pytest.raises(ValueError, match="hexadecimal"):
            near_duplicate_groups([strange, "0" * 16], 3)


def test_groups_join_through_a_common_neighbour() -> None:
    assert near_duplicate_groups([f"{v:016x}" for v in (0b111111, 0, 0b000111)], 3).tolist() == [0, 0, 0]


def test_unrelated_hashes_stay_apart() -> None:
    values = np.random.default_rng(0).integers(0, 2**64, 3000, dtype=np.uint64, endpoint=False)
    assert near_duplicate_groups(values, 3).tolist() == list(range(3000))


def test_thousands_of_blank_images_are_one_group_and_join_nobody_else() -> None:
    """A blank photo has one hash whatever its shade. That all of them are one group is what keeps them in one split."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**64, 20_000, dtype=np.uint64, endpoint=False)
    blank = rng.permutation(20_000)[:5000]
    values[blank] = 1 << 63
    groups = near_duplicate_groups(values, 3)
    assert set(groups[blank]) == {blank.min()}
    assert np.bincount(groups).max() == 5000
    assert (groups == np.where(np.isin(np.arange(20_000), blank), blank.min(), np.arange(20_000))).all()


@pytest.mark.parametrize("distance", [3, 8])
def test_a_dense_ball_and_skewed_bits_are_found_exactly(distance: int) -> None:
    """Hashes that agree on most of their bits fill the same buckets; the search must stay exact, and need no quadratic memory."""
    rng = np.random.default_rng(distance)
    values = np.packbits(rng.random((3000, 64)) < np.r_[np.full(40, 0.98), np.full(24, 0.5)], axis=1).view(">u8").ravel().astype(np.uint64)
    close = np.bitwise_count(values[:, None] ^ values[None, :]) <= distance
    from scipy.sparse.csgraph import connected_components

    labels = connected_components(close, directed=False)[1]
    first = {label: int(np.argmax(labels == label)) for label in set(labels)}
    assert near_duplicate_groups(values, distance).tolist() == [first[label] for label in labels]


def test_label_noise_is_suspected_where_a_group_has_several_labels() -> None:
    table = pd.DataFrame({"key": ["d", "b", "a", "c"], "label": ["shirt", "shirt", "dress", "dress"]})
    found = suspected_label_noise(table, np.array([0, 1, 1, 3]))
    assert found[["key", "label", "group"]].to_dict("list") == {"key": ["a", "b"], "label": ["dress", "shirt"], "group": [1, 1]}
    assert suspected_label_noise(table, np.array([0, 0, 2, 2])).empty
