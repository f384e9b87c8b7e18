"""The splitting rule: groups never straddle splits, images never move, new groups go where their class lacks most.

Pure and deterministic: the same images and the same parent assignment give the same result, whatever the order of the rows.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline_project.contracts import SPLITS, Split


@dataclass(frozen=True)
class SplitItem:
    """What the rule needs to know of an image. `group` joins duplicates; `arrived` orders groups (a day, as text)."""

    image_id: str
    class_index: int
    group: str
    arrived: str


@dataclass(frozen=True)
class Assignment:
    """Each image's split, and images left out with the reason."""

    splits: Mapping[str, Split]
    left_out: Mapping[str, str]


def assign_splits(items: Sequence[SplitItem], ratios: Mapping[Split, float], parent: Mapping[str, Split]) -> Assignment:
    """Extend the parent's assignment to all items.

    A group with members in one split of the parent joins that split whole. A group without any goes to the split where its class is
    furthest below its share (ties: train, validation, test). A new image that would join two splits of the parent is left out.
    """
    groups: dict[str, list[SplitItem]] = defaultdict(list)
    for item in sorted(items, key=lambda item: item.image_id):
        groups[item.group].append(item)
    splits: dict[str, Split] = {}
    left_out: dict[str, str] = {}
    have: dict[int, Counter[Split]] = defaultdict(Counter)
    fresh = []
    for name, members in groups.items():
        homes = {parent[m.image_id] for m in members if m.image_id in parent}
        if not homes:
            fresh.append((name, members))
            continue
        for member in members:
            split = parent.get(member.image_id) or (next(iter(homes)) if len(homes) == 1 else None)
            if split is None:
                left_out[member.image_id] = f"near duplicate of images in {' and '.join(s for s in SPLITS if s in homes)}"
            else:
                splits[member.image_id] = split
                have[member.class_index][split] += 1
    # Large groups first: what is left for the end is small, so shares come out close.
    for _, members in sorted(fresh, key=lambda group: (-len(group[1]), min(m.arrived for m in group[1]), group[1][0].image_id)):
        counts = Counter(m.class_index for m in members)
        main = min(counts, key=lambda c: (-counts[c], c))
        total = sum(have[main].values()) + counts[main]
        target = max(SPLITS, key=lambda split: (ratios[split] * total - have[main][split], -SPLITS.index(split)))
        for member in members:
            splits[member.image_id] = target
            have[member.class_index][target] += 1
    return Assignment(splits, left_out)
