"""An instant model: one linear layer over the numbers that the backbone gives (`embed.py`), fitted in a second, with numpy only.

One logistic regression per label, all at once by L-BFGS, L2-regularised; rare labels weigh more. How strong, how sure and how
good it is are all found by cross-validation over groups of pictures that are never divided (`split.py`): every picture is
answered by a head that has not seen it nor one like it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gleaner.learn.metrics import sigmoid

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

STRENGTHS = (0.3, 0.03, 0.003)
"""Of the L2 penalty on each weight, per picture. On hand signs the middle one is best, on few pictures the largest."""
_FOLDS = 5
_MOST_WEIGHT = 5.0
_STEPS, _MEMORY = 100, 8
_STILL = 1e-4
_MUCH = 10_000
"""Pictures times labels; beyond, one strength and fewer folds are tried, to stay within seconds."""


@dataclass(frozen=True)
class Head:
    weight: Floats
    """(labels, features), of vectors as they come."""
    bias: Floats

    def logits(self, vectors: NDArray[np.float32]) -> Floats:
        return np.asarray(vectors @ self.weight.T + self.bias, np.float64)

    def scaled(self, slope: float, offset: float) -> Head:
        return Head(self.weight * slope, self.bias * slope + offset)


@dataclass(frozen=True)
class Learned:
    head: Head
    """Of all pictures, calibrated."""
    held_out: Floats
    """Calibrated logits of each picture, by a head that learned from the other folds."""
    is_tested: Flags
    """(pictures,) False where the other folds had nothing of one of the picture's labels: its answer says nothing."""
    strength: float
    slope: float
    offset: float


def learn(
    vectors: NDArray[np.float32],
    targets: Flags,
    groups: Sequence[Sequence[int]],
    seed: int = 0,
    on_fit: Callable[[], None] = lambda: None,
) -> Learned:
    """`vectors` (pictures, features), `targets` (pictures, labels), `groups`: indices that are tested together."""
    is_much = targets.size > _MUCH
    folds = divide(groups, targets, min(3 if is_much else _FOLDS, len(groups)), seed)
    is_tested = testable(folds, targets)
    found: list[tuple[float, float, Floats]] = []
    for strength in STRENGTHS[1:2] if is_much or not is_tested.any() else STRENGTHS:
        held_out = np.zeros(targets.shape)
        for fold in range(int(folds.max(initial=0)) + 1):
            rest = folds != fold
            held_out[~rest] = fit_head(vectors[rest], targets[rest], strength).logits(vectors[~rest])
            on_fit()
        found.append((_loss(*_calibrated(held_out[is_tested], targets[is_tested])), strength, held_out))
    _, strength, held_out = min(found, key=lambda one: one[0])
    slope, offset = fit_scale(held_out[is_tested], targets[is_tested])
    head = fit_head(vectors, targets, strength).scaled(slope, offset)
    return Learned(head, held_out * slope + offset, is_tested, strength, slope, offset)


def divide(groups: Sequence[Sequence[int]], targets: Flags, count: int, seed: int) -> NDArray[np.int64]:
    """The fold of each picture. Groups stay whole; each label is spread as evenly as that allows, the rarest first."""
    fold_of = np.zeros(len(targets), np.int64)
    totals = targets.sum(0)
    load = np.zeros((count, targets.shape[1] + 1))
    order = np.random.default_rng(seed).permutation(len(groups))

    def key(number: int) -> tuple[int, int]:
        labels = np.flatnonzero(targets[list(groups[number])].any(0))
        return (int(totals[labels].min()) if len(labels) else len(targets), -len(groups[number]))

    for number in sorted(order.tolist(), key=key):
        members = list(groups[number])
        mine = np.append(targets[members].sum(0), len(members))
        wanted = mine[:-1] > 0
        crowd = load[:, :-1][:, wanted].sum(1) if wanted.any() else np.zeros(count)
        fold = int(np.lexsort((load[:, -1], crowd))[0])
        load[fold] += mine
        fold_of[members] = fold
    return fold_of


def testable(folds: NDArray[np.int64], targets: Flags) -> Flags:
    """(pictures,) False where the other folds have nothing of one of the picture's labels."""
    is_tested = np.zeros(len(targets), np.bool_)
    for fold in range(int(folds.max(initial=0)) + 1):
        unknown = ~targets[folds != fold].any(0)
        is_tested |= (folds == fold) & ~(targets & unknown).any(1)
    return is_tested


def fit_head(vectors: NDArray[np.float32], targets: Flags, strength: float, used: Flags | None = None) -> Head:
    """`used` (pictures, labels): False where a picture is not to teach that label."""
    mean = vectors.mean(0, dtype=np.float64)
    spread = vectors.std(0, dtype=np.float64)
    scale = 1 / np.maximum(spread, 0.1 * float(spread.mean()) + 1e-6)  # what hardly varies is not blown up
    x = np.asarray((vectors - mean) * scale / math.sqrt(vectors.shape[1]))
    positives = (targets if used is None else targets & used).sum(0)
    rarity = np.sqrt((len(targets) - positives) / np.maximum(positives, 1))
    weights = np.where(targets, np.clip(rarity, 1, _MOST_WEIGHT), 1.0) / len(targets)
    if used is not None:
        weights = weights * used
    signs = np.where(targets, 1.0, -1.0)
    shape = (targets.shape[1], x.shape[1] + 1)
    # Scaled features have length one: the penalty is per length, not per feature.
    penalty = strength / x.shape[1]

    def cost(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(shape)
        margins = signs * (x @ w[:, :-1].T + w[:, -1])
        loss = float((weights * np.logaddexp(0.0, -margins)).sum()) + penalty / 2 * float((w[:, :-1] ** 2).sum())
        slopes = -weights * signs * sigmoid(-margins)
        gradient = np.empty(shape)
        gradient[:, :-1] = slopes.T @ x + penalty * w[:, :-1]
        gradient[:, -1] = slopes.sum(0)
        return loss, gradient.ravel()

    w = minimize(cost, np.zeros(shape[0] * shape[1])).reshape(shape)
    weight = w[:, :-1] * scale / math.sqrt(vectors.shape[1])
    return Head(weight, w[:, -1] - weight @ mean)


def minimize(cost: Callable[[Floats], tuple[float, Floats]], start: Floats) -> Floats:
    """L-BFGS (Nocedal and Wright 2006, algorithm 7.4) with halving steps; `cost` is smooth and convex."""
    point, (value, gradient) = start, cost(start)
    first = float(np.linalg.norm(gradient))
    steps: list[tuple[Floats, Floats, float]] = []
    for _ in range(_STEPS):
        if float(np.linalg.norm(gradient)) <= _STILL * first:
            break
        direction = -_preconditioned(gradient, steps)
        slope = float(direction @ gradient)
        size = 1.0 if steps else 1.0 / max(first, 1e-12)
        while True:
            moved = point + size * direction
            new_value, new_gradient = cost(moved)
            if new_value <= value + 1e-4 * size * slope or size < 1e-10:
                break
            size /= 2
        if new_value >= value:
            break
        change, turn = moved - point, new_gradient - gradient
        if (curve := float(change @ turn)) > 1e-14:
            steps = [*steps[-_MEMORY + 1 :], (change, turn, 1 / curve)]
        point, value, gradient = moved, new_value, new_gradient
    return point


def _preconditioned(gradient: Floats, steps: Sequence[tuple[Floats, Floats, float]]) -> Floats:
    q = gradient.copy()
    shares = []
    for change, turn, rho in reversed(steps):
        share = rho * float(change @ q)
        shares.append(share)
        q -= share * turn
    if steps:
        change, turn, rho = steps[-1]
        q /= rho * float(turn @ turn)
    for (change, turn, rho), share in zip(steps, reversed(shares), strict=True):
        q += (share - rho * float(turn @ q)) * change
    return q


def fit_scale(logits: Floats, targets: Flags) -> tuple[float, float]:
    """(slope, offset) that make confidences match what comes true (Platt 1999), pulled towards (1, 0) as if thirty more answers
    had been seen there."""
    signs = np.where(targets, 1.0, -1.0)

    def cost(flat: Floats) -> tuple[float, Floats]:
        slope = math.exp(float(flat[0]))
        margins = signs * (slope * logits + flat[1])
        pull = 30 * float(flat[0] ** 2 + flat[1] ** 2) / 2
        back = -signs * sigmoid(-margins)
        gradient = np.array([float((back * logits).sum()) * slope, float(back.sum())]) + 30 * flat
        return float(np.logaddexp(0.0, -margins).sum()) + pull, gradient

    found = minimize(cost, np.zeros(2))
    return math.exp(float(np.clip(found[0], -2, 2))), float(np.clip(found[1], -4, 4))


def _calibrated(logits: Floats, targets: Flags) -> tuple[Floats, Flags]:
    slope, offset = fit_scale(logits, targets)
    return logits * slope + offset, targets


def _loss(logits: Floats, targets: Flags) -> float:
    return float(np.logaddexp(0.0, -np.where(targets, logits, -logits)).sum())
