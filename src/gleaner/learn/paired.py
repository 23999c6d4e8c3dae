"""Which of two versions is better, by what both say to the same pictures.

Paired randomization test (Fisher 1935; for F1 see Yeh 2000, for average precision Smucker, Allan and Carterette 2007): were both
equally good, it would not matter which of the two gave which answer to a picture. So the two answers are exchanged for pictures
picked by coin, again and again, and counted is how often that makes a difference as large as the one seen. For a mere "right or
wrong" it is McNemar's exact test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from gleaner.learn.detect.network import Found
from gleaner.learn.detect.quality import Matched, average_precision, match
from gleaner.learn.detect.scenes import Boxes

Flags = NDArray[np.bool_]
ROUNDS = 1000
"""Exchanges that are tried; all of them where there are no more."""


class Scored(Protocol):
    @property
    def measure(self) -> str:
        """Its name in the report."""

    @property
    def differs(self) -> Flags:
        """(pictures,): where the two do not say the same."""

    def quality(self, swapped: Flags) -> tuple[float, float]:
        """Of the version before and of the new one, with their answers to these pictures exchanged; 0 to 1."""


@dataclass(frozen=True)
class RightScored:
    """The share of pictures that are right: for pictures that show nothing, where nothing else can be measured."""

    before: Flags
    now: Flags
    measure: ClassVar[str] = "accuracy"

    @property
    def differs(self) -> Flags:
        return np.asarray(self.before != self.now)

    def quality(self, swapped: Flags) -> tuple[float, float]:
        before, now = _exchanged(self.before, self.now, swapped)
        return float(before.mean()), float(now.mean())


@dataclass(frozen=True)
class LabelsScored:
    """Mean F1 of the labels. All arrays (pictures, labels)."""

    before: Flags
    now: Flags
    targets: Flags
    measure: ClassVar[str] = "macro_f1"

    @property
    def differs(self) -> Flags:
        return np.asarray((self.before != self.now).any(1))

    def quality(self, swapped: Flags) -> tuple[float, float]:
        before, now = _exchanged(self.before, self.now, swapped[:, None])
        return self._macro_f1(before), self._macro_f1(now)

    def _macro_f1(self, said: Flags) -> float:
        counted = self.targets.any(0)
        right = (said & self.targets).sum(0)[counted]
        total = (said.sum(0) + self.targets.sum(0))[counted]
        return float((2 * right / total).mean())


class BoxesScored:
    """mAP50. A picture's answer is its found boxes and its true ones, in the same unit."""

    measure: ClassVar[str] = "map50"

    def __init__(self, before: Sequence[tuple[Found, Boxes]], now: Sequence[tuple[Found, Boxes]]) -> None:
        self.differs: Flags = np.array([not _is_same(b[0], n[0]) for b, n in zip(before, now, strict=True)], bool)
        labels = sorted({int(label) for _, truth in now for label in truth[:, 0]})
        self._labels = [_LabelBoxes.of(before, now, label) for label in labels]

    def quality(self, swapped: Flags) -> tuple[float, float]:
        pairs = [label.precisions(swapped) for label in self._labels]
        before, now = np.mean(pairs, axis=0)
        return float(before), float(now)


@dataclass(frozen=True)
class _LabelBoxes:
    """One label's boxes of both versions, surest first."""

    scores: NDArray[np.float64]
    right: Flags
    pictures: NDArray[np.int64]
    is_new: Flags
    true_count: int

    @classmethod
    def of(cls, before: Sequence[tuple[Found, Boxes]], now: Sequence[tuple[Found, Boxes]], label: int) -> _LabelBoxes:
        parts = [
            (match([found], [truth], label, 0.5), picture, version)
            for version, answers in enumerate((before, now))
            for picture, (found, truth) in enumerate(answers)
        ]
        scores = np.concatenate([each.scores for each, _, _ in parts])
        order = np.argsort(-scores, kind="stable")
        sizes = [len(each.scores) for each, _, _ in parts]
        return cls(
            scores[order],
            np.concatenate([each.right for each, _, _ in parts])[order],
            np.repeat([picture for _, picture, _ in parts], sizes)[order],
            np.repeat([version == 1 for _, _, version in parts], sizes)[order],
            sum(each.true_count for each, _, version in parts if version == 1),
        )

    def precisions(self, swapped: Flags) -> tuple[float, float]:
        of_now = self.is_new ^ swapped[self.pictures]
        before, now = (
            average_precision(Matched(self.scores[own], self.right[own], self.true_count)) for own in (~of_now, of_now)
        )
        return before or 0.0, now or 0.0


@dataclass(frozen=True)
class Difference:
    before: float
    now: float
    chance: float
    """That versions that are equally good differ so much, in this direction."""


def difference(scored: Scored) -> Difference:
    differing = np.flatnonzero(scored.differs)
    none = np.zeros(len(scored.differs), bool)
    before, now = scored.quality(none)
    if not len(differing):
        return Difference(before, now, 1.0)
    seen, as_large, rounds = now - before, 0, 0
    for swapped in _exchanges(none, differing):
        one, other = scored.quality(swapped)
        # Rounding must not decide over exchanges that undo each other.
        as_large += (other - one) * np.sign(seen) >= abs(seen) - 1e-9
        rounds += 1
    return Difference(before, now, as_large / rounds)


def _exchanges(none: Flags, differing: NDArray[np.int64]) -> Iterator[Flags]:
    """All of them, or `ROUNDS` by coin with the one that exchanges nothing, which is one of them."""
    swapped = none.copy()
    if 2 ** len(differing) <= ROUNDS:
        for coins in product((False, True), repeat=len(differing)):
            swapped[differing] = coins
            yield swapped
        return
    yield none
    random = np.random.default_rng(0)
    for _ in range(ROUNDS - 1):
        swapped[differing] = random.random(len(differing)) < 0.5
        yield swapped


def _exchanged(before: Flags, now: Flags, swapped: Flags) -> tuple[Flags, Flags]:
    return np.where(swapped, now, before), np.where(swapped, before, now)


def _is_same(one: Found, other: Found) -> bool:
    return all(
        a.shape == b.shape and bool((a == b).all())
        for a, b in ((one.boxes, other.boxes), (one.scores, other.scores), (one.labels, other.labels))
    )
