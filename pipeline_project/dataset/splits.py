"""The splitting rule: near duplicates never straddle splits, images never move, new groups go where their class lacks most.

Pure and deterministic: the same images and the same parent give the same result, whatever the order of the rows.

1. An image that the parent knows stays in its split, also one that had left and comes back. Where two such images are near duplicates
   of each other in different splits (the distance was raised, or one had left while the other came), one is left out: whichever
   comes later of those in the version before and those coming back, and of train, validation, test.
2. A new image joins the split of its near duplicates. One that is a near duplicate of images in two splits is left out: it would
   make a bridge. So no two images within the distance lie in different splits.
3. What is left is new: each group goes whole to the split where its class is furthest below its share, large groups first.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline_project.contracts import SPLITS, Split
from pipeline_project.dataset.duplicates import Hashes, distances, near_duplicate_groups

_CODE: Mapping[Split, int] = {split: code for code, split in enumerate(SPLITS)}
_NONE = -1


@dataclass(frozen=True)
class Images:
    """What the rule needs to know, a row an image: its id, its class's index, its perceptual hash, and when it came (days, as text)."""

    image_ids: Sequence[str]
    class_index: Sequence[int]
    hashes: Hashes
    arrived: Sequence[str]

    def __len__(self) -> int:
        return len(self.image_ids)


@dataclass(frozen=True)
class Parent:
    """What was decided before: the split of each image of the version before, and of each that had left by then."""

    splits: Mapping[str, Split] = field(default_factory=dict)
    departed: Mapping[str, Split] = field(default_factory=dict)


@dataclass(frozen=True)
class Assignment:
    """Each image's split and group (named by the smallest image id in it), and images left out with the reason."""

    splits: Mapping[str, Split]
    groups: Mapping[str, str]
    left_out: Mapping[str, str]


def assign_splits(images: Images, ratios: Mapping[Split, float], parent: Parent, max_distance: int) -> Assignment:
    """Extend the parent's assignment to all images (of distinct ids).

    Args:
        ratios: each split's share.
        max_distance: bits in which the hashes of near duplicates may differ.
    """
    order = np.array(sorted(range(len(images)), key=images.image_ids.__getitem__), np.int64)
    ids, arrived = [images.image_ids[i] for i in order], [images.arrived[i] for i in order]
    classes, hashes = np.asarray(images.class_index, np.int64)[order], np.asarray(images.hashes, np.uint64)[order]
    returning = np.array([i not in parent.splits and i in parent.departed for i in ids], bool)
    home = np.array([_CODE[s] if (s := parent.splits.get(i) or parent.departed.get(i)) else _NONE for i in ids], np.int64)
    before = home.copy()
    straddling = list(_straddling(near_duplicate_groups(hashes, max_distance), home))
    kept = np.ones(len(ids), bool)
    for members in straddling:
        priority = sorted(members.tolist(), key=lambda n: (bool(returning[n]), home[n], arrived[n], ids[n]))
        kept[_bridges(np.array(priority), hashes, home, max_distance)] = False
    places = np.flatnonzero(kept)
    groups = places[near_duplicate_groups(hashes[kept], max_distance)]
    _join_homes(places, groups, home)
    _place_new(places, groups, home, classes, [arrived[n] for n in places], ratios)
    left_out = {}
    for members in straddling:
        staying = members[kept[members]]
        for n in members[~kept[members]]:
            there = np.unique(home[staying[distances(hashes[staying], hashes[n]) <= max_distance]])
            left_out[ids[n]] = _reason([SPLITS[code] for code in there if code != before[n]], before[n])
    return Assignment(
        {ids[n]: SPLITS[home[n]] for n in places},
        {ids[n]: ids[g] for n, g in zip(places, groups, strict=True)},
        dict(sorted(left_out.items())),
    )


def _reason(there: Sequence[Split], before: int) -> str:
    own = f", while it belongs to {SPLITS[before]}" if before != _NONE else ""
    return f"near duplicate of images in {' and '.join(there)}{own}"


def _straddling(groups: NDArray[np.int64], home: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The members of each group that has homes in several splits."""
    seen = np.zeros((len(SPLITS), len(groups)), bool)
    for code in range(len(SPLITS)):
        seen[code, groups[home == code]] = True
    concerned = np.flatnonzero((seen.sum(axis=0) > 1)[groups])
    concerned = concerned[np.argsort(groups[concerned], kind="stable")]
    for part in np.split(concerned, np.flatnonzero(np.diff(groups[concerned])) + 1):
        if len(part):
            yield part


def _bridges(members: NDArray[np.int64], hashes: Hashes, home: NDArray[np.int64], max_distance: int) -> NDArray[np.int64]:
    """Take apart one group that reaches into several splits: sets the home of what can stay, and gives what is to be left out.

    Images at home come first, in the order given, each unless it is close to one of another home that stays; then new ones, those next
    to a home first, so that what is decided spreads from the homes. Time is quadratic in the group's size, memory linear.
    """
    values = hashes[members]
    near = np.zeros((len(SPLITS), len(members)), bool)  # whether an image of each split that stays is close
    left = []

    def stay(n: int, code: int) -> None:
        home[members[n]] = code
        near[code] |= distances(values, values[n]) <= max_distance

    waiting = home[members] == _NONE
    for n in np.flatnonzero(~waiting).tolist():
        own = int(home[members[n]])
        if near[:, n].sum() > near[own, n]:
            left.append(n)
        else:
            stay(n, own)
    while (ready := waiting & near.any(axis=0)).any():
        n = int(np.argmax(ready))
        waiting[n] = False
        if near[:, n].sum() > 1:
            left.append(n)
        else:
            stay(n, int(np.argmax(near[:, n])))
    return members[left]


def _join_homes(places: NDArray[np.int64], groups: NDArray[np.int64], home: NDArray[np.int64]) -> None:
    """New members of a group take the home that its other members have; there is one at most."""
    of_group = np.full(len(home), _NONE)
    settled = home[places] != _NONE
    of_group[groups[settled]] = home[places[settled]]
    home[places] = of_group[groups]


def _place_new(
    places: NDArray[np.int64],
    groups: NDArray[np.int64],
    home: NDArray[np.int64],
    classes: NDArray[np.int64],
    arrived: Sequence[str],
    ratios: Mapping[Split, float],
) -> None:
    have: dict[int, list[int]] = defaultdict(lambda: [0] * len(SPLITS))
    fresh: dict[int, list[int]] = defaultdict(list)
    for position, (place, group) in enumerate(zip(places.tolist(), groups.tolist(), strict=True)):
        if home[place] == _NONE:
            fresh[group].append(position)
        else:
            have[int(classes[place])][home[place]] += 1
    # Large groups first: what is left for the end is small, so shares come out close.
    for _, positions in sorted(fresh.items(), key=lambda item: (-len(item[1]), min(arrived[p] for p in item[1]), item[0])):
        members = places[positions]
        counts = Counter(classes[members].tolist())
        main = min(counts, key=lambda c: (-counts[c], c))
        total = sum(have[main]) + counts[main]
        target = max(range(len(SPLITS)), key=lambda code: (ratios[SPLITS[code]] * total - have[main][code], -code))
        home[members] = target
        for class_index, count in counts.items():
            have[class_index][target] += count
