"""The eight wall pictures: a surface, things hanging on it, its signs, and the light of its own lamps baked in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from gleaner.sim import clutter, materials
from gleaner.sim.geometry import Arena
from gleaner.sim.layout import PAINT_BGR, SIGNS, Sign
from gleaner.sim.materials import Picture, Plane

PX_PER_MM = 0.6
"""Sharp enough from half a metre away; finer pictures cost start-up time and cache misses and nobody sees it."""


@dataclass(frozen=True)
class Lamp:
    """A spot above a wall: where it hits, how wide and how strong."""

    along: float
    width: float
    strength: float


def build_walls(arena: Arena, seed: int) -> list[Picture]:
    """Eight (height, width, 3) uint8-range float32 BGR pictures, numbered like the walls."""
    height, width = round(arena.wall_height_mm * PX_PER_MM), round(arena.wall_width_mm * PX_PER_MM)
    pictures = []
    for number, dress in enumerate(_DRESSERS):
        rng = np.random.default_rng((seed, number))
        picture = dress(rng, height, width)
        _baseboard(rng, picture)
        for sign in SIGNS:
            if sign.wall == number:
                _hang(rng, picture, sign)
        picture *= _light(rng, height, width)
        pictures.append(picture)
    return pictures


def _hang(rng: np.random.Generator, wall: Picture, sign: Sign) -> None:
    """A board cut to shape, painted, a little worn, screwed to the wall a finger's width away from it."""
    h, w = wall.shape[:2]
    center = np.array([w / 2 + sign.along_mm * PX_PER_MM, h - sign.up_mm * PX_PER_MM])
    outline = center + sign.outline() * (PX_PER_MM, -PX_PER_MM)
    mask = clutter.polygon_mask(wall.shape, outline)
    clutter.shadow(wall, mask, (3.0, 7.0), 6.0, 0.5)
    clutter.shadow(wall, mask, (1.0, 2.0), 1.5, 0.35)
    side = clutter.polygon_mask(wall.shape, outline + np.array([0.5, 2.5]))
    paint = np.asarray(PAINT_BGR[sign.color], np.float32)
    clutter.lay(wall, side, tuple(paint * 0.45 + 8))
    reach = int(sign.size_mm * PX_PER_MM / 2) + 8
    y0, x0 = max(int(center[1]) - reach, 0), max(int(center[0]) - reach, 0)
    box = (slice(y0, y0 + 2 * reach), slice(x0, x0 + 2 * reach))
    area = mask[box]
    tall, wide = area.shape
    inner = cv2.GaussianBlur(area, (0, 0), 2.2)
    edge = cv2.Sobel(inner, cv2.CV_32F, 0, 1, ksize=3)
    tone = 1 + 0.04 * materials.cloud(rng, tall, wide, 90, 3) + 0.018 * materials.cloud(rng, tall, wide, 3, 2, 14)
    tone += np.linspace(0.1, -0.1, tall, dtype=np.float32)[:, None]
    face = paint * tone[:, :, None] + 105 * np.clip(edge, -0.25, 0.5)[:, :, None]
    scuffs = np.clip(materials.cloud(rng, tall, wide, 14, 3, 3) - 2.1, 0, 1)
    face += (np.asarray((176, 190, 200), np.float32) - face) * (0.35 * scuffs)[:, :, None]
    clutter.lay(wall[box], area, face.astype(np.float32))
    for point in center + (sign.outline()[:: max(len(outline) // 5, 1)] * 0.8) * (PX_PER_MM, -PX_PER_MM):
        cv2.circle(wall, (int(point[0]), int(point[1])), 3, (paint * 0.6).tolist(), -1, cv2.LINE_AA)
        cv2.circle(
            wall, (int(point[0]), int(point[1]) - 1), 2, np.minimum(paint * 1.25 + 40, 255).tolist(), -1, cv2.LINE_AA
        )


def _baseboard(rng: np.random.Generator, wall: Picture) -> None:
    h, w = wall.shape[:2]
    tall = 34
    band = wall[h - tall :]
    band[:] = materials.planks(rng, tall, w, (70, 74, 78), plank_px=900)
    profile = np.concatenate([[1.5, 1.3, 0.7], np.linspace(1.05, 0.8, tall - 3)]).astype(np.float32)
    band *= profile[:, None, None]
    wall[h - tall - 8 : h - tall] *= np.linspace(1.0, 0.72, 8, dtype=np.float32)[:, None, None]


def _light(rng: np.random.Generator, height: int, width: int) -> Picture:
    """(height, width, 3) gain: warm lamps grazing the wall from above, dimmer corners, darker near the floor."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    lamps = (
        Lamp(-0.48 + float(rng.normal(0, 0.06)), 0.34, float(rng.uniform(0.34, 0.48))),
        Lamp(0.46 + float(rng.normal(0, 0.06)), 0.36, float(rng.uniform(0.34, 0.5))),
    )
    glow: Plane = np.zeros((height, width), np.float32)
    for lamp in lamps:
        spread = lamp.width * (0.32 + 0.95 * np.sqrt(y + 0.02))
        glow += (
            lamp.strength
            * np.exp(-(((x - lamp.along) / spread) ** 2) * 1.4)
            * (1.12 - 0.62 * y)
            * np.clip(y / 0.08 + 0.35, 0, 1)
        )
    corners = 1 - 0.34 * np.exp(-(1 - np.abs(x)) / 0.07)
    floor = 1 - 0.25 * np.exp(-(1 - y) / 0.06)
    level = 0.7 * corners * floor
    warm = np.asarray((0.86, 0.98, 1.08), np.float32)
    cool = np.asarray((1.06, 1.0, 0.95), np.float32)
    return np.asarray(level[:, :, None] * cool + (glow * corners * floor)[:, :, None] * warm, np.float32)


def _white_brick(rng: np.random.Generator, h: int, w: int) -> Picture:
    wall = materials.brick(rng, h, w, materials.WHITE_PAINT, (188, 196, 200), 0.025)
    clutter.stain(rng, wall, (w * 0.86, h * 0.2), 90, 0.12)
    clutter.pipe(wall, 62, 13, (96, 128, 176), upright=False)
    clutter.poster(rng, wall, (w * 0.84, h * 0.47), (170, 226))
    clutter.notes(rng, wall, (w * 0.12, h * 0.5), 5)
    clutter.outlet(wall, int(w * 0.7), h - 130)
    clutter.cable(wall, (0, 150), (w * 0.34, 66), 60, 6, (40, 40, 42))
    return wall


def _oak(rng: np.random.Generator, h: int, w: int) -> Picture:
    wall = materials.planks(rng, h, w, materials.OAK)
    clutter.shelf(rng, wall, int(w * 0.05), int(h * 0.42), 260, materials.WALNUT)
    clutter.frame(rng, wall, (w * 0.86, h * 0.36), (170, 130), (46, 52, 58))
    clutter.notes(rng, wall, (w * 0.85, h * 0.66), 3)
    clutter.cable(wall, (w * 0.2, 0), (w, 44), 70, 5, (46, 48, 50))
    clutter.outlet(wall, int(w * 0.3), h - 128)
    return wall


def _subway(rng: np.random.Generator, h: int, w: int) -> Picture:
    wall = materials.tiles(rng, h, w, (214, 220, 220), (150, 154, 156))
    clutter.vent(wall, int(w * 0.43), 70, 150, 84)
    clutter.frame(rng, wall, (w * 0.5, h * 0.5), (150, 190), materials.WALNUT)
    clutter.pipe(wall, w - 40, 12, (150, 156, 158), upright=True)
    clutter.cable(wall, (0, 90), (w * 0.432, 84), 44, 5, (60, 60, 62))
    clutter.stain(rng, wall, (w * 0.94, h * 0.7), 70, 0.14)
    return wall


def _charcoal(rng: np.random.Generator, h: int, w: int) -> Picture:
    wall = materials.brick(rng, h, w, materials.CHARCOAL, (52, 50, 50), 0.09)
    clutter.poster(rng, wall, (w * 0.13, h * 0.42), (180, 240))
    clutter.poster(rng, wall, (w * 0.86, h * 0.38), (150, 200))
    clutter.pipe(wall, 40, 10, (86, 120, 168), upright=False)
    clutter.outlet(wall, int(w * 0.72), h - 150)
    clutter.cable(wall, (w * 0.735, h - 104), (w, h - 60), 30, 5, (150, 154, 158))
    return wall


def _concrete(rng: np.random.Generator, h: int, w: int) -> Picture:
    wall = materials.concrete(rng, h, w, materials.CONCRETE)
    clutter.stencil(wall, "BAY 04", int(w * 0.06), int(h * 0.26), 2.2, (84, 88, 92), 0.55)
    clutter.stain(rng, wall, (w * 0.3, h * 0.1), 100, 0.2)
    clutter.stain(rng, wall, (w * 0.92, h * 0.55), 60, 0.16)
    clutter.radiator(wall, int(w * 0.05), 270, 190)
    clutter.cable(wall, (w * 0.5, 0), (w, 120), 50, 7, (36, 36, 38))
    clutter.notes(rng, wall, (w * 0.9, h * 0.36), 3)
    return wall


def _wainscot(rng: np.random.Generator, h: int, w: int) -> Picture:
    wall = materials.plaster(rng, h, w, materials.CREAM)
    rail = int(h * 0.79)
    wall[rail:] = materials.planks(rng, h - rail, w, (92, 122, 150), plank_px=58)
    wall[rail - 14 : rail] = (
        np.asarray((74, 100, 126), np.float32) * np.linspace(1.4, 0.8, 14, dtype=np.float32)[:, None, None]
    )
    wall[rail : rail + 12] *= np.linspace(0.55, 1, 12, dtype=np.float32)[:, None, None]
    clutter.frame(rng, wall, (w * 0.8, h * 0.34), (210, 160), materials.WALNUT)
    clutter.frame(rng, wall, (w * 0.93, h * 0.55), (110, 130), (60, 64, 70))
    clutter.frame(rng, wall, (w * 0.12, h * 0.4), (150, 190), (120, 150, 176))
    clutter.stain(rng, wall, (w * 0.6, h * 0.08), 80, 0.1)
    return wall


def _papered(rng: np.random.Generator, h: int, w: int) -> Picture:
    wall = materials.wallpaper(rng, h, w, materials.DUSTY_BLUE)
    clutter.shelf(rng, wall, int(w * 0.38), int(h * 0.36), 270, materials.OAK)
    clutter.poster(rng, wall, (w * 0.51, h * 0.62), (140, 180))
    clutter.outlet(wall, int(w * 0.94), h - 130)
    clutter.cable(wall, (0, 70), (w * 0.6, 0), 46, 5, (54, 56, 58))
    return wall


def _workshop(rng: np.random.Generator, h: int, w: int) -> Picture:
    wall = materials.brick(rng, h, w, materials.RED_BRICK, (150, 158, 164), 0.12)
    clutter.window(rng, wall, int(w * 0.08), int(h * 0.16), 320, 250)
    clutter.radiator(wall, int(w * 0.1), 286, 170)
    x0, x1, y0, y1 = int(w * 0.46), int(w * 0.94), int(h * 0.2), int(h * 0.66)
    board = clutter.polygon_mask(wall.shape, np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float))
    clutter.shadow(wall, board, (3, 8), 7, 0.5)
    wall[y0:y1, x0:x1] = materials.pegboard(rng, y1 - y0, x1 - x0, (126, 160, 186))
    clutter.poster(rng, wall, (w * 0.55, h * 0.42), (150, 200))
    clutter.notes(rng, wall, (w * 0.72, h * 0.38), 6)
    clutter.frame(rng, wall, (w * 0.86, h * 0.42), (130, 170), (46, 52, 58))
    clutter.pipe(wall, w - 30, 14, (104, 132, 172), upright=True)
    clutter.cable(wall, (w * 0.4, 0), (w * 0.97, 60), 50, 6, (40, 40, 42))
    clutter.outlet(wall, int(w * 0.6), h - 130)
    return wall


_DRESSERS: tuple[Callable[[np.random.Generator, int, int], Picture], ...] = (
    _white_brick,
    _oak,
    _subway,
    _charcoal,
    _concrete,
    _wainscot,
    _papered,
    _workshop,
)
