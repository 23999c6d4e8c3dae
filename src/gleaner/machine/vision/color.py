"""Finds blobs of one colour. The colour is given as `#RRGGBB`; hue decides, saturation and brightness only have to suffice."""

from __future__ import annotations

import colorsys
import re
from dataclasses import dataclass

import numpy as np

from gleaner.wire.picture import Rgb

_HEX = re.compile(r"^#?([0-9a-fA-F]{6})$")
_HUE_NAMES = (
    "red", "orange", "yellow", "lime-green", "green", "green-blue",
    "cyan", "light-blue", "blue", "violet", "magenta", "rose",
)  # fmt: skip
"""Twelve steps of 30°, red in the middle of the first."""


@dataclass(frozen=True)
class ColorRange:
    hue_deg: float
    tolerance: float
    """Share of the full circle that passes, centred on the hue."""
    least_saturation: float
    least_value: float


def parse_color(text: str) -> tuple[int, int, int]:
    match = _HEX.match(text)
    if not match:
        raise ValueError(f"{text!r} is not a colour like #RRGGBB, for example #D91F2A")
    digits = match.group(1)
    return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def color_range(color: str, tolerance: float, least_saturation: float, least_value: float) -> ColorRange:
    """Raises ValueError for a colour without a usable hue: grey, or darker than the cut-off."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in parse_color(color)))
    if saturation < least_saturation:
        raise ValueError(
            f"{color} is too grey to be told by its hue: choose a stronger colour or lower saturation_cutoff_pct"
        )
    if value < least_value:
        raise ValueError(
            f"{color} is too dark to be told by its hue: choose a lighter colour or lower value_cutoff_pct"
        )
    return ColorRange(hue * 360, tolerance, least_saturation, least_value)


def hue_name(hue_deg: float) -> str:
    return _HUE_NAMES[int(((hue_deg + 15) % 360) // 30)]


def find_blobs(picture: Rgb, wanted: ColorRange, least_box_px: int) -> list[tuple[int, int, int, int]]:
    """(x_min, y_min, x_max, y_max) in pixels of 4-connected blobs whose box holds at least `least_box_px`, largest box first."""
    import cv2

    hsv = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2HSV_FULL)  # hue 0–255 for the full circle
    distance = np.abs((hsv[..., 0].astype(np.int16) - round(wanted.hue_deg / 360 * 256) + 128) % 256 - 128)
    mask = (
        (distance <= wanted.tolerance / 2 * 256)
        & (hsv[..., 1] >= wanted.least_saturation * 255)
        & (hsv[..., 2] >= wanted.least_value * 255)
    )
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    boxes = [
        (int(x), int(y), int(x + w - 1), int(y + h - 1))
        for x, y, w, h, _area in stats[1:]
        if int(w) * int(h) >= least_box_px
    ]
    return sorted(boxes, key=lambda b: -(b[2] - b[0] + 1) * (b[3] - b[1] + 1))
