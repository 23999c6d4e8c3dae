"""The arena's shape, where a camera stands in it, and what each picture column looks at. Pure arithmetic, no pictures.

World frame: millimetres, x and y on the floor, z up, origin in the middle. Heading is in degrees, counter-clockwise from +x.
Walls are numbered counter-clockwise; wall 0 is met first when looking along +x. A point on a wall is (along, up) in
millimetres: `along` runs to the right as seen from inside, 0 in the wall's middle; `up` is the height above the floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

WALLS = 8


@dataclass(frozen=True)
class Pose:
    """Where the rover stands and how it moves (the movement only blurs the picture)."""

    x_mm: float
    y_mm: float
    heading_deg: float
    speed_mm_s: float = 0.0
    turn_deg_s: float = 0.0


@dataclass(frozen=True)
class Arena:
    """A regular octagon. The size makes a sign fill a third of the picture from one metre away."""

    apothem_mm: float = 2300.0
    wall_height_mm: float = 1250.0

    @cached_property
    def wall_width_mm(self) -> float:
        return 2 * self.apothem_mm * math.tan(math.pi / WALLS)

    @cached_property
    def normals(self) -> FloatArray:
        """(8, 2): outward unit normals."""
        angles = np.arange(WALLS) * (2 * math.pi / WALLS)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    @cached_property
    def rights(self) -> FloatArray:
        """(8, 2): unit vectors along each wall, to the right as seen from inside."""
        angles = np.arange(WALLS) * (2 * math.pi / WALLS)
        return np.stack([np.sin(angles), -np.cos(angles)], axis=1)

    def keep_inside(self, x_mm: float, y_mm: float, margin_mm: float) -> tuple[float, float]:
        """The nearest point at least `margin_mm` from every wall: a rover pushed against a wall slides along it."""
        reach = self.apothem_mm - margin_mm
        point = np.array([x_mm, y_mm])
        for _ in range(4):  # in a corner the second wall pushes back towards the first by a little; this converges
            excess = self.normals @ point - reach
            worst = int(np.argmax(excess))
            if excess[worst] <= 0:
                return float(point[0]), float(point[1])
            point = point - self.normals[worst] * excess[worst]
        point *= min(1.0, reach / float(np.max(self.normals @ point)))
        return float(point[0]), float(point[1])

    def wall_point(self, wall: int, along_mm: float) -> tuple[float, float]:
        point = self.normals[wall] * self.apothem_mm + self.rights[wall] * along_mm
        return float(point[0]), float(point[1])


@dataclass(frozen=True)
class Lens:
    """A level pinhole camera on the rover: optical axis along the heading, `forward_mm` ahead of the rover's centre."""

    width_px: int = 640
    height_px: int = 480
    field_of_view_deg: float = 62.0
    height_mm: float = 360.0
    forward_mm: float = 60.0

    @cached_property
    def focal_px(self) -> float:
        return self.width_px / 2 / math.tan(math.radians(self.field_of_view_deg) / 2)

    @property
    def center_px(self) -> tuple[float, float]:
        """Of the optical axis. The horizon sits a little below the middle, so that signs are not cut off when near."""
        return self.width_px / 2, self.height_px * 0.54


@dataclass(frozen=True)
class View:
    """A lens at a pose in an arena: the projection between walls and picture."""

    arena: Arena
    lens: Lens
    pose: Pose

    @cached_property
    def forward(self) -> FloatArray:
        angle = math.radians(self.pose.heading_deg)
        return np.array([math.cos(angle), math.sin(angle)])

    @cached_property
    def left(self) -> FloatArray:
        return np.array([-self.forward[1], self.forward[0]])

    @cached_property
    def eye(self) -> FloatArray:
        return np.array([self.pose.x_mm, self.pose.y_mm]) + self.forward * self.lens.forward_mm

    def rays(self) -> FloatArray:
        """(width, 2): floor direction of each column's centre, with a forward component of one."""
        offset = (self.lens.center_px[0] - np.arange(self.lens.width_px) - 0.5) / self.lens.focal_px
        return self.forward[None, :] + offset[:, None] * self.left[None, :]

    def columns(self) -> tuple[npt.NDArray[np.intp], FloatArray]:
        """Per column: the wall it sees and the depth of that wall along the optical axis in mm."""
        closing = self.rays() @ self.arena.normals.T
        gap = self.arena.apothem_mm - self.arena.normals @ self.eye
        depth = np.where(closing > 1e-9, gap[None, :] / np.maximum(closing, 1e-9), np.inf)
        nearest = np.argmin(depth, axis=1)
        return nearest, depth[np.arange(len(nearest)), nearest]

    def project(self, wall: int, along_mm: FloatArray, up_mm: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Points on a wall → (x_px, y_px, depth_mm); depth ≤ 0 is behind the camera and its pixel means nothing."""
        points = (
            self.arena.normals[wall] * self.arena.apothem_mm + along_mm[:, None] * self.arena.rights[wall] - self.eye
        )
        depth = points @ self.forward
        safe = np.where(depth > 1e-6, depth, 1e-6)
        x_px = self.lens.center_px[0] - self.lens.focal_px * (points @ self.left) / safe
        y_px = self.lens.center_px[1] + self.lens.focal_px * (self.lens.height_mm - up_mm) / safe
        return x_px, y_px, depth
