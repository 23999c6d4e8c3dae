"""Surfaces that look photographed: brick, planks, tiles, plaster, concrete, wallpaper. Each takes a random generator and a
size and returns a (height, width, 3) float32 BGR picture, 0–255, evenly lit. Colours are BGR like everywhere in OpenCV."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32]
Plane = npt.NDArray[Any]
Bgr = tuple[float, float, float]

WHITE_PAINT: Bgr = (205, 212, 216)
CHARCOAL: Bgr = (66, 60, 58)
RED_BRICK: Bgr = (72, 88, 142)
OAK: Bgr = (118, 165, 202)
CREAM: Bgr = (178, 206, 222)
WALNUT: Bgr = (52, 76, 108)
CONCRETE: Bgr = (158, 166, 170)
DUSTY_BLUE: Bgr = (176, 162, 142)


def cloud(
    rng: np.random.Generator, height: int, width: int, cell_px: float, octaves: int = 4, stretch: float = 1.0
) -> Plane:
    """(height, width) float32 fractal noise with mean 0 and deviation 1; `stretch` > 1 lengthens it horizontally."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cell = max(cell_px / 2**octave, 1.0)
        rows, columns = int(height / cell) + 3, int(width / (cell * stretch)) + 3
        grid = rng.standard_normal((rows, columns)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR) * (0.6**octave)
    total -= total.mean()
    return total / max(float(total.std()), 1e-6)


def relief(height_map: Plane, strength: float) -> Plane:
    """Light from above on a bumpy surface: a factor per pixel around 1."""
    height_map = height_map.astype(np.float32)
    slope = cv2.Sobel(height_map, cv2.CV_32F, 0, 1, ksize=3) - 0.4 * cv2.Sobel(height_map, cv2.CV_32F, 1, 0, ksize=3)
    return np.asarray(np.clip(1.0 + strength * slope, 0.55, 1.4))


def _paint(color: Bgr, tone: Plane) -> Picture:
    return (np.asarray(color, np.float32)[None, None, :] * tone[:, :, None]).astype(np.float32)


def _grid(
    rng: np.random.Generator, height: int, width: int, cell: tuple[int, int], gap: float, shift: float, wobble: float
) -> tuple[Plane, Plane, Plane, Plane]:
    """Running-bond grid → (row, column, inside 0–1, position inside the cell −1…1 vertically)."""
    cell_h, cell_w = cell
    wander = cloud(rng, height, width, 26, 2) * wobble
    y = np.arange(height, dtype=np.float32)[:, None] + wander
    row = np.floor(y / cell_h)
    x = np.arange(width, dtype=np.float32)[None, :] + wander[::-1] + (row % 2) * (cell_w * shift)
    column = np.floor(x / cell_w)
    in_y, in_x = y - row * cell_h, x - column * cell_w
    edge = np.minimum(np.minimum(in_y, cell_h - in_y), np.minimum(in_x, cell_w - in_x))
    inside = np.clip((edge - gap) / 1.8, 0, 1)
    return row.astype(np.int32), column.astype(np.int32), inside, in_y * (2 / cell_h) - 1


def _per_cell(rng: np.random.Generator, row: Plane, column: Plane, spread: float) -> Plane:
    table = rng.normal(0, spread, (211, 223)).astype(np.float32)
    return np.asarray(table[row % 211, column % 223])


def brick(rng: np.random.Generator, height: int, width: int, color: Bgr, mortar: Bgr, variety: float) -> Picture:
    row, column, inside, _ = _grid(rng, height, width, (39, 126), 3.0, 0.5, 0.8)
    rough = cloud(rng, height, width, 9, 3)
    tone = 1 + _per_cell(rng, row, column, variety) + 0.035 * rough + 0.05 * cloud(rng, height, width, 160, 3)
    surface = _paint(color, tone)
    hue = _per_cell(rng, row, column, variety * 0.5)
    surface[:, :, 2] *= 1 + hue
    surface[:, :, 0] *= 1 - 0.6 * hue
    joints = _paint(mortar, 1 + 0.06 * rough)
    picture = joints + (surface - joints) * inside[:, :, None]
    bumps = cv2.GaussianBlur(inside * 2.2 + rough * 0.12, (0, 0), 1.1)
    return np.asarray(picture * relief(bumps, 0.11)[:, :, None], np.float32)


def planks(
    rng: np.random.Generator, height: int, width: int, color: Bgr, plank_px: int = 92, contrast: float = 1.0
) -> Picture:
    """Upright boards: drawn lying and turned."""
    lying_h, lying_w = width, height
    rows = np.arange(lying_h)[:, None] // plank_px + np.zeros((1, lying_w), np.int32)
    grain = np.zeros((lying_h, lying_w), np.float32)
    for start in range(0, lying_h, plank_px):
        band = slice(start, min(start + plank_px, lying_h))
        tall = band.stop - band.start
        y = np.arange(tall, dtype=np.float32)[:, None] / plank_px
        x = np.arange(lying_w, dtype=np.float32)[None, :] / plank_px
        knot_y, knot_x = rng.uniform(-0.5, 1.5), rng.uniform(0, lying_w / plank_px)
        rings = np.sqrt((y - knot_y) ** 2 * 9 + ((x - knot_x) * 0.22) ** 2) + 0.06 * cloud(rng, tall, lying_w, 40, 2, 6)
        grain[band] = np.sin(rings * rng.uniform(20, 34)) * 0.5 + 0.7 * cloud(rng, tall, lying_w, 3, 2, 40)
    tone = (
        1
        + _per_cell(rng, rows, rows, 0.075)
        + contrast * 0.035 * grain
        + 0.03 * cloud(rng, lying_h, lying_w, 120, 3, 2)
    )
    inside = np.clip(
        (np.minimum(np.arange(lying_h) % plank_px, plank_px - np.arange(lying_h) % plank_px) - 1.2) / 1.6, 0, 1
    )
    tone *= (0.42 + 0.58 * inside)[:, None]
    picture = _paint(color, tone)
    picture[:, :, 0] *= 1 - 0.04 * grain
    return np.ascontiguousarray(cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE))


def tiles(
    rng: np.random.Generator, height: int, width: int, color: Bgr, grout: Bgr, cell: tuple[int, int] = (58, 116)
) -> Picture:
    row, column, inside, vertical = _grid(rng, height, width, cell, 1.6, 0.5, 0.12)
    lean = _per_cell(rng, row, column, 0.05)
    tone = 1 + _per_cell(rng, row, column, 0.028) - lean * vertical * 0.8 + 0.012 * cloud(rng, height, width, 70, 3)
    gleam = np.clip(1 - np.abs(vertical + 0.62 + lean * 4) / 0.22, 0, 1) * 0.07
    glazed = _paint(color, tone + gleam)
    joints = _paint(grout, 1 + 0.08 * cloud(rng, height, width, 8, 2))
    picture = joints + (glazed - joints) * inside[:, :, None]
    return np.asarray(picture * relief(cv2.GaussianBlur(inside, (0, 0), 1.2), 0.12)[:, :, None], np.float32)


def plaster(rng: np.random.Generator, height: int, width: int, color: Bgr) -> Picture:
    broad, trowel = cloud(rng, height, width, 210, 4), cloud(rng, height, width, 34, 4, 2.4)
    fine = cloud(rng, height, width, 4, 2)
    picture = _paint(color, 1 + 0.045 * broad + 0.022 * trowel + 0.012 * fine)
    picture[:, :, 0] *= 1 - 0.025 * broad
    return np.asarray(picture * relief(cv2.GaussianBlur(trowel, (0, 0), 2.0), 0.035)[:, :, None], np.float32)


def concrete(rng: np.random.Generator, height: int, width: int, color: Bgr) -> Picture:
    tone = 1 + 0.06 * cloud(rng, height, width, 150, 5) + 0.025 * cloud(rng, height, width, 5, 2)
    runs = (
        np.clip(cloud(rng, height, width, 60, 3, 0.12) - 0.9, 0, 2)
        * np.linspace(1, 0.2, height, dtype=np.float32)[:, None]
    )
    tone -= 0.07 * runs
    pores = (cloud(rng, height, width, 5, 1) > 2.7).astype(np.float32)
    tone -= 0.22 * cv2.GaussianBlur(pores, (0, 0), 0.9)
    picture = _paint(color, tone)
    panel_w, panel_h = width // 2, height // 2
    for x in range(0, width + 1, panel_w):
        cv2.line(picture, (x, 0), (x, height), (96, 100, 102), 2, cv2.LINE_AA)
        cv2.line(picture, (x + 2, 0), (x + 2, height), (178, 184, 188), 1, cv2.LINE_AA)
    cv2.line(picture, (0, panel_h), (width, panel_h), (98, 102, 104), 2, cv2.LINE_AA)
    for x in range(panel_w // 4, width, panel_w // 2):
        for y in (panel_h // 5, panel_h - panel_h // 5, panel_h + panel_h // 5, height - panel_h // 5):
            cv2.circle(picture, (x, y), 7, (92, 96, 98), -1, cv2.LINE_AA)
            cv2.circle(picture, (x, y + 1), 5, (70, 73, 75), -1, cv2.LINE_AA)
    return picture


def wallpaper(rng: np.random.Generator, height: int, width: int, color: Bgr) -> Picture:
    """Broad tone-on-tone stripes with a small printed leaf."""
    stripe = np.clip(np.sin(np.arange(width) * (2 * np.pi / 112)) * 6, -1, 1).astype(np.float32)[None, :]
    weave = cloud(rng, height, width, 2, 1, 3)
    picture = _paint(color, 1 + 0.035 * stripe + 0.012 * weave + 0.03 * cloud(rng, height, width, 240, 3))
    for i, x in enumerate(range(28, width, 56)):
        for y in range(24 + 36 * (i % 2), height, 72):
            for angle in (-38, 38):
                cv2.ellipse(picture, (x, y), (9, 3), angle, 0, 360, tuple(c * 0.86 for c in color), -1, cv2.LINE_AA)
    return picture


def pegboard(rng: np.random.Generator, height: int, width: int, color: Bgr) -> Picture:
    picture = _paint(color, 1 + 0.03 * cloud(rng, height, width, 120, 3) + 0.02 * cloud(rng, height, width, 3, 2))
    for y in range(9, height, 18):
        for x in range(9, width, 18):
            cv2.circle(picture, (x, y), 2, tuple(c * 0.35 for c in color), -1, cv2.LINE_AA)
    return picture
