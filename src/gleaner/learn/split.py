"""Divides a dataset into train, validation and test so that no picture is tested that was as good as learned from.

Pictures that are nearly the same, and bursts of one camera, form groups; a group is never divided. A group may not drift:
each member must still resemble the group's first picture, so a rover's slow sweep along a wall stays many groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gleaner.learn.request import Example
from gleaner.wire.picture import Rgb, resize_rgb

PRINT_SIDE = 16
SAME_PICTURE = 0.985
"""Correlation of two prints. On 600 photos of hands: re-encoding, noise and brightness stay above 0.995, different photos
below 0.95, a crop of 2 % lies between 0.96 and 0.99."""
SAME_BURST, BURST_S = 0.93, 2.0
STILL_THE_SAME_SCENE = 0.9
_COMPARED = 4000
"""Each picture is compared with this many before it, in order of camera and time."""
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.15
MOST_KEPT = 1000
"""About so many at most are tested, and so many watched: the score is known to two points then."""
FEWEST_KEPT, KEPT_PER_S = 100, 10
"""A short run keeps fewer, ten for each of its seconds, or judging them would take longer than learning from the others."""


@dataclass(frozen=True)
class Split:
    """Indices into the examples, each list sorted."""

    train: list[int]
    validation: list[int]
    test: list[int]
    group_count: int


def most_kept(budget_s: float) -> int:
    """How many pictures a run of so long tests, and watches, at most."""
    return max(FEWEST_KEPT, min(MOST_KEPT, int(KEPT_PER_S * budget_s)))


def fingerprint(picture: Rgb) -> NDArray[np.float32]:
    """A unit vector of a 16×16 thumbnail without its mean: unmoved by brightness, re-encoding and scale."""
    small = resize_rgb(picture, PRINT_SIDE, PRINT_SIDE).astype(np.float32).ravel()
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return small / length if length > 1e-6 else small


def group_pictures(prints: NDArray[np.float32], examples: Sequence[Example]) -> list[list[int]]:
    """Groups of indices. `prints` is (N, 768), one fingerprint per row."""
    order = sorted(
        range(len(examples)), key=lambda i: (examples[i].component, examples[i].taken_s or 0.0, examples[i].id)
    )
    ordered = prints[order]
    groups: list[list[int]] = []
    group_of = np.zeros(len(order), dtype=np.int64)
    for position, index in enumerate(order):
        first = max(0, position - _COMPARED)
        alike = ordered[first:position] @ ordered[position]
        near = np.flatnonzero(alike >= SAME_BURST)
        chosen = -1
        for candidate in near[np.argsort(-alike[near], kind="stable")]:
            group = int(group_of[first + candidate])
            leader = groups[group][0]
            same_scene = float(prints[leader] @ prints[index]) >= STILL_THE_SAME_SCENE
            burst = _within_burst(examples[leader], examples[index])
            if same_scene and (alike[candidate] >= SAME_PICTURE or burst):
                chosen = group
                break
        if chosen < 0:
            groups.append([])
            chosen = len(groups) - 1
        groups[chosen].append(index)
        group_of[position] = chosen
    return groups


def split_groups(
    groups: Sequence[Sequence[int]], label_sets: Sequence[frozenset[str]], seed: int, most: int = MOST_KEPT
) -> Split:
    """About 20 % for testing and 15 % for validation of each label and of the unlabelled, of about `most` pictures each at
    most; at least one each where a label has the groups for it; every label keeps at least one group to learn from. The rarest
    label is served first.
    """
    random = np.random.default_rng(seed)
    shuffled = [list(groups[i]) for i in random.permutation(len(groups))]
    keys = {index: label_sets[index] or frozenset({""}) for index in range(len(label_sets))}
    counts: dict[str, int] = {}
    for labels in keys.values():
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
    place = [""] * len(shuffled)
    for label in sorted(counts, key=lambda name: (counts[name], name)):
        mine = [g for g, members in enumerate(shuffled) if any(label in keys[i] for i in members)]
        targets = _test_target(counts[label], most / len(keys)), _validation_target(counts[label], most / len(keys))
        for part, target in zip(("test", "validation"), targets, strict=True):
            _fill(part, target, label, mine, shuffled, keys, place)
    parts: dict[str, list[int]] = {"": [], "validation": [], "test": []}
    for group, part in zip(shuffled, place, strict=True):
        parts[part] += group
    return Split(sorted(parts[""]), sorted(parts["validation"]), sorted(parts["test"]), len(groups))


def declared_split(
    groups: Sequence[Sequence[int]], examples: Sequence[Example], seed: int, most: int = MOST_KEPT
) -> Split | None:
    """As the dataset itself says which pictures are for testing; None if it does not, or leaves nothing to learn from.

    A dataset that names only `val` means by it what is held back: it is tested with, and what watches the training is drawn
    from the rest.
    """
    said = {part: [i for i, one in enumerate(examples) if one.split == part] for part in ("val", "test")}
    test = said["test"] or said["val"]
    watched = said["val"] if said["test"] else []
    held = {*test, *watched}
    rest = [i for i in range(len(examples)) if i not in held]
    if not test or not rest:
        return None
    if watched:
        return Split(rest, watched[:most], test, len(groups))
    place = {index: position for position, index in enumerate(rest)}
    inside = [mine for group in groups if (mine := [place[i] for i in group if i in place])]
    drawn = split_groups(inside, [examples[i].labels for i in rest], seed, most)
    train = sorted(rest[i] for i in drawn.train + drawn.test)
    return Split(train, [rest[i] for i in drawn.validation], test, len(groups))


def leaked(groups: Sequence[Sequence[int]], split: Split) -> int:
    """Test pictures that are nearly the same as one that is learned from."""
    learned, tested = set(split.train), set(split.test)
    return sum(len(tested.intersection(group)) for group in groups if learned.intersection(group))


def _fill(
    part: str,
    target: int,
    label: str,
    mine: Sequence[int],
    groups: Sequence[Sequence[int]],
    keys: dict[int, frozenset[str]],
    place: list[str],
) -> None:
    """Moves whole groups of `label` into `part` until it holds `target` pictures of it, smallest groups first."""

    def size(group: int) -> int:
        return sum(label in keys[i] for i in groups[group])

    have = sum(size(g) for g in mine if place[g] == part)
    free = sorted((g for g in mine if not place[g]), key=lambda g: len(groups[g]))
    for group in free:
        if have >= target or (have and have + size(group) > 1.5 * target):
            return
        if not _leaves_something(group, groups, keys, place):
            continue
        place[group] = part
        have += size(group)


def _leaves_something(
    group: int, groups: Sequence[Sequence[int]], keys: dict[int, frozenset[str]], place: Sequence[str]
) -> bool:
    """Whether every label in `group` would still have another group to learn from."""
    needed = {label for i in groups[group] for label in keys[i]}
    for other, members in enumerate(groups):
        if other != group and not place[other]:
            needed -= {label for i in members for label in keys[i]}
            if not needed:
                return True
    return False


def _test_target(count: int, most: float) -> int:
    return max(min(2, count // 5), 1, round(min(TEST_SHARE, most) * count))


def _validation_target(count: int, most: float) -> int:
    return 0 if count < 4 else max(1, round(min(VALIDATION_SHARE, most) * count))


def _within_burst(first: Example, second: Example) -> bool:
    if first.taken_s is None or second.taken_s is None or first.component != second.component:
        return False
    return abs(first.taken_s - second.taken_s) <= BURST_S
