"""The box around a COCO segmentation mask, for annotations that have no box of their own.

Three spellings: polygons ([[x, y, x, y, …], …] in pixels), run lengths ({"size": [height, width], "counts": [zeros, ones,
zeros, …]}, column by column), and the same as a text, which pycocotools writes: five bits a character from "0" on, least
significant first, 0x20 says that more follows, 0x10 in the last one is the sign, and from the third number on each is the
difference to the one two before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

_FIRST = 48
_MORE, _SIGN, _BITS = 0x20, 0x10, 0x1F


def box_around(mask: Any) -> list[float]:
    """[left, top, width, height] in pixels. Raises ValueError for what is no mask, or is empty."""
    try:
        if isinstance(mask, dict):
            height, width = (int(side) for side in mask["size"])
            return _around_runs(_counts(mask["counts"]), height, width)
        return _around_points([float(value) for value in chain.from_iterable(mask)])
    except (KeyError, TypeError, IndexError) as err:
        raise ValueError(f"its segmentation is neither polygons nor run lengths ({err!r})") from err


def _around_points(values: Sequence[float]) -> list[float]:
    xs, ys = values[::2], values[1::2]
    if len(xs) != len(ys) or len(xs) < 3:
        raise ValueError("its segmentation has fewer than three points")
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _around_runs(counts: Sequence[int], height: int, width: int) -> list[float]:
    if height <= 0 or width <= 0 or any(count < 0 for count in counts) or sum(counts) != height * width:
        raise ValueError(f"its segmentation's run lengths do not add up to {width}×{height} pixels")
    lefts, tops, rights, bottoms = [], [], [], []
    for end, count in list(zip(accumulate(counts), counts, strict=True))[1::2]:
        if count:
            (left, top), (right, bottom) = divmod(end - count, height), divmod(end - 1, height)
            lefts.append(left)
            rights.append(right)
            # A run into the next column reaches the last row of one and the first of the other.
            tops.append(top if left == right else 0)
            bottoms.append(bottom if left == right else height - 1)
    if not lefts:
        raise ValueError("its segmentation is empty")
    return [min(lefts), min(tops), max(rights) - min(lefts) + 1, max(bottoms) - min(tops) + 1]


def _counts(said: Any) -> list[int]:
    if not isinstance(said, str):
        return [int(count) for count in said]
    counts: list[int] = []
    value = shift = 0
    for character in said:
        bits = ord(character) - _FIRST
        if not 0 <= bits <= _MORE | _BITS:
            raise ValueError(f"its segmentation's run lengths hold {character!r}")
        value |= (bits & _BITS) << shift
        shift += 5
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("its segmentation's run lengths are cut off")
    return counts
