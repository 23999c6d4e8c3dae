"""What hangs where: the arena's signs. The drawing code and the ground truth both read this table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt


class Shape(StrEnum):
    STAR = "star"
    CIRCLE = "circle"
    TRIANGLE = "triangle"
    SQUARE = "square"
    HEXAGON = "hexagon"
    PENTAGON = "pentagon"


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"
    GREEN = "green"
    YELLOW = "yellow"
    ORANGE = "orange"
    BLACK = "black"


PAINT_BGR: dict[Color, tuple[int, int, int]] = {
    Color.RED: (38, 30, 205),
    Color.BLUE: (190, 92, 22),
    Color.GREEN: (70, 142, 36),
    Color.YELLOW: (28, 200, 246),
    Color.ORANGE: (18, 120, 240),
    Color.BLACK: (30, 27, 26),
}
"""House paint under neutral light, not pure primaries: those look like a drawing."""


@dataclass(frozen=True)
class Sign:
    """A painted board on a wall. `size_mm` is the diameter of its circumscribed circle."""

    color: Color
    shape: Shape
    wall: int
    along_mm: float
    up_mm: float = 500.0
    size_mm: float = 480.0
    tilt_deg: float = 0.0

    @property
    def label(self) -> str:
        """The tag a user would type: letters, digits, `_` and `-` only."""
        return f"{self.color}_{self.shape}"

    def outline(self) -> npt.NDArray[np.float64]:
        """(n, 2) polygon around (0, 0) in mm, x to the right, y **up**."""
        return unit_outline(self.shape, self.tilt_deg) * (self.size_mm / 2)


def unit_outline(shape: Shape, tilt_deg: float = 0.0) -> npt.NDArray[np.float64]:
    """(n, 2) corners on the unit circle, x to the right, y up; an upright shape has a corner or a side on top."""
    corners = {
        Shape.CIRCLE: 72,
        Shape.TRIANGLE: 3,
        Shape.SQUARE: 4,
        Shape.PENTAGON: 5,
        Shape.HEXAGON: 6,
        Shape.STAR: 10,
    }[shape]
    start = 45.0 if shape is Shape.SQUARE else 0.0 if shape is Shape.HEXAGON else 90.0
    angles = np.radians(start + tilt_deg) + np.arange(corners) * (2 * math.pi / corners)
    # A five-pointed star drawn with straight lines has its inner corners at 0.382 of the radius; a little more is stouter.
    radius = np.where(np.arange(corners) % 2 == 0, 1.0, 0.43) if shape is Shape.STAR else np.ones(corners)
    return np.stack([np.cos(angles) * radius, np.sin(angles) * radius], axis=1)


SIGNS: tuple[Sign, ...] = (
    Sign(Color.RED, Shape.STAR, wall=0, along_mm=-140, size_mm=540),
    Sign(Color.BLUE, Shape.CIRCLE, wall=1, along_mm=120, size_mm=460),
    Sign(Color.GREEN, Shape.SQUARE, wall=2, along_mm=-520, size_mm=500, tilt_deg=3),
    Sign(Color.RED, Shape.PENTAGON, wall=2, along_mm=520, size_mm=460, tilt_deg=-4),
    Sign(Color.YELLOW, Shape.CIRCLE, wall=3, along_mm=-60, size_mm=460),
    Sign(Color.BLUE, Shape.STAR, wall=4, along_mm=180, size_mm=540, tilt_deg=6),
    Sign(Color.BLACK, Shape.TRIANGLE, wall=5, along_mm=-120, up_mm=470, size_mm=540),
    Sign(Color.ORANGE, Shape.TRIANGLE, wall=6, along_mm=-500, up_mm=470, size_mm=540, tilt_deg=-3),
    Sign(Color.GREEN, Shape.HEXAGON, wall=6, along_mm=520, size_mm=440),
)
"""Wall 7 carries no sign: a picture of nothing in particular is part of every data set. The walls with two signs hang them
a metre apart, so that from close by a picture shows one of them alone."""

LABELS: tuple[str, ...] = tuple(sorted(sign.label for sign in SIGNS))
