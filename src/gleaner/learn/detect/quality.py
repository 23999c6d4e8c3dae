"""How good found boxes are, as COCO counts it, and the figures of a report.

Source: Lin et al. 2014 and the evaluation program of its authors: per label, found boxes of all pictures in order of their
score take the true box they overlap most, if it is still free; the precision is read at 101 recalls and averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gleaner.learn.detect.network import Found
from gleaner.learn.detect.scenes import Boxes

Floats = NDArray[np.float64]
OVERLAPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Matched:
    """One label's found boxes of all pictures, surest first, and whether each is right."""

    scores: Floats
    right: NDArray[np.bool_]
    true_count: int


def overlaps(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union, (len(a), len(b)), of boxes (n, 4) x_min, y_min, x_max, y_max."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clip(0).prod(2)
    areas = [(each[:, 2:] - each[:, :2]).prod(1) for each in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.asarray(common / np.maximum(union, 1e-9), np.float32)


def match(found: Sequence[Found], truths: Sequence[Boxes], label: int, overlap: float) -> Matched:
    scores: list[float] = []
    right: list[bool] = []
    true_count = 0
    for each, truth in zip(found, truths, strict=True):
        own = truth[truth[:, 0] == label][:, 1:]
        true_count += len(own)
        chosen = (each.labels == label).numpy()
        said = each.scores.numpy()[chosen]
        order = np.argsort(-said, kind="stable")
        common = overlaps(each.boxes.numpy()[chosen][order], own)
        free = np.ones(len(own), bool)
        for row, score in zip(common, said[order], strict=True):
            best = int(np.where(free, row, -1.0).argmax()) if len(own) else -1
            hit = best >= 0 and bool(free[best]) and float(row[best]) >= overlap
            if hit:
                free[best] = False
            scores.append(float(score))
            right.append(hit)
    order = np.argsort(-np.array(scores), kind="stable")
    return Matched(np.array(scores)[order], np.array(right, bool)[order], true_count)


def average_precision(matched: Matched) -> float | None:
    """None without a true box."""
    if not matched.true_count:
        return None
    hits = np.cumsum(matched.right)
    recall = hits / matched.true_count
    precision = hits / np.arange(1, len(hits) + 1)
    # From here on at least this good: the curve may not rise again.
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    where = np.searchsorted(recall, _RECALLS, side="left")
    values = np.append(falling, 0.0)[np.minimum(where, len(falling))]
    return float(values.mean())


def mean_average_precision(
    found: Sequence[Found], truths: Sequence[Boxes], overlaps_asked: Sequence[float]
) -> float | None:
    """Over labels that occur and overlaps; None without any true box."""
    labels = sorted({int(label) for truth in truths for label in truth[:, 0]})
    values = [
        value
        for overlap in overlaps_asked
        for label in labels
        if (value := average_precision(match(found, truths, label, overlap))) is not None
    ]
    return float(np.mean(values)) if values else None


def map50(found: Sequence[Found], truths: Sequence[Boxes]) -> float | None:
    return mean_average_precision(found, truths, (0.5,))


def map50_95(found: Sequence[Found], truths: Sequence[Boxes]) -> float | None:
    return mean_average_precision(found, truths, OVERLAPS)


def map50_interval(
    found: Sequence[Found], truths: Sequence[Boxes], seed: int, rounds: int = 200
) -> tuple[float, float] | None:
    """95 % interval of mAP50 by drawing the test pictures again and again (bootstrap, Efron 1979); None without a box."""
    labels = sorted({int(label) for truth in truths for label in truth[:, 0]})
    singles = {
        label: [match([each], [truth], label, 0.5) for each, truth in zip(found, truths, strict=True)]
        for label in labels
    }
    random = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        drawn = random.integers(len(found), size=len(found))
        own = [average_precision(_joined([singles[label][i] for i in drawn])) for label in labels]
        known = [value for value in own if value is not None]
        if known:
            values.append(float(np.mean(known)))
    return (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))) if values else None


def _joined(parts: Sequence[Matched]) -> Matched:
    scores = np.concatenate([part.scores for part in parts])
    order = np.argsort(-scores, kind="stable")
    right = np.concatenate([part.right for part in parts])[order]
    return Matched(scores[order], right, sum(part.true_count for part in parts))


@dataclass(frozen=True)
class Answers:
    """All found boxes of all pictures at IoU 0.5, and how many true ones there are."""

    scores: Floats
    right: NDArray[np.bool_]
    labels: NDArray[np.int64]
    true_counts: NDArray[np.int64]

    def counted(self, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Per label: how many boxes are said at this threshold, and how many of those are right."""
        said = self.scores >= threshold
        count = len(self.true_counts)
        said_counts = np.bincount(self.labels[said], minlength=count)
        return said_counts, np.bincount(self.labels[said & self.right], minlength=count)


def answers(found: Sequence[Found], truths: Sequence[Boxes], label_count: int) -> Answers:
    each = [match(found, truths, label, 0.5) for label in range(label_count)]
    return Answers(
        np.concatenate([one.scores for one in each]),
        np.concatenate([one.right for one in each]),
        np.concatenate([np.full(len(one.scores), label, np.int64) for label, one in enumerate(each)]),
        np.array([one.true_count for one in each], np.int64),
    )


def precision_recall_f1(right: int, said: int, true: int) -> tuple[float, float, float]:
    precision, recall = (right / count if count else 0.0 for count in (said, true))
    return precision, recall, 2 * right / (said + true) if said + true else 0.0


def fit_calibration(scores: Floats, right: NDArray[np.bool_]) -> tuple[float, float]:
    """(slope, offset) for logits, so that a score is the share of boxes with that score that are right. Source: Platt 1999.

    With few boxes a lucky validation set would ask for any confidence, so both are pulled to (1, 0) as if by thirty more.
    """
    kept = scores > CALIBRATED_FROM
    logits = np.log(scores[kept]) - np.log1p(-np.minimum(scores[kept], 1 - 1e-6))
    signs = np.where(right[kept], 1.0, -1.0)
    if not len(logits):
        return 1.0, 0.0
    best = min(
        ((slope, offset) for slope in np.exp(np.linspace(-1, 1, 41)) for offset in np.linspace(-2, 2, 41)),
        key=lambda pair: (
            float(np.logaddexp(0.0, -signs * (pair[0] * logits + pair[1])).sum())
            + 15 * float(np.log(pair[0]) ** 2 + pair[1] ** 2)
        ),
    )
    return round(float(best[0]), 4), round(float(best[1]), 4)


CALIBRATED_FROM = 0.05
"""Score below which a box is noise that nobody will be shown."""
