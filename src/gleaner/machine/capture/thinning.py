"""Which files a full disk may lose: a pure choice, so that it can be simulated for weeks in seconds.

Every collector may keep an equal share of the space; what one does not need is the others' (water-filling), so that a
rare sensor is not touched because a camera is greedy. Inside a collector the file goes whose absence leaves the smallest
hole in time, again and again: what remains is spread evenly, however often this is repeated (as in line simplification,
Visvalingam and Whyatt, 1993, with time as the only measure). Tagged files go when nobody has an untagged one left, and the
newest file of a collector never.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Of the files that may go, the quarter with the smallest holes is judged at once; the rest after their neighbours left.
_ROUND_SHARE = 0.25


@dataclass(frozen=True)
class Series:
    """The complete files of one collector, oldest first."""

    directory: str
    times_ns: NDArray[np.int64]
    sizes: NDArray[np.int64]
    """Bytes on the disk."""
    tagged: NDArray[np.bool_]

    def counted_singly(self) -> Series:
        """For a disk that runs out of files, not of bytes: each counts alike."""
        return replace(self, sizes=self.sizes * 0 + 1)


def choose(series: Sequence[Series], need_bytes: int) -> list[NDArray[np.bool_]]:
    """Masks of the files to delete, at least `need_bytes` in all unless everything but the newest files is chosen."""
    import numpy as np

    gone = [np.zeros(len(one.times_ns), np.bool_) for one in series]
    for wants_tagged in (False, True):
        may_go = []
        for one, mask in zip(series, gone, strict=True):
            free = (one.tagged == wants_tagged) & ~mask
            free[-1:] = False
            may_go.append(free)
        sizes = [int(one.sizes[free].sum()) for one, free in zip(series, may_go, strict=True)]
        limits = shares(sizes, max(0, sum(sizes) - need_bytes))
        for one, mask, free, size, limit in zip(series, gone, may_go, sizes, limits, strict=True):
            if size > limit:
                need_bytes -= thin(one, mask, free, size - limit)
        if need_bytes <= 0:
            break
    return gone


def shares(sizes: Sequence[int], budget: int) -> list[int]:
    """What each may keep: everybody the same, and nobody more than it has; in all `budget`, or everything."""
    kept = [0] * len(sizes)
    left, waiting = budget, sorted(range(len(sizes)), key=sizes.__getitem__)
    while waiting:
        index = waiting.pop(0)
        kept[index] = min(sizes[index], left // (len(waiting) + 1))
        left -= kept[index]
    return kept


def thin(series: Series, gone: NDArray[np.bool_], may_go: NDArray[np.bool_], need_bytes: int) -> int:
    """Marks files in `gone` until they have `need_bytes`, or none may go any more; returns their bytes."""
    import numpy as np

    freed = 0
    while freed < need_bytes:
        alive = np.flatnonzero(~gone)
        holes = _holes(series.times_ns[alive])
        candidates = np.flatnonzero(may_go[alive] & ~gone[alive])
        if not len(candidates):
            break
        ranked = candidates[np.argsort(holes[candidates], kind="stable")]
        worst = holes[ranked[max(0, int(len(ranked) * _ROUND_SHARE) - 1)]]
        chosen = _without_neighbours(np.sort(ranked[holes[ranked] <= worst]))
        chosen = chosen[np.argsort(holes[chosen], kind="stable")]
        sizes = np.cumsum(series.sizes[alive[chosen]])
        count = min(len(chosen), int(np.searchsorted(sizes, need_bytes - freed)) + 1)
        gone[alive[chosen[:count]]] = True
        freed += int(sizes[count - 1])
    return freed


def _holes(times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The gap that each file's absence would leave; the first file's is twice the gap behind it, the last's endless."""
    import numpy as np

    holes = np.full(len(times_ns), np.iinfo(np.int64).max, np.int64)
    if len(times_ns) > 1:
        holes[0] = 2 * (times_ns[1] - times_ns[0])
        holes[1:-1] = times_ns[2:] - times_ns[:-2]
    return holes


def _without_neighbours(places: NDArray[np.intp]) -> NDArray[np.intp]:
    """Every other one of each run of adjacent places: two neighbours must not go in one round, the hole would be theirs."""
    import numpy as np

    starts = np.concatenate(([True], np.diff(places) > 1))
    first = np.maximum.accumulate(np.where(starts, np.arange(len(places)), 0))
    every_other: NDArray[np.intp] = places[(np.arange(len(places)) - first) % 2 == 0]
    return every_other
