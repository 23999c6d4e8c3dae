"""What a classifier's report tells beside the test: tags that are likely wrong, and what more pictures would be worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gleaner.learn import instant
from gleaner.learn.doubts import Doubt, find_doubts
from gleaner.learn.fit import FitResult
from gleaner.learn.metrics import Flags, Floats
from gleaner.learn.network import Trunk, prepared
from gleaner.learn.outlook import MORE, Answers, NoTime, Outlook, look_ahead
from gleaner.learn.pictures import Loaded
from gleaner.learn.report import short, write_sample
from gleaner.learn.request import RunRequest, Task
from gleaner.learn.run import LAST_LAYER
from gleaner.learn.split import Split

MOST_DOUBTS = 60
ALL_ALIKE = "the pictures of a label are nearly the same, so none could be kept from a model to ask it"
NO_TIME = "the run had no time left for it: allow more"
_FOLDS, _STRENGTH, _BATCH = 5, 0.03, 32
_LOOKING = 0.5
"""Of the time at most goes into running the pictures through the networks."""

InTime = Callable[[float], bool]
"""Whether less than this share of the time for the review is gone."""


@dataclass(frozen=True)
class Material:
    """All pictures of a run. `groups`: those that are nearly the same."""

    loaded: Loaded
    targets: Flags
    split: Split
    groups: Sequence[Sequence[int]]


@dataclass(frozen=True)
class _Seen:
    """The pictures there was time for: their indices, and the numbers of each backbone for them."""

    chosen: list[int]
    vectors: list[NDArray[np.float32]]
    groups: list[list[int]]
    """Of places in `chosen`."""


def backbones(result: FitResult, start: Trunk) -> list[Trunk]:
    """The trained one and `start`, the one it began as, which knows none of the tags; the first is left out if it is the second."""
    return [start] if result.learned == LAST_LAYER else [start, result.network.backbone]


def review(
    request: RunRequest,
    material: Material,
    networks: Sequence[Trunk],
    trained: Answers,
    samples_dir: Path,
    in_time: InTime,
) -> dict[str, Any]:
    """`label_errors` and `learning_curve` of the report; each says why if it could not be made. `networks` begins with the one
    that nothing was learned into."""
    seen = _look(material, networks, request.seed, in_time)
    targets = material.targets[seen.chosen]

    def check_time() -> None:
        if not in_time(1.0):
            raise NoTime

    try:
        logits, is_tested = _held_out(seen, targets, request.seed, check_time)
        doubts = find_doubts(logits, targets, is_tested, request.task is Task.SINGLE_LABEL)
        errors = {
            "checked": int(is_tested.sum()),
            "reason": "" if is_tested.any() else ALL_ALIKE,
            "pictures": _listed(request, material, seen, doubts, samples_dir),
        }
    except NoTime:
        errors = {"checked": 0, "reason": NO_TIME, "pictures": []}
    try:
        outlooks = look_ahead(seen.vectors[0], targets, seen.groups, trained, request.seed, check_time)
        curve = describe_outlook(request.labels, outlooks)
    except NoTime:
        curve = {"more": MORE, "reason": NO_TIME, "labels": []}
    return {"label_errors": errors, "learning_curve": curve}


def describe_outlook(labels: Sequence[str], outlooks: Sequence[Outlook]) -> dict[str, Any]:
    return {
        "more": MORE,
        "reason": "",
        "labels": [
            {
                "label": label,
                "pictures": one.pictures,
                "verdict": one.verdict,
                "gain": None if one.gain is None else short(one.gain),
                "gain_interval": None if one.interval is None else [short(v) for v in one.interval],
                "why": one.why,
                "points": [
                    {"pictures": round(p.pictures, 1), "average_precision": short(p.average_precision)}
                    for p in one.points
                ],
            }
            for label, one in zip(labels, outlooks, strict=True)
        ],
    }


@torch.no_grad()
def _look(material: Material, networks: Sequence[Trunk], seed: int, in_time: InTime) -> _Seen:
    """The pictures come in random order, so those that there is time for are a fair part."""
    order = np.random.default_rng(seed).permutation(len(material.targets)).tolist()
    found: list[list[NDArray[np.float32]]] = [[] for _ in networks]
    reached = 0
    for network in networks:
        network.eval()
    while reached < len(order) and (in_time(_LOOKING) or not reached):
        chunk = order[reached : reached + _BATCH]
        pictures = prepared(material.loaded.pixels[chunk])
        for network, mine in zip(networks, found, strict=True):
            mine.append(network(pictures).numpy())
        reached += len(chunk)
    place = {picture: number for number, picture in enumerate(order[:reached])}
    groups = [[place[i] for i in group if i in place] for group in material.groups]
    return _Seen(order[:reached], [np.concatenate(mine) for mine in found], [group for group in groups if group])


def _held_out(seen: _Seen, targets: Flags, seed: int, check_time: Callable[[], None]) -> tuple[Floats, Flags]:
    """Calibrated logits of each picture by heads that have not learned it nor one like it, averaged over backbones; and for
    which pictures they say anything. The trained backbone tells more apart but may have got used to a wrong tag; the other
    cannot have."""
    folds = instant.divide(seen.groups, targets, min(_FOLDS, len(seen.groups)), seed)
    is_tested = instant.testable(folds, targets)
    total = np.zeros(targets.shape)
    for vectors in seen.vectors:
        logits = np.zeros(targets.shape)
        for fold in range(int(folds.max(initial=0)) + 1):
            check_time()
            rest = folds != fold
            if rest.any():
                logits[~rest] = instant.fit_head(vectors[rest], targets[rest], _STRENGTH).logits(vectors[~rest])
        slope, offset = instant.fit_scale(logits[is_tested], targets[is_tested])
        total += logits * slope + offset
    return total / len(seen.vectors), is_tested


def _listed(
    request: RunRequest, material: Material, seen: _Seen, doubts: Sequence[Doubt], samples_dir: Path
) -> list[dict[str, Any]]:
    part_of = {i: name for name in ("train", "validation", "test") for i in getattr(material.split, name)}
    samples_dir.mkdir(parents=True, exist_ok=True)
    listed = []
    for number, doubt in enumerate(doubts[:MOST_DOUBTS]):
        index = seen.chosen[doubt.picture]
        example = material.loaded.examples[index]
        name = f"tag-{number:03d}.jpg"
        listed.append(
            {
                "id": example.id,
                "expected": sorted(example.labels, key=request.labels.index),
                "suggested": [request.labels[label] for label in doubt.said],
                "confidence": short(doubt.confidence),
                "part": part_of.get(index, "train"),
                "sample": f"{samples_dir.name}/{name}" if write_sample(example.path, samples_dir / name) else None,
            }
        )
    return listed
