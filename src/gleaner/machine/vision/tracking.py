"""Which box of this frame is which box of the last: ByteTrack (Zhang et al. 2022, "ByteTrack: Multi-Object Tracking by Associating
Every Detection Box"), of which this is the association, the Kalman filter and the birth and death of tracks.

Sure boxes are matched with every track first; what is left of the tracks seen a moment ago is then looked for among the unsure boxes,
so that a thing half covered keeps its id. Written here because every library for it (supervision, trackers, norfair, motpy) brings scipy
and matplotlib, which is more than the rest of a machine together.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import numpy as np

from gleaner.machine.vision.assignment import assign
from gleaner.machine.vision.detect import Box
from gleaner.machine.vision.overlaps import Floats, corners_of, overlaps
from gleaner.wire.track_names import track_name

SURE = 0.5
"""How sure a box must be to begin a track, where nobody said what is certain enough (the paper's upper threshold)."""
LEAST_FAINT = 0.1
"""What is less sure says nothing about where a thing went (the paper's lower threshold)."""
_SURE_IOU, _FAINT_IOU, _ONCE_IOU = 0.2, 0.5, 0.3
"""Least overlap with where a track should be: of sure boxes, of unsure ones, and with tracks seen once only. The paper's."""
_POSITION_NOISE, _VELOCITY_NOISE = 1 / 20, 1 / 160
"""Standard deviations as shares of the box's size, per frame, as in SORT and ByteTrack."""
_FRAMES_PER_S = 30.0
"""At which those were chosen; the time that really passed is counted in such frames."""
_IMPOSSIBLE = 1e3
_MOST_SOURCES = 16


@dataclass
class _Track:
    """`mean` (4, 2): centre x and y, width and height, each with its change per frame; `cov` (4, 2, 2): how unsure each is."""

    label: str
    mean: Floats
    cov: Floats
    seen_s: float
    first_seen: datetime
    name: str = ""
    """Given when it is seen for the second time: a ghost of one frame must not use up a number."""

    @classmethod
    def begun(cls, box: Box, now_s: float, first_seen: datetime) -> _Track:
        mean = np.stack([_measured(box), np.zeros(4)], 1)
        size = _sizes(mean)
        cov = np.zeros((4, 2, 2))
        cov[:, 0, 0], cov[:, 1, 1] = (2 * _POSITION_NOISE * size) ** 2, (10 * _VELOCITY_NOISE * size) ** 2
        return cls(box.label, mean, cov, now_s, first_seen)

    def predict(self, frames: float, is_lost: bool) -> None:
        if is_lost:
            self.mean[2:, 1] = 0.0  # a size that goes on changing unseen soon fits nothing
        size = _sizes(self.mean)
        move = np.array([[1.0, frames], [0.0, 1.0]])
        self.mean = self.mean @ move.T
        self.cov = move @ self.cov @ move.T
        self.cov[:, 0, 0] += (_POSITION_NOISE * size) ** 2 * frames
        self.cov[:, 1, 1] += (_VELOCITY_NOISE * size) ** 2 * frames

    def correct(self, box: Box, now_s: float) -> None:
        noise = (_POSITION_NOISE * _sizes(self.mean)) ** 2
        gain = self.cov[:, :, 0] / (self.cov[:, 0, 0] + noise)[:, None]
        self.mean = self.mean + gain * (_measured(box) - self.mean[:, 0])[:, None]
        self.cov = self.cov - gain[:, :, None] * self.cov[:, None, 0, :]
        self.seen_s = now_s

    @property
    def corners(self) -> Floats:
        centre, half = self.mean[:2, 0], np.maximum(self.mean[2:, 0], 1.0) / 2
        return np.concatenate([centre - half, centre + half])


@dataclass
class Tracker:
    """Of one camera. `begin`: how sure a box must be to begin a track; `number` gives a label's next one."""

    keep_s: float
    begin: float
    number: Callable[[str], int]
    wall_clock: Callable[[], datetime]
    _tracks: list[_Track] = field(default_factory=list)
    _last_s: float | None = None

    def update(self, shown: Sequence[Box], faint: Sequence[Box], now_s: float) -> list[str]:
        """The name of each of `shown`, "" where it has none. `faint`: those too unsure to be shown, which keep tracks alive."""
        is_first, last_s, now_s = self._move_on(now_s)
        sure = [box for box in shown if box.confidence >= self.begin]
        unsure = [b for b in shown if b.confidence < self.begin] + [b for b in faint if b.confidence >= LEAST_FAINT]
        named, once = ([t for t in self._tracks if bool(t.name) is wanted] for wanted in (True, False))
        found, named_left, sure_left = _matched(named, sure, _SURE_IOU)
        seen_lately = [t for t in named_left if t.seen_s >= last_s]
        found += _matched(seen_lately, unsure, _FAINT_IOU)[0]
        again, ghosts, sure_left = _matched(once, sure_left, _ONCE_IOU)
        for track, box in found + again:
            track.correct(box, now_s)
        begun = [(_Track.begun(box, now_s, self.wall_clock()), box) for box in sure_left]
        for track, _ in again + (begun if is_first else []):
            track.name = track_name(track.label, self.number(track.label), track.first_seen)
        self._tracks = [t for t in self._tracks if all(t is not ghost for ghost in ghosts)] + [t for t, _ in begun]
        names = {id(box): track.name for track, box in found + again + begun}
        return [names.get(id(box), "") for box in shown]

    def _move_on(self, now_s: float) -> tuple[bool, float, float]:
        """Moves every track to where it should be now. Whether nothing is known of the time before, then when that was, and now."""
        last_s = now_s if self._last_s is None else self._last_s
        is_first = self._last_s is None or now_s - last_s > self.keep_s
        self._last_s = now_s = max(now_s, last_s)  # answers to two callers may overtake each other
        self._tracks = [t for t in self._tracks if now_s - t.seen_s <= self.keep_s]
        for track in self._tracks:
            track.predict((now_s - last_s) * _FRAMES_PER_S, is_lost=track.seen_s < last_s)
        return is_first, last_s, now_s


class Tracks:
    """Of one service: a tracker per camera, numbers that no two of them share. May be asked by several threads."""

    def __init__(
        self, keep_s: float, begin: float, wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._keep_s, self._begin, self._wall_clock = keep_s, begin, wall_clock
        self._lock = threading.Lock()
        self._trackers: dict[str, Tracker] = {}
        self._given: Counter[str] = Counter()

    def update(self, source: str, shown: Sequence[Box], faint: Sequence[Box], now_s: float) -> list[str]:
        """As `Tracker.update`, of the camera `source`."""
        with self._lock:
            tracker = self._trackers.pop(source, None)
            if tracker is None:
                tracker = Tracker(self._keep_s, self._begin, self._number, self._wall_clock)
            self._trackers[source] = tracker  # the one used last is last
            while len(self._trackers) > _MOST_SOURCES:
                del self._trackers[next(iter(self._trackers))]
            return tracker.update(shown, faint, now_s)

    def _number(self, label: str) -> int:
        self._given[label] += 1
        return self._given[label] - 1


def _matched(
    tracks: Sequence[_Track], boxes: Sequence[Box], least: float
) -> tuple[list[tuple[_Track, Box]], list[_Track], list[Box]]:
    """Pairs of one label that overlap enough, the tracks left over and the boxes left over."""
    if not tracks or not boxes:
        return [], list(tracks), list(boxes)
    common, mine, theirs = overlaps(np.stack([t.corners for t in tracks]), corners_of(boxes))
    iou = common / np.maximum(mine[:, None] + theirs - common, 1e-9)
    is_same = np.array([[t.label == b.label for b in boxes] for t in tracks])
    possible = is_same & (iou >= least)
    pairs = [(r, c) for r, c in assign(np.where(possible, 1 - iou, _IMPOSSIBLE)) if possible[r, c]]
    used_tracks, used_boxes = {r for r, _ in pairs}, {c for _, c in pairs}
    return (
        [(tracks[r], boxes[c]) for r, c in pairs],
        [t for r, t in enumerate(tracks) if r not in used_tracks],
        [b for c, b in enumerate(boxes) if c not in used_boxes],
    )


def _measured(box: Box) -> Floats:
    x, y = (box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2
    return np.array([x, y, max(1, box.x_max - box.x_min), max(1, box.y_max - box.y_min)], np.float64)


def _sizes(mean: Floats) -> Floats:
    """Width, height, width, height: what the noise of each of the four numbers is a share of."""
    return cast(Floats, np.maximum(mean[[2, 3, 2, 3], 0], 1.0))
