"""Drawing on pictures and turning them: pure functions on (height, width, 3) uint8 BGR frames.

Behaviour (sizes, order, errors) follows Viam's public description of its `transform` camera; the look of the letters is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gleaner.machine.models.pictures import BgrFrame

RED_BGR = (0, 0, 255)
TEXT_PX = 30
"""Height of a line of text, and the distance between two."""
MARGIN_PX = 30
BOX_PX = 2
_SHADOW = 0.55
_SUPERSAMPLE = 4


@dataclass(frozen=True)
class Box:
    """A box in pixels of the frame (x_min, y_min, x_max, y_max) and the text at its top left corner."""

    corners_px: tuple[int, int, int, int]
    text: str


def draw_lines(frame: BgrFrame, lines: Sequence[str]) -> BgrFrame:
    """Text from (30, 30) downwards, wrapped at the frame's width. No lines: the same frame, untouched."""
    if not lines:
        return frame
    picture = frame.copy()
    y = MARGIN_PX
    for line in lines:
        y += TEXT_PX * _write(picture, line, MARGIN_PX, y)
    return picture


def draw_boxes(frame: BgrFrame, boxes: Sequence[Box]) -> BgrFrame:
    """Raises ValueError for a box that lies outside the frame."""
    import cv2

    if not boxes:
        return frame
    picture = frame.copy()
    height, width = frame.shape[:2]
    for box in boxes:
        x0, y0, x1, y1 = box.corners_px
        if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height):
            raise ValueError(f"box {box.corners_px} lies outside the picture of {width}×{height} px")
        cv2.rectangle(picture, (x0, y0), (min(x1, width - 1), min(y1, height - 1)), RED_BGR, BOX_PX)
    for box in boxes:  # text last: a neighbour's frame must not run through it
        _write(picture, box.text, box.corners_px[0] + 4, box.corners_px[1] + 2)
    return picture


def rotate(frame: BgrFrame, clockwise_deg: float) -> BgrFrame:
    """The canvas grows to hold the turned picture; what it uncovers is black. Quarter turns are exact."""
    import cv2

    quarter = clockwise_deg / 90
    if quarter == int(quarter):
        return np.ascontiguousarray(np.rot90(frame, -int(quarter)))
    height, width = frame.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -clockwise_deg, 1.0)
    sine, cosine = abs(math.sin(math.radians(clockwise_deg))), abs(math.cos(math.radians(clockwise_deg)))
    new_width, new_height = (
        math.ceil(width * cosine + height * sine - 1e-9),
        math.ceil(width * sine + height * cosine - 1e-9),
    )
    turn[:, 2] += ((new_width - width) / 2, (new_height - height) / 2)
    return np.asarray(cv2.warpAffine(frame, turn, (new_width, new_height), flags=cv2.INTER_LINEAR), np.uint8)


def resize(frame: BgrFrame, width_px: int, height_px: int) -> BgrFrame:
    """Nearest neighbour. Raises ValueError for a zero size."""
    import cv2

    check_size(width_px, height_px)
    return np.asarray(cv2.resize(frame, (width_px, height_px), interpolation=cv2.INTER_NEAREST), np.uint8)


def check_size(width_px: int, height_px: int) -> None:
    if width_px <= 0:
        raise ValueError("new width for resize transform cannot be 0: set width_px")
    if height_px <= 0:
        raise ValueError("new height for resize transform cannot be 0: set height_px")


def check_crop(corners: tuple[float, float, float, float]) -> None:
    """Raises ValueError for corners that can never make a picture."""
    x_min, y_min, x_max, y_max = corners
    if x_min < 0 or y_min < 0:
        raise ValueError(f"cannot set x_min or y_min of a crop to a negative number, got {x_min:g} and {y_min:g}")
    if _is_relative(corners) and (x_min > 1 or y_min > 1):
        raise ValueError(
            f"x_max and y_max up to 1 are shares of the picture, then x_min and y_min ({x_min:g}, {y_min:g}) cannot exceed 1"
        )
    if x_min >= x_max:
        raise ValueError(f"cannot crop image to 0 width, x_min {x_min:g} is not below x_max {x_max:g}")
    if y_min >= y_max:
        raise ValueError(f"cannot crop image to 0 height, y_min {y_min:g} is not below y_max {y_max:g}")


def crop(frame: BgrFrame, corners: tuple[float, float, float, float], *, draw_only: bool = False) -> BgrFrame:
    """Shares of the picture when neither maximum exceeds 1, else pixels; exactly (0, 0, 1, 1) is the single top left pixel.

    Raises ValueError when nothing of the picture is left.
    """
    import cv2

    check_crop(corners)
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = corners
    if _is_relative(corners) and corners != (0, 0, 1, 1):
        x0, y0, x1, y1 = x0 * width, y0 * height, x1 * width, y1 * height
    left, top, right, bottom = int(x0), int(y0), min(int(x1), width), min(int(y1), height)
    if left >= right or top >= bottom:
        raise ValueError(
            f"cannot crop image to 0 width or height: the box {corners} leaves nothing of {width}×{height} px"
        )
    if draw_only:
        picture = frame.copy()
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), RED_BGR, BOX_PX)
        return picture
    return np.ascontiguousarray(frame[top:bottom, left:right])


def _is_relative(corners: tuple[float, float, float, float]) -> bool:
    return corners[2] <= 1 and corners[3] <= 1


def _write(picture: BgrFrame, text: str, x: int, y: int) -> int:
    """Draws one text with its top left corner at (x, y), wrapped → the number of lines it took."""
    lines = wrap(text, max(picture.shape[1] - x, TEXT_PX))
    for number, line in enumerate(lines):
        _stamp(picture, _letters(line), x, y + number * TEXT_PX)
    return len(lines)


def wrap(text: str, width_px: int) -> list[str]:
    """Breaks at spaces where it can, inside a word where it must."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if _width(joined) <= width_px:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and _width(lines[-1] + letter) > width_px:
                lines.append("")
            lines[-1] += letter
    return lines


def _stamp(picture: BgrFrame, letters: npt.NDArray[np.float32], x: int, y: int) -> None:
    """Opaque red letters with a faint dark rim, so that they read on light and dark and on red things."""
    pad = _PAD
    left, top = x - pad, y - pad
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + letters.shape[0], picture.shape[0]), min(left + letters.shape[1], picture.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    part = letters[y0 - top : y1 - top, x0 - left : x1 - left]
    area = picture[y0:y1, x0:x1].astype(np.float32)
    area *= 1 - _SHADOW * part[:, :, 1:]
    area += (np.array(RED_BGR, np.float32) - area) * part[:, :, :1]
    picture[y0:y1, x0:x1] = np.round(area).astype(np.uint8)


_PAD = 3


@lru_cache(maxsize=256)
def _letters(text: str) -> npt.NDArray[np.float32]:
    """(height, width, 2) float32: cover of the letters and of their rim, 0–1, with a border of `_PAD` px."""
    import cv2

    width, height = _width(text) + 2 * _PAD, TEXT_PX + 2 * _PAD + 4
    big = np.zeros((height * _SUPERSAMPLE, width * _SUPERSAMPLE), np.uint8)
    face, size = _font()
    base = (_PAD * _SUPERSAMPLE, round((_PAD + TEXT_PX * 0.8) * _SUPERSAMPLE))
    if face is not None:
        cv2.putText(big, text, base, (255,), face, size * _SUPERSAMPLE, 600)
    else:
        cv2.putText(
            big,
            text,
            base,
            cv2.FONT_HERSHEY_SIMPLEX,
            _HERSHEY * _SUPERSAMPLE,
            255,
            round(2.4 * _SUPERSAMPLE),
            cv2.LINE_AA,
        )
    cover = cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    rim = cv2.GaussianBlur(cv2.dilate(cover, np.ones((3, 3), np.uint8)), (0, 0), 1.0)
    return np.stack([cover, rim], axis=2)


_HERSHEY = 0.86


@lru_cache(maxsize=1)
def _font() -> tuple[Any, int]:
    """OpenCV 5 carries a real font; older ones only draw letters from lines."""
    import cv2

    return (cv2.FontFace("sans"), 27) if hasattr(cv2, "FontFace") else (None, 0)


@lru_cache(maxsize=512)
def _width(text: str) -> int:
    import cv2

    if not text:
        return 0
    face, size = _font()
    if face is not None:
        left, _top, width, _height = cv2.getTextSize((100_000, 10_000), text, (0, 0), face, size * _SUPERSAMPLE, 600)
        return math.ceil((left + width) / _SUPERSAMPLE) + 1
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _HERSHEY, 3)
    return int(width)
