"""Everything that is drawn once per seed: walls, floor and hall as picture pyramids."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from gleaner.sim.geometry import Arena
from gleaner.sim.surroundings import FLOOR_PX_PER_MM, build_floor, build_hall
from gleaner.sim.walls import PX_PER_MM, build_walls

Frame = npt.NDArray[np.uint8]

SHRINK = 2**0.5
"""Between levels of a pyramid. Steps of two pop visibly when the rover drives; steps of √2 do not."""


@dataclass(frozen=True)
class Pyramid:
    """One picture at falling sizes, so that far surfaces do not sparkle."""

    levels: tuple[Frame, ...]
    px_per_mm: float

    def level_for(self, mm_per_px: float) -> tuple[Frame, float]:
        """The level for a picture pixel that covers `mm_per_px` → (picture, its scale in px per mm)."""
        wanted = np.log(max(mm_per_px * self.px_per_mm, 1e-9)) / np.log(SHRINK)
        index = int(np.clip(round(float(wanted) - 0.25), 0, len(self.levels) - 1))
        return self.levels[index], self.px_per_mm * self.levels[index].shape[1] / self.levels[0].shape[1]


@dataclass(frozen=True)
class Scene:
    """The drawn arena of one seed. Read-only: threads share it."""

    arena: Arena
    seed: int
    walls: tuple[Pyramid, ...]
    floor: Pyramid
    hall: Frame


def _pyramid(picture: npt.NDArray[np.float32], px_per_mm: float, levels: int) -> Pyramid:
    full = np.clip(picture, 0, 255).astype(np.uint8)
    h, w = full.shape[:2]
    sizes = [(max(round(w / SHRINK**i), 8), max(round(h / SHRINK**i), 8)) for i in range(1, levels)]
    return Pyramid(
        (full, *(np.asarray(cv2.resize(full, size, interpolation=cv2.INTER_AREA), np.uint8) for size in sizes)),
        px_per_mm,
    )


@lru_cache(maxsize=2)
def scene_for(seed: int) -> Scene:
    """Draws the arena (about a second) or gives the one already drawn for this seed."""
    arena = Arena()
    walls = tuple(_pyramid(picture, PX_PER_MM, 7) for picture in build_walls(arena, seed))
    floor = _pyramid(build_floor(arena, seed), FLOOR_PX_PER_MM, 9)
    hall = build_hall(seed).astype(np.uint8)
    return Scene(arena, seed, walls, floor, np.concatenate([hall, hall], axis=1))
