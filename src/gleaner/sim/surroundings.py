"""The floor and what is above the walls: a dim hall with hanging lamps, out of focus."""

from __future__ import annotations

import cv2
import numpy as np

from gleaner.sim import materials
from gleaner.sim.geometry import Arena
from gleaner.sim.materials import Picture

FLOOR_PX_PER_MM = 0.22
HALL_SIZE = (2400, 420)
"""Width (360°) and height (from -10° to +50° of elevation) of the hall picture."""
HALL_ELEVATION_DEG = (-10.0, 50.0)


def build_floor(arena: Arena, seed: int) -> Picture:
    """(n, n, 3) BGR 0–255, evenly lit but for the shade along the walls: waxed concrete with worn tape and scuffs."""
    rng = np.random.default_rng((seed, 101))
    reach = arena.apothem_mm / np.cos(np.pi / 8)
    side = round(2 * reach * FLOOR_PX_PER_MM)
    tone = 1 + 0.075 * materials.cloud(rng, side, side, 130, 5) + 0.03 * materials.cloud(rng, side, side, 6, 2)
    floor: Picture = (np.asarray((104, 112, 120), np.float32) * tone[:, :, None]).astype(np.float32)
    _joints(floor, side)
    _tape(rng, floor, side)
    _scuffs(rng, floor, side)
    axis = (np.arange(side, dtype=np.float32) + 0.5) / FLOOR_PX_PER_MM - np.float32(reach)
    inner = np.full((side, side), -np.inf, np.float32)  # distance from the middle towards the nearest wall
    for nx, ny in arena.normals.astype(np.float32):
        np.maximum(inner, axis[None, :] * nx + axis[:, None] * ny, out=inner)
    floor *= (1 - 0.42 * np.exp(-np.clip(arena.apothem_mm - inner, 0, None) / 130))[:, :, None]
    middle = np.exp(-((inner / (arena.apothem_mm * 0.75)) ** 2))
    floor *= (0.82 + 0.36 * middle)[:, :, None]
    return np.asarray(floor, np.float32)


def _joints(floor: Picture, side: int) -> None:
    for i in range(1, 4):
        at = side * i // 4
        for start, end in (((at, 0), (at, side)), ((0, at), (side, at))):
            cv2.line(floor, start, end, (62, 66, 70), 3, cv2.LINE_AA)


def _tape(rng: np.random.Generator, floor: Picture, side: int) -> None:
    """A worn pale lane around the arena, and a crossing in the middle."""
    marks = np.zeros((side, side), np.float32)
    angles = np.radians(np.arange(9) * 45 + 22.5)
    ring = np.stack([np.cos(angles), np.sin(angles)], 1) * side * 0.33 + side / 2
    cv2.polylines(marks, [ring.astype(np.int32)], True, 1.0, 9, cv2.LINE_AA)
    half = side // 2
    for dx, dy in ((60, 0), (0, 60)):
        cv2.line(marks, (half - dx, half - dy), (half + dx, half + dy), 1.0, 9, cv2.LINE_AA)
    worn = np.clip(1.15 - 0.35 * np.clip(materials.cloud(rng, side, side, 30, 4), 0, 3), 0, 0.85)
    floor += (np.asarray((178, 190, 196), np.float32) - floor) * (marks * worn)[:, :, None]


def _scuffs(rng: np.random.Generator, floor: Picture, side: int) -> None:
    for _ in range(26):
        x, y, turn = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(0, 360)
        size = (int(rng.uniform(20, 120)), int(rng.uniform(10, 80)))
        cv2.ellipse(floor, (int(x), int(y)), size, turn, 0, rng.uniform(30, 110), (78, 83, 88), 2, cv2.LINE_AA)


def build_hall(seed: int) -> Picture:
    """(height, width, 3) BGR 0–255 panorama, left to right is turning right; both ends meet."""
    rng = np.random.default_rng((seed, 202))
    width, height = HALL_SIZE
    up = np.linspace(1, 0, height, dtype=np.float32)[:, None, None]
    hall = (
        np.asarray((44, 38, 34), np.float32) * (1 - up)
        + np.asarray((22, 19, 18), np.float32) * up
        + np.zeros((height, width, 3), np.float32)
    )
    _beams(hall, width, height)
    _windows(rng, hall, width, height)
    hall = _blur_around(hall, 7.0)
    _lamps(rng, hall, width, height)
    return np.clip(_blur_around(hall, 2.2), 0, 255).astype(np.float32)


def _beams(hall: Picture, width: int, height: int) -> None:
    for i in range(12):
        x = width * i // 12
        cv2.line(hall, (x, height), (x + 40, 0), (38, 36, 38), 26, cv2.LINE_AA)
        cv2.line(hall, (x + 14, height), (x + 52, 0), (92, 88, 88), 5, cv2.LINE_AA)
    for y in (height // 5, height // 2):
        cv2.line(hall, (0, y), (width, y), (34, 33, 35), 18, cv2.LINE_AA)
        cv2.line(hall, (0, y - 10), (width, y - 10), (98, 94, 92), 4, cv2.LINE_AA)


def _windows(rng: np.random.Generator, hall: Picture, width: int, height: int) -> None:
    """Rows of high factory windows at dusk on two sides."""
    for start in (180, 1390):
        for i in range(5):
            x, y = start + i * 128, int(height * 0.36)
            glass = (176 + rng.normal(0, 10), 138 + rng.normal(0, 8), 104)
            cv2.rectangle(hall, (x, y), (x + 100, y + 150), glass, -1)
            for j in range(1, 4):
                cv2.line(hall, (x + 25 * j, y), (x + 25 * j, y + 150), (40, 38, 38), 6)
                cv2.line(hall, (x, y + 38 * j), (x + 100, y + 38 * j), (40, 38, 38), 6)


def _lamps(rng: np.random.Generator, hall: Picture, width: int, height: int) -> None:
    """Hanging light tubes. Not round ones: out of focus those would pass for yellow circles."""
    glow = np.zeros_like(hall)
    for i in range(16):
        x, y = int(width * (i + 0.5) / 16 + rng.normal(0, 12)), int(height * rng.uniform(0.42, 0.64))
        half, thick = int(rng.uniform(28, 44)), int(rng.uniform(4, 7))
        for side in (-half + 8, half - 8):
            cv2.line(hall, (x + side, 0), (x + side, y), (20, 20, 22), 2, cv2.LINE_AA)
        cv2.rectangle(hall, (x - half - 4, y - thick - 5), (x + half + 4, y - thick), (44, 44, 46), -1)
        cv2.rectangle(hall, (x - half, y - thick), (x + half, y + thick), (255, 265, 275), -1)
        cv2.ellipse(glow, (x, y), (half * 2, half), 0, 0, 360, (70, 90, 106), -1, cv2.LINE_AA)
    hall += _blur_around(glow, 24.0) * 0.8


def _blur_around(picture: Picture, sigma: float) -> Picture:
    """Blurs a panorama whose left end continues at its right end."""
    pad = int(sigma * 4)
    wide = cv2.copyMakeBorder(picture, 0, 0, pad, pad, cv2.BORDER_WRAP)
    return np.asarray(cv2.GaussianBlur(wide, (0, 0), sigma)[:, pad:-pad], np.float32)
