"""Tags that are likely wrong: pictures whose answer, by a model that has not learned from them, is surely another.

Confident learning (Northcutt et al. 2021): a label counts as said when it is at least as likely as it is, on average, for the
pictures that carry it. So a label that is hard to see needs no high confidence, and one that the model boasts about does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gleaner.learn.metrics import Flags, Floats, sigmoid

FEWEST_OF_LABEL = 4
"""A label with fewer pictures has no average worth comparing with."""
_LEAST_SURE = 0.5


@dataclass(frozen=True)
class Doubt:
    picture: int
    said: tuple[int, ...]
    """Label numbers that the picture likely has, instead of those it carries; empty for none of these."""
    confidence: float
    """Of what is said and not carried, or not said and carried; calibrated."""


def find_doubts(logits: Floats, targets: Flags, is_tested: Flags, single: bool) -> list[Doubt]:
    """The likely wrong ones, the surest first. `logits` (pictures, labels): answers by models that did not learn the picture."""
    if not targets.size:
        return []
    found = _single(logits, targets, is_tested) if single else _multi(logits, targets, is_tested)
    return sorted(found, key=lambda one: (-one.confidence, one.picture))


def _single(logits: Floats, targets: Flags, is_tested: Flags) -> list[Doubt]:
    """Classes are the labels and "none of these", whose logit is nought."""
    none = targets.shape[1]
    given = np.where(targets.any(1), targets.argmax(1), none)
    whole = np.concatenate([logits, np.zeros((len(logits), 1))], 1)
    likely = np.exp(whole - whole.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    usual = [_mean(likely[is_tested & (given == one), one]) for one in range(none + 1)]
    found = []
    for picture in np.flatnonzero(is_tested).tolist():
        said = int(likely[picture].argmax())
        mine = int(given[picture])
        sure = float(likely[picture, said])
        if said != mine and sure >= max(_LEAST_SURE, usual[said]) and usual[mine] < np.inf:
            found.append(Doubt(picture, () if said == none else (said,), sure))
    return found


def _multi(logits: Floats, targets: Flags, is_tested: Flags) -> list[Doubt]:
    """Each label by itself: there and not carried, or carried and not there."""
    likely = sigmoid(logits)
    changed = np.zeros(targets.shape, np.bool_)
    sure = np.where(targets, 1 - likely, likely)
    for label in range(targets.shape[1]):
        for carried in (False, True):
            mine, other = is_tested & (targets[:, label] == carried), is_tested & (targets[:, label] != carried)
            if min(mine.sum(), other.sum()) < FEWEST_OF_LABEL:
                continue
            usual = _mean(1 - sure[other, label])
            changed[mine, label] = sure[mine, label] >= max(_LEAST_SURE, usual)
    found = []
    for picture in np.flatnonzero(changed.any(1)).tolist():
        said = np.flatnonzero(targets[picture] ^ changed[picture]).tolist()
        found.append(Doubt(picture, tuple(said), float(sure[picture, changed[picture]].max())))
    return found


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) >= FEWEST_OF_LABEL else float(np.inf)
