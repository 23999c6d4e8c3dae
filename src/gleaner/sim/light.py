"""Light that changes slowly: daylight wandering around the hall, a lamp that sags, the camera's own exposure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gleaner.sim.geometry import WALLS


@dataclass(frozen=True)
class Light:
    """Gains at one moment: per wall, and for the whole picture per colour (BGR)."""

    walls: npt.NDArray[np.float32]
    """(8, 3)"""
    floor: npt.NDArray[np.float32]
    """(3,)"""


def light_at(seed: int, time_s: float) -> Light:
    """The same seed and time give the same light. Everything moves over tens of seconds to minutes."""
    phase = (seed * 0.618) % 1 * 2 * math.pi
    sun = phase + 2 * math.pi * time_s / 300
    angles = np.arange(WALLS) * (2 * math.pi / WALLS)
    level = 1.06 + 0.15 * np.cos(angles - sun) + 0.035 * np.sin(time_s / 17 + angles * 3 + phase)
    level *= 1 + 0.05 * math.sin(2 * math.pi * time_s / 71 + phase)
    warmth = 0.035 * math.sin(2 * math.pi * time_s / 190 + phase)
    tint = np.array([1 - warmth, 1.0, 1 + warmth])
    sunny = np.array([0.985, 1.0, 1.015])[None, :] ** (4 * np.cos(angles - sun))[:, None]
    walls = level[:, None] * tint[None, :] * sunny
    return Light(walls.astype(np.float32), (walls.mean(axis=0)).astype(np.float32))
