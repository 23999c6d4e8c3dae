"""What is really in view: for tests and benchmarks only. No product code may read this (a test asserts it); the product has to
learn from pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gleaner.sim.geometry import Arena, FloatArray, Lens, Pose, View
from gleaner.sim.layout import SIGNS, Sign


@dataclass(frozen=True)
class VisibleSign:
    """A sign at least partly in the picture. The box is normalized, of the visible part, y down."""

    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    visible_fraction: float
    """Of the sign's face."""
    picture_share: float
    """Of the picture that its box covers."""


def visible(pose: Pose, lens: Lens | None = None, arena: Arena | None = None) -> list[VisibleSign]:
    """Every sign of which at least one thousandth is in view, the largest in the picture first.

    The room is convex and empty, so a sign is hidden only by the picture's edge or by standing behind the camera.
    """
    view = View(arena or Arena(), lens or Lens(), pose)
    found = [seen for sign in SIGNS if (seen := _look(view, sign)) is not None]
    return sorted(found, key=lambda seen: -seen.picture_share)


def _look(view: View, sign: Sign) -> VisibleSign | None:
    points = _face(sign)
    x, y, depth = view.project(sign.wall, sign.along_mm + points[:, 0], sign.up_mm + points[:, 1])
    width, height = view.lens.width_px, view.lens.height_px
    inside = (depth > 1.0) & (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    fraction = float(inside.mean())
    if fraction < 0.001:
        return None
    x, y = x[inside] / width, y[inside] / height
    box = float(x.min()), float(y.min()), float(x.max()), float(y.max())
    return VisibleSign(sign.label, *box, fraction, (box[2] - box[0]) * (box[3] - box[1]))


def _face(sign: Sign, step_mm: float = 6.0) -> FloatArray:
    """(n, 2) points that cover the sign's face evenly."""
    outline = sign.outline()
    reach = sign.size_mm / 2 + step_mm
    side = np.arange(-reach, reach + step_mm, step_mm)
    mask = np.zeros((len(side), len(side)), np.uint8)
    cv2.fillPoly(mask, [np.round((outline + reach) / step_mm * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    rows, columns = np.nonzero(mask)
    return np.stack([side[columns], side[rows]], axis=1)
