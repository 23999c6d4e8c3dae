"""Boxes in pixels, for formats that measure so, and the size of a picture where a format does not say it."""

from __future__ import annotations

from gleaner.formats.values import Box, Picture, Problem
from gleaner.wire.picture import PictureProblem, picture_size


def size_of(picture: Picture) -> tuple[int, int] | Problem:
    """(width, height) in pixels, from the bytes if nobody has said it."""
    if picture.width > 0 and picture.height > 0:
        return picture.width, picture.height
    return size_of_bytes(picture.name, picture.read())


def size_of_bytes(name: str, content: bytes) -> tuple[int, int] | Problem:
    try:
        height, width = picture_size(content)
    except PictureProblem as problem:
        return Problem(name, f"its size cannot be read: {problem}", "Open it in a picture program and save it again.")
    return width, height


def to_xywh(box: Box, width: int, height: int) -> list[float]:
    """[left, top, width, height] in pixels, as COCO and Hugging Face have it."""
    x, y = box.x_min * width, box.y_min * height
    return [x, y, box.x_max * width - x, box.y_max * height - y]


def from_xywh(label: str, xywh: list[float], width: int, height: int, confidence: float | None = None) -> Box:
    """Cut off at the picture's edges. Raises ValueError for what is no box, or lies outside."""
    if len(xywh) != 4:
        raise ValueError(f"the box has {len(xywh)} numbers, expected 4: left, top, width, height")
    x, y, w, h = (float(one) for one in xywh)
    return clipped(label, x / width, y / height, (x + w) / width, (y + h) / height, confidence)


def clipped(label: str, x_min: float, y_min: float, x_max: float, y_max: float, confidence: float | None = None) -> Box:
    """Raises ValueError for a box without area in the picture."""
    left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in (x_min, y_min, x_max, y_max))
    if left >= right or top >= bottom:
        raise ValueError(f"the box {label!r} has no area inside the picture")
    return Box(label, left, top, right, bottom, confidence)
