"""Tags for a dataset's untagged pictures, by an instant model of its tagged ones (`learn/instant.py`).

Nothing is kept but the pictures' vectors: a model is made anew each time somebody asks, in a second or two, and what it says is
a tag only once somebody accepted it (as any other tag, `ItemService.change_tags`).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import AppError, InvalidInput, Unavailable
from gleaner.app.services.datasets import dataset_row
from gleaner.app.services.embeddings import Embeddings
from gleaner.app.services.items_filter import visible_origins
from gleaner.app.services.thumbnails import Thumbnails
from gleaner.app.store import sniff
from gleaner.app.store import tables as t
from gleaner.learn import instant, metrics
from gleaner.learn.embed import Vectors
from gleaner.learn.request import FEWEST_PER_LABEL, Example
from gleaner.learn.split import PRINT_SIDE, fingerprint, group_pictures
from gleaner.wire.picture import PictureProblem, read_rgb

MOST_LEARNED = 2000
MOST_SUGGESTED = 5000
_LOOKING_S = 8.0
"""For pictures that were not embedded yet; the rest waits for the next time."""
_MOST_PRINTS = 4000


class SuggestedTag(NamedTuple):
    row: int
    tag: str
    confidence: float


@dataclass(frozen=True)
class Suggestions:
    labels: dict[str, int]
    """Pictures of each label that were learned from."""
    learned_from: int
    tested: int
    """Pictures with answers of a model that had learned from others only; few if all of a label are nearly the same."""
    accuracy: float | None
    """Share of the tested pictures named rightly; None without any."""
    interval: tuple[float, float]
    suggested: list[SuggestedTag]
    waiting: int
    """Pictures that nobody has looked at yet."""
    seconds: float


@dataclass(frozen=True)
class _Member:
    row: int
    captured_s: float
    origin_id: int
    tags: frozenset[str]


class TagSuggestions:
    def __init__(
        self,
        database: Database,
        embeddings: Embeddings,
        thumbnails: Thumbnails,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._embeddings = embeddings
        self._thumbnails = thumbnails
        self._now = now
        self._prints: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def suggest(self, caller: Caller, dataset_id: str, labels: Sequence[str] = ()) -> Suggestions:
        """Raises InvalidInput without two labels of two pictures each, Unavailable when pictures cannot be embedded."""
        began_s = self._now()
        members = self._members(caller, dataset_id)
        chosen = _checked(members, labels)
        tagged = _thinned([one for one in members if one.tags & set(chosen)], chosen)
        bare = [one for one in members if not one.tags]
        vectors = self._embeddings.vectors([one.row for one in tagged], _LOOKING_S)
        waiting = len(tagged) - len(vectors)
        tagged = [one for one in tagged if one.row in vectors]
        targets = np.array([[label in one.tags for label in chosen] for one in tagged], np.bool_).reshape(
            -1, len(chosen)
        )
        if (targets.sum(0) < FEWEST_PER_LABEL).any():
            raise Unavailable("The tagged pictures have not been looked at yet", "Ask again in a few seconds.")
        known = np.stack([vectors[one.row] for one in tagged])
        learned = instant.learn(known, targets, self._groups(tagged, chosen))
        tested = int(learned.is_tested.sum())
        right = _right(learned.held_out[learned.is_tested], targets[learned.is_tested])
        found = self._embeddings.vectors([one.row for one in bare], max(0.0, _LOOKING_S - (self._now() - began_s)))
        return Suggestions(
            dict(zip(chosen, map(int, targets.sum(0)), strict=True)),
            len(tagged),
            tested,
            round(right / tested, 4) if tested else None,
            _rounded(metrics.wilson_interval(right, tested)) if tested else (0.0, 1.0),
            _suggested(learned.head, chosen, found),
            waiting + len(bare) - len(found),
            round(self._now() - began_s, 2),
        )

    def _members(self, caller: Caller, dataset_id: str) -> list[_Member]:
        """The dataset's living pictures that the caller may see."""
        item, tag = t.item.c, t.item_tag.c
        with self._database.read() as db:
            dataset_row(db, caller, dataset_id)
            seen = [one.id for one in visible_origins(db, caller) if one.kind == sniff.IMAGE]
            mine = sa.select(t.dataset_item.c.row).where(t.dataset_item.c.dataset_id == dataset_id)
            where = item.row.in_(mine), item.deleted_ns.is_(None), item.origin_id.in_(seen)
            query = sa.select(item.row, item.captured_ns, item.origin_id).where(*where).order_by(item.row)
            found = db.execute(query).all()
            tags: dict[int, set[str]] = {}
            for row, name in db.execute(sa.select(tag.row, tag.tag).where(tag.row.in_(mine))):
                tags.setdefault(row, set()).add(name)
        return [
            _Member(row, captured_ns / 1e9, origin_id, frozenset(tags.get(row, ())))
            for row, captured_ns, origin_id in found
        ]

    def _groups(self, members: Sequence[_Member], labels: Sequence[str]) -> list[list[int]]:
        """As training divides them: what is nearly the same is not tested by what was learned from it."""
        examples = [
            Example(str(one.row), Path(), one.tags & set(labels), one.captured_s, str(one.origin_id)) for one in members
        ]
        return group_pictures(np.stack([self._print(one.row) for one in members]), examples)

    def _print(self, row: int) -> NDArray[np.float32]:
        with self._lock:
            known = self._prints.get(row)
        if known is None:
            try:
                known = fingerprint(read_rgb(self._thumbnails.jpeg_of(row), fit=(PRINT_SIDE, PRINT_SIDE)))
            except (AppError, PictureProblem):
                known = np.zeros(3 * PRINT_SIDE**2, np.float32)
            with self._lock:
                self._prints[row] = known
                while len(self._prints) > _MOST_PRINTS:
                    self._prints.popitem(last=False)
        return known


def _checked(members: Sequence[_Member], labels: Sequence[str]) -> list[str]:
    counts: dict[str, int] = {}
    for one in members:
        for name in one.tags:
            counts[name] = counts.get(name, 0) + 1
    for label in labels:
        if counts.get(label, 0) < FEWEST_PER_LABEL:
            raise InvalidInput(
                f"{counts.get(label, 0)} pictures of the dataset have the tag {label!r}",
                "Tag some more, or leave it out.",
            )
    chosen = sorted(set(labels) or {name for name, count in counts.items() if count >= FEWEST_PER_LABEL})
    if len(chosen) < 2:
        raise InvalidInput(
            "There is too little to tell apart: two tags with two pictures each are the least",
            "Tag a few pictures of each kind (ten of each work well), then ask again.",
        )
    return chosen


def _thinned(members: list[_Member], labels: Sequence[str]) -> list[_Member]:
    """At most MOST_LEARNED, of each label the same number where there are as many."""
    if len(members) <= MOST_LEARNED:
        return members
    random = np.random.default_rng(0)
    kept: set[int] = set()
    for label in labels:
        mine = [i for i, one in enumerate(members) if label in one.tags]
        most = max(FEWEST_PER_LABEL, MOST_LEARNED // len(labels))
        kept.update(int(i) for i in random.permutation(mine)[:most])
    return [members[i] for i in sorted(kept)]


def _right(logits: NDArray[np.float64], targets: NDArray[np.bool_]) -> int:
    """How often the strongest label is one of the picture's: what a suggestion is."""
    return int(targets[np.arange(len(targets)), logits.argmax(1)].sum())


def _suggested(head: instant.Head, labels: Sequence[str], found: dict[int, Vectors]) -> list[SuggestedTag]:
    if not found:
        return []
    confidence = metrics.sigmoid(head.logits(np.stack(list(found.values()))))
    best = confidence.argmax(1)
    order = np.argsort(-confidence.max(1), kind="stable")[:MOST_SUGGESTED]
    rows = list(found)
    return [SuggestedTag(rows[i], labels[best[i]], round(float(confidence[i, best[i]]), 4)) for i in order]


def _rounded(interval: tuple[float, float]) -> tuple[float, float]:
    return round(interval[0], 4), round(interval[1], 4)
