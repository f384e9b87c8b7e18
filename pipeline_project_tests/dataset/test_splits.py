"""The splitting rule, for any images: near duplicates stay together, nothing moves, shares come close."""

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_project.contracts import SPLITS, Split
from pipeline_project.dataset.splits import Assignment, Images, Parent, assign_splits

RATIOS: dict[Split, float] = {"train": 0.7, "validation": 0.15, "test": 0.15}
DISTANCE = 3


@dataclass(frozen=True)
class Item:
    image_id: str
    class_index: int
    hash: int
    arrived: str = "2026-11-01"


def assign(items: Iterable[Item], parent: Parent | None = None, distance: int = DISTANCE) -> Assignment:
    rows = list(items)
    hashes = np.array([item.hash for item in rows], np.uint64)
    images = Images([i.image_id for i in rows], [i.class_index for i in rows], hashes, [i.arrived for i in rows])
    return assign_splits(images, RATIOS, parent or Parent(), distance)


def child(result: Assignment, parent: Parent | None = None) -> Parent:
    """What the next version is told of this one, as `dataset.versions` does."""
    known = {**parent.departed, **parent.splits} if parent else {}
    return Parent(result.splits, {i: split for i, split in known.items() if i not in result.splits})


def far(number: int) -> int:
    """Hashes at least 16 bits from each other and from small changes of each other (rows of a Hadamard code), for numbers below 64."""
    return sum(((number & bit).bit_count() & 1) << bit for bit in range(64))


def items_of(sizes: list[tuple[int, int]], *, start: int = 0, arrived: str = "2026-11-01") -> list[Item]:
    """Groups of (size, class): the images of a group have one hash."""
    rng = np.random.default_rng(start)
    numbers = itertools.count(start)
    found = []
    for size, class_index in sizes:
        hash_ = int(rng.integers(0, 2**64, dtype=np.uint64, endpoint=False))
        found += [Item(f"i{next(numbers):06d}", class_index, hash_, arrived) for _ in range(size)]
    return found


def assert_no_leak(items: Iterable[Item], splits: Mapping[str, Split], distance: int = DISTANCE) -> None:
    """No two images that are near duplicates lie in different splits: compared pair by pair."""
    there = [item for item in items if item.image_id in splits]
    for a, b in itertools.combinations(there, 2):
        if (a.hash ^ b.hash).bit_count() <= distance:
            assert splits[a.image_id] == splits[b.image_id], (a, b)


GROUPS = st.lists(st.tuples(st.sampled_from([1, 1, 1, 2, 3, 7]), st.integers(0, 3)), min_size=1, max_size=60)


@st.composite
def mixed_items(draw: st.DrawFn, prefix: str = "n") -> list[Item]:
    """Images whose hashes lie close together, so that groups chain and new images make bridges; classes of a group are mixed."""
    days = st.sampled_from(["2026-11-01", "2026-11-02", "2026-11-03"])
    found = []
    for n in range(draw(st.integers(0, 14))):
        hash_ = draw(st.sampled_from([0, 0xFF, 0xFFFF, far(1), far(2)]))
        for bit in draw(st.lists(st.integers(0, 9), max_size=3)):
            hash_ ^= 1 << bit
        found.append(Item(f"{prefix}{n}", draw(st.integers(0, 2)), hash_, draw(days)))
    return found


@settings(max_examples=120, deadline=None)
@given(items=mixed_items())
def test_a_first_version_takes_every_image_and_leaks_nothing(items: list[Item]) -> None:
    result = assign(items)
    assert result.splits.keys() == result.groups.keys() == {item.image_id for item in items}
    assert result.left_out == {}
    assert_no_leak(items, result.splits)


@settings(max_examples=150, deadline=None)
@given(days=st.tuples(mixed_items("o"), mixed_items("n"), mixed_items("p")))
def test_nothing_moves_and_nothing_leaks_when_days_are_added(days: tuple[list[Item], ...]) -> None:
    known: list[Item] = []
    parent = Parent()
    for day in days:
        known = known + day
        result = assign(known, parent)
        assert {image: result.splits[image] for image in parent.splits} == parent.splits
        assert result.splits.keys() | result.left_out.keys() == {item.image_id for item in known}
        assert not result.splits.keys() & result.left_out.keys()
        assert_no_leak(known, result.splits)
        for image, group in result.groups.items():
            assert result.splits[image] == result.splits[group]
        parent = child(result, parent)


@settings(max_examples=150, deadline=None)
@given(items=mixed_items(), data=st.data())
def test_days_that_leave_and_come_back_find_their_old_splits(items: list[Item], data: st.DataObject) -> None:
    """However days come and go: an image is in its one split or left out, near duplicates never straddle, and who is back is home."""
    ever: dict[str, Split] = {}
    parent = Parent()
    for _ in range(4):
        here = data.draw(st.sets(st.sampled_from(["2026-11-01", "2026-11-02", "2026-11-03"])))
        present = [item for item in items if item.arrived in here]
        result = assign(present, parent)
        assert all(ever.setdefault(image, split) == split for image, split in result.splits.items())
        assert result.splits.keys() | result.left_out.keys() == {item.image_id for item in present}
        assert_no_leak(present, result.splits)
        parent = child(result, parent)


@settings(max_examples=100, deadline=None)
@given(first=mixed_items("o"), second=mixed_items("n"))
def test_the_same_images_again_change_nothing(first: list[Item], second: list[Item]) -> None:
    parent = child(assign(first))
    result = assign(first + second, parent)
    again = assign(first + second, child(result, parent))
    assert again == result


@settings(max_examples=60, deadline=None)
@given(first=mixed_items("o"), second=mixed_items("n"), seed=st.integers(0, 99))
def test_order_does_not_matter(first: list[Item], second: list[Item], seed: int) -> None:
    parent = Parent(assign(first).splits)
    items = first + second
    shuffled = random.Random(seed).sample(items, len(items))
    assert assign(items, parent) == assign(shuffled, Parent(dict(reversed(parent.splits.items()))))


@settings(max_examples=60, deadline=None)
@given(items=mixed_items(), seed=st.integers(0, 99))
def test_a_corrected_label_moves_no_image(items: list[Item], seed: int) -> None:
    rng = random.Random(seed)
    result = assign(items)
    relabelled = [Item(i.image_id, rng.randrange(3), i.hash, i.arrived) for i in items]
    assert assign(relabelled, child(result)).splits == result.splits


@settings(max_examples=100, deadline=None)
@given(items=mixed_items(), distances=st.tuples(st.integers(0, 6), st.integers(0, 6)))
def test_a_changed_distance_leaves_out_rather_than_leaks(items: list[Item], distances: tuple[int, int]) -> None:
    parent = child(assign(items, distance=distances[0]))
    result = assign(items, parent, distances[1])
    assert_no_leak(items, result.splits, distances[1])
    assert {image: parent.splits[image] for image in result.splits} == result.splits
    if distances[1] <= distances[0]:
        assert result.left_out == {}
    back = assign(items, child(result, parent), distances[0])
    assert back.splits == parent.splits  # who had to leave comes home


@settings(max_examples=120, deadline=None)
@given(sizes=GROUPS)
def test_shares_come_within_the_largest_group_of_each_class(sizes: list[tuple[int, int]]) -> None:
    items = items_of(sizes)
    result = assign(items)
    for class_index in {item.class_index for item in items}:
        counts = Counter(result.splits[item.image_id] for item in items if item.class_index == class_index)
        largest = max(size for size, its_class in sizes if its_class == class_index)
        for split in SPLITS:
            assert abs(counts[split] - RATIOS[split] * counts.total()) <= largest


@settings(max_examples=60, deadline=None)
@given(first=GROUPS, second=GROUPS)
def test_shares_stay_close_as_fresh_days_come(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    one, two = items_of(first), items_of(second, start=1000, arrived="2026-11-02")
    result = assign(one + two, child(assign(one)))
    for class_index in {item.class_index for item in one + two}:
        counts = Counter(result.splits[item.image_id] for item in one + two if item.class_index == class_index)
        largest = max(size for size, its_class in first + second if its_class == class_index)
        for split in SPLITS:
            assert abs(counts[split] - RATIOS[split] * counts.total()) <= 2 * largest


def test_single_images_are_shared_out_exactly() -> None:
    assert Counter(assign(items_of([(1, n % 2) for n in range(200)])).splits.values()) == {"train": 140, "validation": 30, "test": 30}


@pytest.mark.parametrize("home", SPLITS)
def test_new_duplicate_joins_its_group(home: Split) -> None:
    items = [Item("old", 0, 0), Item("new", 0, 0b11)]
    assert assign(items, Parent({"old": home})).splits == {"old": home, "new": home}


def test_bridging_image_is_left_out_with_the_reason_and_the_sides_stay_apart() -> None:
    items = [Item("a", 0, 0), Item("b", 0, 0b111111), Item("bridge", 0, 0b000111, "2026-11-02"), Item("c", 0, far(3), "2026-11-02")]
    result = assign(items, Parent({"a": "train", "b": "test"}))
    assert (result.splits["a"], result.splits["b"]) == ("train", "test")
    assert result.groups["a"] != result.groups["b"]
    assert "c" in result.splits
    assert result.left_out == {"bridge": "near duplicate of images in train and test"}


def test_a_bridge_bars_no_image_that_touches_one_side_only() -> None:
    sides = {"a": "train", "b": "test"}
    items = [
        Item("a", 0, 0),
        Item("b", 0, 0b111111),
        Item("bridge", 0, 0b000111),
        Item("left", 0, 1 << 20),
        Item("right", 0, 0b111111 | 1 << 30),
    ]
    result = assign(items, Parent(sides))  # type: ignore[arg-type]
    assert result.left_out.keys() == {"bridge"}
    assert (result.splits["left"], result.splits["right"]) == ("train", "test")


def test_of_old_images_that_now_are_near_duplicates_the_training_ones_stay() -> None:
    items = [Item("a", 0, 0), Item("b", 0, 0b1111)]
    result = assign(items, Parent({"a": "test", "b": "train"}), distance=4)
    assert result.splits == {"b": "train"}
    assert result.left_out == {"a": "near duplicate of images in train, while it belongs to test"}


def test_images_that_are_gone_leave_the_others_in_place() -> None:
    items = items_of([(1, 0)] * 20)
    parent = child(assign(items))
    rest = items[::2]
    assert assign(rest, parent).splits == {item.image_id: parent.splits[item.image_id] for item in rest}


def test_a_chain_of_thousands_is_one_group_in_one_split() -> None:
    """Each differs by one bit from the one before it (a Gray code), the ends by many. Nothing is lost, and nothing leaks."""
    chain = [Item(f"c{n:05d}", 0, n ^ n >> 1) for n in range(3000)]
    others = items_of([(1, 0)] * 9000, start=5000)
    result = assign(chain + others)
    assert len({result.splits[item.image_id] for item in chain}) == 1
    assert len({result.groups[item.image_id] for item in chain}) == 1
    shares = Counter(result.splits.values())
    assert all(abs(shares[split] / 12000 - RATIOS[split]) < 0.01 for split in SPLITS)  # the others make up for it


def test_a_chain_that_meets_two_splits_is_cut_once() -> None:
    old = [Item("a", 0, 0), Item("z", 0, (1 << 60) - 1)]
    chain = [Item(f"m{n:02d}", 0, (1 << 3 * n) - 1, "2026-11-02") for n in range(1, 20)]
    result = assign(old + chain, Parent({"a": "train", "z": "test"}))
    assert len(result.left_out) == 1
    assert_no_leak(old + chain, result.splits)
