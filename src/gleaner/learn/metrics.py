"""The figures of a report, as plain functions on arrays. `probabilities` and `targets` are (pictures, labels)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
_CALIBRATION_BINS = 10


@dataclass(frozen=True)
class LabelScore:
    support: int
    precision: float
    recall: float
    f1: float
    average_precision: float | None
    """None without a positive picture."""


def decide(probabilities: Floats, threshold: float, single: bool) -> Flags:
    """Which labels are said: all at or above the threshold, or only the strongest of them."""
    said: Flags = probabilities >= threshold
    if single and probabilities.shape[1]:
        strongest = np.zeros_like(said)
        strongest[np.arange(len(said)), probabilities.argmax(1)] = True
        said = said & strongest
    return said


def accuracy(said: Flags, targets: Flags) -> float:
    """Share of pictures with every label right; saying nothing about a picture that shows nothing counts as right."""
    return float((said == targets).all(1).mean()) if len(said) else 0.0


def wilson_interval(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share. Source: Wilson 1927; unlike the normal one it is sensible for five pictures."""
    if count == 0:
        return 0.0, 1.0
    share = right / count
    scale = 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / scale
    # At 0 and 1 the formula gives exactly 0 and 1, up to rounding.
    return (max(0.0, middle - half) if right else 0.0), (min(1.0, middle + half) if right < count else 1.0)


def label_scores(probabilities: Floats, said: Flags, targets: Flags) -> list[LabelScore]:
    scores = []
    for column in range(targets.shape[1]):
        precision, recall, f1 = _precision_recall_f1(said[:, column], targets[:, column])
        ap = average_precision(probabilities[:, column], targets[:, column])
        scores.append(LabelScore(int(targets[:, column].sum()), precision, recall, f1, ap))
    return scores


def average_precision(scores: Floats, truth: Flags) -> float | None:
    """Area under the precision-recall curve as a sum of steps; equal scores count as one step."""
    positives = int(truth.sum())
    if not positives:
        return None
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    last_of_equal = np.append(np.diff(scores[order]) != 0, True)
    precision = (hits / np.arange(1, len(order) + 1))[last_of_equal]
    recall = (hits / positives)[last_of_equal]
    return float(np.sum(np.diff(np.concatenate([[0.0], recall])) * precision))


def confusion(said: Flags, targets: Flags) -> tuple[NDArray[np.int64], dict[tuple[int, int], list[int]]]:
    """Counts [expected][predicted] with "none of these" last, and the pictures behind each cell.

    With several labels per picture: what is expected and said lies on the diagonal, each missed label is charged to the
    labels said instead (to none when there are none), and a label said too much to "none of these" expected.
    """
    none = targets.shape[1]
    matrix = np.zeros((none + 1, none + 1), dtype=np.int64)
    cells: dict[tuple[int, int], list[int]] = {}
    for picture, (want, got) in enumerate(zip(targets, said, strict=True)):
        missed, extra = np.flatnonzero(want & ~got).tolist(), np.flatnonzero(got & ~want).tolist()
        pairs = [(label, label) for label in np.flatnonzero(want & got).tolist()]
        pairs += [(m, e) for m in missed for e in (extra or [none])]
        if not missed:
            pairs += [(none, e) for e in extra]
        for pair in pairs or [(none, none)]:
            matrix[pair] += 1
            cells.setdefault(pair, []).append(picture)
    return matrix, cells


def threshold_curve(probabilities: Floats, targets: Flags, single: bool) -> list[tuple[float, float, float, float]]:
    """(threshold, precision, recall, F1) over all labels together."""
    return [(t, *_precision_recall_f1(decide(probabilities, t, single), targets)) for t in THRESHOLDS]


def suggest_threshold(probabilities: Floats, targets: Flags, single: bool) -> float:
    """Where most pictures come out right. A handful of validation pictures leave a wide flat top: the middle of the part
    of it nearest to one half is taken, because neither edge is known well.
    """
    if not len(probabilities):
        return 0.5
    return middle_of_best([accuracy(decide(probabilities, t, single), targets) for t in THRESHOLDS])


def middle_of_best(rates: Sequence[float]) -> float:
    """Of THRESHOLDS with the best rate, the middle of the run nearest to one half."""
    best = [i for i, rate in enumerate(rates) if rate >= max(rates) - 1e-9]
    nearest = min(best, key=lambda i: abs(THRESHOLDS[i] - 0.5))
    low = high = nearest
    while low - 1 in best:
        low -= 1
    while high + 1 in best:
        high += 1
    middle = (THRESHOLDS[low] + THRESHOLDS[high]) / 2
    return round(min(0.9, max(0.1, middle)), 2)


def expected_calibration_error(probabilities: Floats, targets: Flags) -> float:
    """Mean gap between confidence and how often it is right, over all (picture, label) pairs in ten equal bins."""
    confidence, truth = probabilities.ravel(), targets.ravel()
    if not len(confidence):
        return 0.0
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    gap = 0.0
    for b in range(_CALIBRATION_BINS):
        inside = bins == b
        if inside.any():
            gap += abs(float(confidence[inside].mean()) - float(truth[inside].mean())) * float(inside.mean())
    return gap


def fit_temperature(logits: Floats, targets: Flags) -> float:
    """The number to divide logits by so that confidences match what comes true. Source: Guo et al. 2017.

    With few pictures one lucky validation set would ask for any confidence, so the answer is pulled towards 1 as if
    thirty more answers had been seen there.
    """
    if not len(logits):
        return 1.0
    signs = np.where(targets, 1.0, -1.0)

    def cost(temperature: float) -> float:
        loss = float(np.logaddexp(0.0, -signs * logits / temperature).sum())
        return loss + 30 * math.log(temperature) ** 2 / 2

    candidates = np.exp(np.linspace(math.log(0.4), math.log(4.0), 121))
    return round(float(min(candidates, key=cost)), 4)


def sigmoid(logits: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits)), dtype=np.float64)


def _precision_recall_f1(said: Flags, truth: Flags) -> tuple[float, float, float]:
    right, said_count, true_count = int((said & truth).sum()), int(said.sum()), int(truth.sum())
    precision = right / said_count if said_count else 0.0
    recall = right / true_count if true_count else 0.0
    f1 = 2 * right / (said_count + true_count) if said_count + true_count else 0.0
    return precision, recall, f1
