"""What more pictures would be worth: how the error of each label falls as the pictures it is learned from grow.

Heads over the network's numbers as it was before training (`instant.py`) are fitted to parts of each label's pictures and asked
about pictures they have not learned. The error is one minus average precision; over the number of pictures n it follows a
power law, error ∝ n^-b (Hestness et al. 2017). Only b is taken from there: the error it starts from is that of the trained model
on pictures it never saw. Both are drawn again many times for the interval, and where that is wide the answer is "unknown".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gleaner.learn import instant
from gleaner.learn.metrics import Flags, Floats, average_precision

MORE = 20
"""Pictures: about what somebody tags in a few minutes."""
SHARES = (0.25, 0.4, 0.6, 0.8, 1.0)
STRENGTH = 0.03
FEWEST_PICTURES = 8
"""Of a label; a quarter of fewer is one picture, which says nothing."""
FEWEST_TESTED = 4
SURELY = 0.001
"""Of average precision: a gain is told only when it is surely above this. Where no test picture was wrong, the interval begins just
above nothing by what is assumed and not by what was seen: told by that, +1.5 points came to nothing on other photos."""
LEAST, NOTHING, WIDE = 0.005, 0.025, 0.12
"""Of average precision: a gain below the first is called nothing if it is surely below the second; an interval wider than the
third says nothing."""
_FOLDS, _DRAWS = 3, 80
_STEEPEST = 1.2


@dataclass(frozen=True)
class Point:
    pictures: float
    average_precision: float


@dataclass(frozen=True)
class Outlook:
    """Of one label. `gain` is in average precision for MORE pictures of it; None where it cannot be told, and `why`."""

    pictures: int
    points: list[Point]
    gain: float | None
    interval: tuple[float, float] | None
    why: str

    @property
    def verdict(self) -> str:
        if self.gain is None:
            return "unknown"
        return "nothing" if self.gain < LEAST else "more"


@dataclass(frozen=True)
class Answers:
    """The trained model's on pictures it never saw: (pictures, labels)."""

    scores: Floats
    targets: Flags


class NoTime(Exception):
    """The time for judging was up before anything could be said."""


def look_ahead(
    vectors: NDArray[np.float32],
    targets: Flags,
    groups: Sequence[Sequence[int]],
    trained: Answers,
    seed: int = 0,
    on_fit: Callable[[], None] = lambda: None,
) -> list[Outlook]:
    """One for each label. `on_fit` is called before each fit and may raise."""
    random = np.random.default_rng(seed)
    folds = instant.divide(groups, targets, min(_FOLDS, len(groups)), seed)
    answers, learned = _grown(vectors, targets, folds, random, on_fit)
    outlooks = []
    for label in range(targets.shape[1]):
        mine = [(float(n), one[:, label]) for n, one in zip(learned[:, label], answers, strict=True)]
        outlooks.append(_outlook(mine, targets[:, label], label, trained, random))
    return outlooks


def _grown(
    vectors: NDArray[np.float32],
    targets: Flags,
    folds: NDArray[np.int64],
    random: np.random.Generator,
    on_fit: Callable[[], None],
) -> tuple[list[Floats], Floats]:
    """Per share: logits of every picture by heads that learned that share of each label's other pictures; and how many those
    were, (shares, labels). What is left out of a label stays away from its head, and from no other."""
    order = random.random(len(targets))
    answers: list[Floats] = []
    learned = np.zeros((len(SHARES), targets.shape[1]))
    count = int(folds.max(initial=0)) + 1
    for row, share in enumerate(SHARES):
        answer = np.zeros(targets.shape)
        for fold in range(count):
            on_fit()
            rest = folds != fold
            used = np.ones((int(rest.sum()), targets.shape[1]), np.bool_)
            for label in range(targets.shape[1]):
                mine = np.flatnonzero(targets[rest, label])
                kept = max(1, round(share * len(mine)))
                used[mine[np.argsort(order[rest][mine])][kept:], label] = False
                learned[row, label] += min(kept, len(mine)) / count
            head = instant.fit_head(vectors[rest], targets[rest], STRENGTH, used)
            answer[~rest] = head.logits(vectors[~rest])
        answers.append(answer)
    return answers, learned


def _outlook(
    grown: Sequence[tuple[float, Floats]], truth: Flags, label: int, trained: Answers, random: np.random.Generator
) -> Outlook:
    pictures, tested = int(truth.sum()), int(trained.targets[:, label].sum())
    points = [Point(n, ap) for n, scores in grown if (ap := average_precision(scores, truth)) is not None]
    if pictures < FEWEST_PICTURES:
        return Outlook(pictures, points, None, None, f"only {pictures} pictures of it; {FEWEST_PICTURES} can tell")
    if tested < FEWEST_TESTED:
        return Outlook(pictures, points, None, None, f"only {tested} test pictures of it; {FEWEST_TESTED} can tell")
    sizes = np.log([n for n, _ in grown])
    gains = []
    for draw in range(_DRAWS + 1):
        steepness = _steepness(sizes, _errors([scores for _, scores in grown], truth, random, draw > 0))
        error = _errors([trained.scores[:, label]], trained.targets[:, label], random, draw > 0)[0]
        gains.append(error * (1 - (pictures / (pictures + MORE)) ** steepness))
    low, high = (float(np.quantile(gains[1:], q)) for q in (0.025, 0.975))
    gain = float(gains[0])
    is_nothing, is_more = gain < LEAST and high < NOTHING, gain >= LEAST and low >= SURELY
    if high - low > WIDE or not (is_nothing or is_more):
        why = f"by what was measured, between nothing and {high * 100:.0f} points"
        return Outlook(pictures, points, None, (low, high), why)
    return Outlook(pictures, points, gain, (low, high), "")


def _errors(answers: Sequence[Floats], truth: Flags, random: np.random.Generator, redraw: bool) -> Floats:
    """One minus average precision, of the pictures or of as many drawn from them, the same for all answers.

    Half a picture is taken to be wrong even where none is: among four right ones the next may well not be.
    """
    yes, no = np.flatnonzero(truth), np.flatnonzero(~truth)
    if redraw:
        yes, no = random.choice(yes, len(yes)), (random.choice(no, len(no)) if len(no) else no)
    chosen = np.concatenate([yes, no])
    floor = (random.beta(0.5, len(yes) + 0.5) if redraw else 0.25 / (len(yes) + 0.5)) if len(yes) else 1.0
    found = [average_precision(scores[chosen], truth[chosen]) or 0.0 for scores in answers]
    return np.asarray(np.maximum(1 - np.array(found), floor), np.float64)


def _steepness(sizes: Floats, errors: Floats) -> float:
    """b of error ∝ n^-b by least squares on logarithms; never below nought: more pictures do not harm."""
    spread = sizes - sizes.mean()
    square = float(spread @ spread)
    if square < 1e-9:
        return 0.0
    return min(_STEEPEST, max(0.0, -float(spread @ np.log(errors)) / square))
