"""Groups of near duplicates: images whose 64-bit perceptual hashes differ in at most a few bits, joined transitively.

Joining is transitive on purpose: of two images that are near duplicates of a third, one must not be trained on while another is tested
on. So all blank photos (they have one hash) are one group, and a chain of small differences is one group, too, however long. Such a
group goes to one split whole; `dataset.checks` names the largest ones, and says when they make the ratios impossible.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Hashes = NDArray[np.uint64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]

_BITS = 64
_SMALL = 96  # members of a bucket that are compared shift by shift; larger ones block by block
_ROWS, _COLUMNS = 32, 8192  # compared at once: 2 MB, which stays in the cache
_BUFFER = 2_000_000  # pairs kept before they are joined
_SAMPLE = 20_000
_MAX_KEYS = 400
# Rough costs in nanoseconds, to choose how to search; they do not change what is found.
_SORT_NS, _SHIFT_NS, _BLOCK_NS = 150.0, 12.0, 1.2


def hash_values(hashes: Sequence[str]) -> Hashes:
    """Hashes of 16 hexadecimal digits each, as numbers. Raises `ValueError` for anything else."""
    text = "".join(hashes)
    if any(len(one) != _BITS // 4 for one in hashes):
        raise ValueError("a perceptual hash has 16 hexadecimal digits. Materialize validated_manifest of its day again.")
    return np.frombuffer(bytes.fromhex(text), dtype=">u8").astype(np.uint64)


def near_duplicate_groups(hashes: Sequence[str] | Hashes, max_distance: int) -> NDArray[np.int64]:
    """The group of each image, as the index of the group's first member.

    Exact, without comparing all pairs: the bits are cut into `max_distance + k` chunks; two hashes within the distance agree on at least
    k of them (pigeonhole; multi-index hashing of Norouzi, Punjani and Fleet, 2012), so only images that agree on some k chunks are
    compared. k is chosen by the cost estimated on a sample; k = 0 compares all. Equal hashes are compared once, pairs are joined as they
    are found, and members of one group are not compared again, so memory stays bounded however dense the hashes lie.

    Args:
        hashes: 16 hexadecimal digits each, or 64-bit numbers.
        max_distance: bits, 0 joins only equal hashes.
    """
    values = hashes if isinstance(hashes, np.ndarray) else hash_values(hashes)
    if not len(values):
        return np.zeros(0, np.int64)
    unique, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    labels = np.arange(len(unique)) if max_distance == 0 else _components(unique, max_distance)
    lowest = np.full(len(unique), len(values), np.int64)
    np.minimum.at(lowest, labels, first)
    return lowest[labels][inverse]


def suspected_label_noise(table: "pd.DataFrame", groups: NDArray[np.int64]) -> "pd.DataFrame":
    """The rows whose group holds more than one label, sorted by group and key; near duplicates with one label are not suspect.

    Nothing is decided by it: near duplicates with differing labels train as they are labelled, since a person must say which is right.
    (The same bytes under two labels are left out of training: see `dataset.versions`.)

    Args:
        table: columns key, label and any others, a row an image.
        groups: each row's group, as `near_duplicate_groups` gives it.
    """
    labelled = table.assign(group=groups)
    suspect = labelled.groupby("group")["label"].transform("nunique") > 1
    return labelled[suspect].sort_values(["group", "key"], ignore_index=True)


def distances(values: Hashes, value: np.uint64) -> NDArray[Any]:
    """How many bits each hash differs in from one."""
    found: NDArray[Any] = np.bitwise_count(values ^ value)
    return found


def _components(values: Hashes, max_distance: int) -> NDArray[np.int64]:
    """Labels 0.. of the connected components of distinct hashes, any two within the distance linked."""
    joined = _Joined(len(values))
    for mask in _masks(values, max_distance):
        keys = values & mask
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1]])
        sizes = np.diff(np.r_[starts, len(order)])
        for pairs in _small_buckets(values, order, starts, sizes, max_distance):
            joined.add(*pairs)
        for start, size in zip(starts[sizes > _SMALL], sizes[sizes > _SMALL], strict=True):
            _large_bucket(values, order[start : start + size], max_distance, joined)
    return joined.labels()


class _Joined:
    """Connected components that grow; pairs are buffered and joined many at a time."""

    def __init__(self, count: int) -> None:
        self.current = np.arange(count)  # the components of all pairs but those that are buffered
        self._pairs: list[Pairs] = []
        self._buffered = 0

    def add(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        self._pairs.append((left, right))
        self._buffered += len(left)
        if self._buffered > _BUFFER:
            self.labels()

    def labels(self) -> NDArray[np.int64]:
        """The component of each, with all pairs so far."""
        if self._buffered:
            from scipy.sparse import coo_array
            from scipy.sparse.csgraph import connected_components

            left = self.current[np.concatenate([pair[0] for pair in self._pairs])]
            right = self.current[np.concatenate([pair[1] for pair in self._pairs])]
            count = int(self.current.max()) + 1
            graph = coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(count, count))
            self.current = connected_components(graph, directed=False)[1].astype(np.int64)[self.current]
            self._pairs, self._buffered = [], 0
        return self.current


def _small_buckets(
    values: Hashes, order: NDArray[np.int64], starts: NDArray[np.int64], sizes: NDArray[np.int64], max_distance: int
) -> Iterator[Pairs]:
    """Close pairs within all buckets of at most `_SMALL`, all buckets at once: each member against the one `shift` places on."""
    small = np.where(sizes <= _SMALL, sizes, 0)
    places = np.flatnonzero(np.repeat(small > 0, sizes))
    ends = np.repeat(starts + small, sizes)[places]
    ordered = values[order]
    for shift in range(1, int(small.max(initial=0))):
        keep = places + shift < ends
        places, ends = places[keep], ends[keep]
        close = places[np.bitwise_count(ordered[places] ^ ordered[places + shift]) <= max_distance]
        if len(close):
            yield order[close], order[close + shift]


def _large_bucket(values: Hashes, members: NDArray[np.int64], max_distance: int, joined: _Joined) -> None:
    """Join the close ones within a bucket, block by block; blocks that are one component already are passed over."""
    members = members[np.argsort(joined.labels()[members], kind="stable")]
    bucket = values[members]
    for top in range(0, len(members), _ROWS):
        for left in range(top, len(members), _COLUMNS):
            rows, columns = slice(top, top + _ROWS), slice(left, left + _COLUMNS)
            row_labels, column_labels = joined.current[members[rows]], joined.current[members[columns]]
            if (column_labels == row_labels[0]).all() and (row_labels == row_labels[0]).all():
                continue
            row, column = np.nonzero(np.bitwise_count(bucket[rows, None] ^ bucket[None, columns]) <= max_distance)
            apart = row_labels[row] != column_labels[column]
            joined.add(members[rows][row[apart]], members[columns][column[apart]])


def _masks(values: Hashes, max_distance: int) -> list[np.uint64]:
    """The bits to agree on, one mask for each choice of k chunks: the cheapest k for these hashes."""
    sample = values if len(values) <= _SAMPLE else values[:: len(values) // _SAMPLE]
    everything = [np.uint64(0)]
    best, best_cost = everything, len(values) ** 2 / 2 * _BLOCK_NS
    for k in range(1, 5):
        masks = _chunk_masks(max_distance + k, k)
        if len(masks) > _MAX_KEYS:
            break
        shared = sum(_collisions(sample & mask) for mask in masks)
        cost = len(masks) * len(values) * _SORT_NS + shared * len(values) ** 2 / 2 * _SHIFT_NS
        if cost < best_cost:
            best, best_cost = masks, cost
    return best


def _chunk_masks(chunks: int, k: int) -> list[np.uint64]:
    if chunks > _BITS:
        return []
    edges = np.linspace(0, _BITS, chunks + 1).astype(int)
    bands = [(1 << int(high)) - (1 << int(low)) for low, high in itertools.pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in itertools.combinations(bands, k)]


def _collisions(keys: Hashes) -> float:
    """The share of pairs that agree, estimated without bias from a sample without repetition."""
    counts = np.unique(keys, return_counts=True)[1].astype(float)
    return float((counts * (counts - 1)).sum() / max(len(keys) * (len(keys) - 1), 1))
