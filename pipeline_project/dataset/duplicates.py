"""Groups of near duplicates: images whose 64-bit perceptual hashes differ in at most a few bits, joined transitively."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BITS = 64


def near_duplicate_groups(hashes: Sequence[str], max_distance: int) -> NDArray[np.int64]:
    """The group of each image, as the index of the group's first member.

    By the pigeonhole principle two hashes within `max_distance` bits agree on at least one of `max_distance + 1` bands, so only images
    that share a band are compared: exact, without comparing all pairs.

    Args:
        hashes: 16 hexadecimal digits each.
        max_distance: bits, 0 joins only equal hashes.
    """
    values = np.array([int(text, 16) for text in hashes], dtype=np.uint64)
    parent = np.arange(len(values), dtype=np.int64)
    if not len(values):
        return parent
    for band in _bands(max_distance + 1):
        masked = values & band
        order = np.argsort(masked, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(masked[order]) != 0])
        for start, end in zip(starts, np.r_[starts[1:], len(order)], strict=True):
            members = order[start:end]
            if len(members) > 1:
                _join_close(values, members, max_distance, parent)
    return np.array([_find(parent, i) for i in range(len(parent))], dtype=np.int64)


def _bands(count: int) -> list[np.uint64]:
    edges = np.linspace(0, _BITS, count + 1).astype(int)
    return [np.uint64((1 << int(high)) - (1 << int(low))) for low, high in itertools.pairwise(edges)]


def _join_close(values: NDArray[np.uint64], members: NDArray[np.int64], max_distance: int, parent: NDArray[np.int64]) -> None:
    for position, first in enumerate(members[:-1]):
        others = members[position + 1 :]
        distances = np.bitwise_count(values[others] ^ values[first])
        for other in others[distances <= max_distance]:
            a, b = _find(parent, int(first)), _find(parent, int(other))
            parent[max(a, b)] = min(a, b)


def _find(parent: NDArray[np.int64], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = int(parent[node])
    return node
