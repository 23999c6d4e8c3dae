"""How much boxes have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gleaner.machine.vision.detect import Box

Floats = NDArray[np.float64]


def overlaps(a: Floats, b: Floats) -> tuple[Floats, Floats, Floats]:
    """Common area (n, m), and the areas (n,) and (m,), of boxes (n, 4) and (m, 4): left, top, right, bottom."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0.0), -1)
    return common, np.prod(a[:, 2:] - a[:, :2], -1), np.prod(b[:, 2:] - b[:, :2], -1)


def corners_of(boxes: Sequence[Box]) -> Floats:
    return np.array([[b.x_min, b.y_min, b.x_max, b.y_max] for b in boxes], np.float64).reshape(-1, 4)
