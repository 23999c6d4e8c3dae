"""Looks at a picture in parts too, for things that are small in it, and makes one list of boxes of what all parts show.

Tiles overlap. A thing smaller than the overlap is whole in at least one of them, and its cut-off piece in the next one is dropped; pieces
of a larger thing that no tile and not the whole picture showed whole are put together across the seam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gleaner.machine.vision.detect import Box
from gleaner.machine.vision.overlaps import Floats, corners_of, overlaps

SAME_THING, SAME_THING_ELSEWHERE = 0.5, 0.3
"""Overlap (IoU) from which two boxes of one label are the same thing, when they are of one frame and of two. A pixel of the model's
input is a different one of the picture in each, so small boxes differ more; and two neighbours are two in one frame at least."""
_INSIDE = 0.7
"""Share of a cut-off piece that lies in another box of its label, from which it is a piece of that."""
_BLUR = 0.01
"""Of the tile's side: how far off a box may be, about three pixels of a model's input. A cut-off sliver is hardly wider."""
_ALIGNED = 0.5
"""Overlap, along a seam, of two pieces of one thing."""
_AT_EDGE = 0.03
"""Of the tile's side: a box that ends so near to a seam is cut off by it. Models do not draw to the pixel."""
SMALLEST_SIDE_PX = 8
_LEFT, _TOP, _RIGHT, _BOTTOM = range(4)


@dataclass(frozen=True)
class Frame:
    """A part of the picture, in pixels. `seams`: which of left, top, right and bottom are not the picture's own edge."""

    left: int
    top: int
    width: int
    height: int
    seams: tuple[bool, bool, bool, bool] = (False, False, False, False)


@dataclass(frozen=True)
class Tiling:
    """`overlap`: of neighbours, as a share of a tile's side."""

    rows: int
    columns: int
    overlap: float

    def frames(self, height: int, width: int) -> list[Frame]:
        """The whole picture first, then its tiles row by row. Raises ValueError where they would be too small."""
        rows, columns = _spans(height, self.rows, self.overlap), _spans(width, self.columns, self.overlap)
        if min(end - begin for begin, end in rows + columns) < SMALLEST_SIDE_PX:
            raise ValueError(
                f"a picture of {width}×{height} px is too small for {self.columns}×{self.rows} tiles: "
                "use fewer tiles, or a camera with more pixels"
            )
        return [Frame(0, 0, width, height)] + [
            Frame(left, top, right - left, bottom - top, (left > 0, top > 0, right < width, bottom < height))
            for top, bottom in rows
            for left, right in columns
        ]


@dataclass(frozen=True)
class Piece:
    """A box in pixels of the picture, and the sides on which a seam cuts it off. `frame`: where it was seen; None if in several."""

    box: Box
    frame: Frame | None = None
    cut: tuple[bool, bool, bool, bool] = (False, False, False, False)

    @property
    def is_cut(self) -> bool:
        return any(self.cut)


def piece_of(box: Box, frame: Frame) -> Piece:
    """`box` is in pixels of the frame."""
    near_x, near_y = max(2.0, _AT_EDGE * frame.width), max(2.0, _AT_EDGE * frame.height)
    touches = (
        box.x_min <= near_x,
        box.y_min <= near_y,
        box.x_max >= frame.width - 1 - near_x,
        box.y_max >= frame.height - 1 - near_y,
    )
    cut = tuple(seam and touch for seam, touch in zip(frame.seams, touches, strict=True))
    moved = replace(
        box,
        x_min=box.x_min + frame.left,
        y_min=box.y_min + frame.top,
        x_max=box.x_max + frame.left,
        y_max=box.y_max + frame.top,
    )
    return Piece(moved, frame, (cut[0], cut[1], cut[2], cut[3]))


def merge(pieces: Sequence[Piece]) -> list[Box]:
    """Each thing once, the surest first."""
    by_label: dict[str, list[Piece]] = {}
    for piece in pieces:
        by_label.setdefault(piece.box.label, []).append(piece)
    kept = [piece for mine in by_label.values() for piece in _suppressed(_joined(_suppressed(mine)))]
    return sorted((piece.box for piece in kept), key=lambda box: -box.confidence)


def _suppressed(pieces: Sequence[Piece]) -> list[Piece]:
    """Without those that repeat another one. What is whole comes before what is cut off, then the surer before the less sure."""
    order = sorted(pieces, key=lambda piece: (piece.is_cut, -piece.box.confidence))
    corners: Floats = corners_of([piece.box for piece in order])
    common, areas, _ = overlaps(corners, corners)
    areas = np.maximum(areas, 1e-9)
    iou = common / np.maximum(areas[:, None] + areas - common, 1e-9)
    seen_in = np.array([id(piece.frame) if piece.frame else 0 for piece in order])
    is_same = iou > np.where(seen_in[:, None] == seen_in, SAME_THING, SAME_THING_ELSEWHERE)
    is_cut = np.array([piece.is_cut for piece in order], np.bool_)
    cut = corners[is_cut]
    blur = np.array([[_BLUR * side for side in _sides(piece)] for piece in order if piece.is_cut]).reshape(-1, 2)
    low = np.maximum(corners[:, None, :2] - blur, cut[:, :2])
    high = np.minimum(corners[:, None, 2:] + blur, cut[:, 2:])
    inside = np.prod(np.maximum(high - low, 0.0), -1) / areas[is_cut]
    repeats = is_same
    repeats[:, is_cut] |= inside > _INSIDE
    left = np.ones(len(order), np.bool_)
    for at in range(len(order)):
        if left[at]:
            left[at + 1 :] &= ~repeats[at, at + 1 :]
    return [piece for piece, stays in zip(order, left, strict=True) if stays]


def _sides(piece: Piece) -> tuple[int, int]:
    return (piece.frame.width, piece.frame.height) if piece.frame else (0, 0)


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces that face each other across a seam, as one; a thing may lie in more than two tiles."""
    done, waiting = [p for p in pieces if not p.is_cut], [p for p in pieces if p.is_cut]
    while waiting:
        piece = waiting.pop()
        other = next((one for one in waiting if _face(piece, one)), None)
        if other is None:
            done.append(piece)
        else:
            waiting = [one for one in waiting if one is not other] + [_union(piece, other)]
    return done


def _face(a: Piece, b: Piece) -> bool:
    return any(_meet(one, other, axis) for axis in (0, 1) for one, other in ((a, b), (b, a)))


def _meet(before: Piece, after: Piece, axis: int) -> bool:
    """Whether `before` is cut off on its right (axis 0) or bottom (1), and `after` goes on from there."""
    if not (before.cut[_RIGHT + axis] and after.cut[_LEFT + axis]):
        return False
    a, b, other = _edges(before.box), _edges(after.box), 1 - axis
    if not a[axis] < b[axis] <= a[axis + 2] + 1 or a[axis + 2] >= b[axis + 2]:
        return False
    shared = min(a[other + 2], b[other + 2]) - max(a[other], b[other])
    whole = max(a[other + 2], b[other + 2]) - min(a[other], b[other])
    return shared > _ALIGNED * whole


def _edges(box: Box) -> tuple[int, int, int, int]:
    return box.x_min, box.y_min, box.x_max, box.y_max


def _union(a: Piece, b: Piece) -> Piece:
    """Cut off only where its outer side is."""
    left, top = (a if a.box.x_min <= b.box.x_min else b), (a if a.box.y_min <= b.box.y_min else b)
    right, bottom = (a if a.box.x_max >= b.box.x_max else b), (a if a.box.y_max >= b.box.y_max else b)
    box = Box(
        a.box.label,
        max(a.box.confidence, b.box.confidence),
        left.box.x_min,
        top.box.y_min,
        right.box.x_max,
        bottom.box.y_max,
    )
    return Piece(box, None, (left.cut[_LEFT], top.cut[_TOP], right.cut[_RIGHT], bottom.cut[_BOTTOM]))


def _spans(length: int, count: int, overlap: float) -> list[tuple[int, int]]:
    """(begin, end) of `count` equal parts that reach from 0 to `length`."""
    side = length / (count - (count - 1) * overlap)
    begins = [n * side * (1 - overlap) for n in range(count)]
    return [(round(begin), min(length, round(begin + side))) for begin in begins]
