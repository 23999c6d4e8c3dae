"""Pictures of the arena in true perspective, about a hundred a second at 640×480 on one core.

A level camera in a room with upright walls sees exactly one wall per column. So each wall is one perspective warp into its
own columns; the same warp continued below the wall's foot, mirrored, is its reflection in the waxed floor. Floor and hall
are two more warps. Then comes what makes a picture look taken rather than drawn: falling light, vignette, movement and
focus blur, sensor noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from gleaner.sim.geometry import FloatArray, Lens, Pose, View
from gleaner.sim.light import light_at
from gleaner.sim.scene import Frame, Scene
from gleaner.sim.surroundings import HALL_ELEVATION_DEG, HALL_SIZE

EXPOSURE_S = 0.012
MIRROR = 0.34
"""Share of the reflection in the floor straight ahead; it falls to a third of that near the camera."""


@dataclass(frozen=True)
class _Hall:
    """Where each pixel above the horizon looks in the panorama, for heading 0 (OpenCV's packed maps)."""

    xy: npt.NDArray[np.int16]
    fraction: npt.NDArray[np.uint16]
    rows: int


class Renderer:
    """Renders one scene through one lens. Not for use by two threads at once."""

    def __init__(self, scene: Scene, lens: Lens) -> None:
        self.scene = scene
        self.lens = lens
        self._hall = _hall_maps(lens)
        self._vignette = _vignette(lens)
        self._noise = _noise(scene.seed, lens)
        self._rows = np.arange(lens.height_px)[:, None]

    def render(self, pose: Pose, time_s: float) -> Frame:
        """(height, width, 3) uint8 BGR. The same seed, pose and time give the same picture."""
        view = View(self.scene.arena, self.lens, pose)
        wall, depth = view.columns()
        focal, horizon = self.lens.focal_px, self.lens.center_px[1]
        foot = horizon + focal * self.lens.height_mm / depth
        top = horizon - focal * (self.scene.arena.wall_height_mm - self.lens.height_mm) / depth
        light = light_at(self.scene.seed, time_s)
        picture = self._walls(view, wall, depth, light.walls / light.floor)
        self._add_floor(picture, view, foot)
        self._add_hall(picture, view, top)
        cv2.multiply(picture, light.floor * self._vignette, dst=picture, dtype=cv2.CV_8U)
        return self._expose(picture, pose, float(depth[len(depth) // 2]), time_s)

    def _walls(
        self, view: View, wall: npt.NDArray[np.intp], depth: FloatArray, gains: npt.NDArray[np.float32]
    ) -> Frame:
        """All columns, each with its wall in that wall's light (`gains`, (8, 3), relative to the hall's)."""
        picture: Frame = np.empty((self.lens.height_px, self.lens.width_px, 3), np.uint8)
        for start, end in _strips(wall, depth):
            number = int(wall[start])
            mm_per_px = float(np.mean(depth[start:end])) / self.lens.focal_px
            texture, _ = self.scene.walls[number].level_for(mm_per_px)
            shift = np.array([[1, 0, start], [0, 1, 0], [0, 0, 1.0]])
            strip = picture[:, start:end]
            cv2.warpPerspective(
                texture,
                _wall_matrix(view, number, texture.shape) @ shift,
                (end - start, self.lens.height_px),
                dst=strip,
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REFLECT_101,
            )
            cv2.multiply(
                strip, np.array([*gains[number], 1.0], np.float64), dst=strip
            )  # four doubles: a scalar to OpenCV
        return picture

    def _add_floor(self, picture: Frame, view: View, foot: FloatArray) -> None:
        """Replaces everything below the walls' feet by floor with a blurred reflection of what was there."""
        first = int(np.clip(math.floor(float(foot.min())), 0, self.lens.height_px))
        if first >= self.lens.height_px:
            return
        floor = self._floor(view, first)
        below = picture[first:]
        quarter = max(below.shape[1] // 4, 1), max(below.shape[0] // 4, 1)
        small = cv2.resize(below, quarter, interpolation=cv2.INTER_AREA)
        small = cv2.blur(small, (3, 7))
        mirrored = cv2.resize(small, (below.shape[1], below.shape[0]), interpolation=cv2.INTER_LINEAR)
        rows = np.arange(first, self.lens.height_px)
        steep = np.clip((rows - self.lens.center_px[1]) / (self.lens.height_px - self.lens.center_px[1]), 0, 1)
        share = (MIRROR * (1 - 0.66 * steep) * 255).astype(np.uint8)
        share_plane = np.repeat(share[:, None], below.shape[1], axis=1)
        shiny = cv2.merge([share_plane] * 3)
        blended = cv2.add(
            cv2.multiply(mirrored, shiny, scale=1 / 255), cv2.multiply(floor, cv2.bitwise_not(shiny), scale=1 / 255)
        )
        _join(below, np.asarray(blended, np.uint8), foot - first, self._rows[: len(below)], keep_above=True)

    def _floor(self, view: View, first: int) -> Frame:
        floor: Frame = np.empty((self.lens.height_px - first, self.lens.width_px, 3), np.uint8)
        horizon, focal, eye_height = self.lens.center_px[1], self.lens.focal_px, self.lens.height_mm
        row = first
        while row < self.lens.height_px:
            distance = eye_height * focal / max(row + 0.5 - horizon, 0.5)
            end = min(self.lens.height_px, max(row + 6, math.ceil(horizon + (row + 0.5 - horizon) * 1.35)))
            across, along = distance / focal, distance**2 / (focal * eye_height)
            texture, scale = self.scene.floor.level_for((across * along) ** 0.5)
            shift = np.array([[1, 0, 0], [0, 1, row], [0, 0, 1.0]])
            cv2.warpPerspective(
                texture,
                _floor_matrix(view, scale, texture.shape) @ shift,
                (self.lens.width_px, end - row),
                dst=floor[row - first : end - first],
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            row = end
        return floor

    def _add_hall(self, picture: Frame, view: View, top: FloatArray) -> None:
        last = int(np.clip(math.ceil(float(top.max())) + 1, 0, self._hall.rows))
        if last <= 0:
            return
        width = HALL_SIZE[0]
        turn = round(-view.pose.heading_deg / 360 * width) % width
        left = (turn - width // 8) % width  # the maps are drawn for a slice that is a quarter turn wide
        sliced = self.scene.hall[:, left : left + width // 4]
        hall = cv2.remap(
            sliced, self._hall.xy[:last], self._hall.fraction[:last], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        _join(picture[:last], np.asarray(hall, np.uint8), top, self._rows[:last], keep_above=False)

    def _expose(self, picture: Frame, pose: Pose, distance_mm: float, time_s: float) -> Frame:
        smear = math.radians(abs(pose.turn_deg_s)) * EXPOSURE_S * self.lens.focal_px
        smear += abs(pose.speed_mm_s) * EXPOSURE_S / max(distance_mm, 150) * self.lens.width_px * 0.15
        if smear >= 1.5:
            picture = np.asarray(cv2.blur(picture, (2 * int(smear / 2) + 1, 1)), np.uint8)
        # Focus is set to 1.2 m: the lens is sharp from half a metre on and soft when it nearly touches a wall.
        soft = 0.42 + 2.2 * max(0.0, 480 / max(distance_mm, 120) - 1)
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), soft * self.lens.width_px / 640), np.uint8)
        moment = int(time_s * 1000) & 0x7FFFFFFF
        pick = np.random.default_rng(
            (self.scene.seed, moment, int(pose.x_mm * 7) & 0xFFFF, int(pose.heading_deg * 11) & 0xFFFF)
        )
        y, x = pick.integers(0, 64, 2)
        noise = self._noise[y : y + self.lens.height_px, x : x + self.lens.width_px]
        return np.asarray(cv2.add(picture, noise, dtype=cv2.CV_8U), np.uint8)


def _strips(wall: npt.NDArray[np.intp], depth: FloatArray) -> list[tuple[int, int]]:
    """Column ranges that show one wall at about one distance, so that each takes one pyramid level."""
    level = np.round(np.log2(depth) * 2).astype(np.int64) + wall * 1000
    cuts = np.flatnonzero(np.diff(level)) + 1
    bounds = [0, *cuts.tolist(), len(wall)]
    return list(pairwise(bounds))


def _wall_matrix(view: View, wall: int, shape: tuple[int, ...]) -> FloatArray:
    """3×3 from picture pixels to wall-texture pixels: along = eye·r + D·(ray·r)/(ray·n), up likewise."""
    lens, arena = view.lens, view.arena
    normal, right = arena.normals[wall], arena.rights[wall]
    gap = arena.apothem_mm - float(normal @ view.eye)
    cx, cy = lens.center_px
    ray_at_zero = view.forward + ((cx - 0.0) / lens.focal_px) * view.left
    per_column = -view.left / lens.focal_px
    weight = np.array([per_column @ normal, 0.0, ray_at_zero @ normal])
    across = np.array([per_column @ right, 0.0, ray_at_zero @ right])
    along = (float(right @ view.eye) + arena.wall_width_mm / 2) * weight + gap * across
    down = (arena.wall_height_mm - lens.height_mm) * weight + gap * np.array([0.0, 1.0, -cy]) / lens.focal_px
    scale_x = shape[1] / arena.wall_width_mm
    scale_y = shape[0] / arena.wall_height_mm
    return _pixel_centers(np.stack([along * scale_x, down * scale_y, weight]))


def _floor_matrix(view: View, px_per_mm: float, shape: tuple[int, ...]) -> FloatArray:
    lens = view.lens
    cx, cy = lens.center_px
    ray_at_zero = view.forward + (cx / lens.focal_px) * view.left
    per_column = -view.left / lens.focal_px
    weight = np.array([0.0, 1.0, -cy])
    reach = lens.focal_px * lens.height_mm
    x = view.eye[0] * weight + reach * np.array([per_column[0], 0.0, ray_at_zero[0]])
    y = view.eye[1] * weight + reach * np.array([per_column[1], 0.0, ray_at_zero[1]])
    middle = shape[1] / 2
    return _pixel_centers(np.stack([x * px_per_mm + middle * weight, y * px_per_mm + middle * weight, weight]))


def _pixel_centers(matrix: FloatArray) -> FloatArray:
    """Both sides count pixel corners in the formulas and pixel centres in OpenCV."""
    to_corner = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    to_center = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])
    return np.asarray(to_center @ matrix @ to_corner, np.float64)


def _join(target: Frame, other: Frame, border: FloatArray, rows: npt.NDArray[np.intp], *, keep_above: bool) -> None:
    """Puts `other` on one side of a border (one y per column) into `target`, mixing in the pixel the border crosses."""
    whole = np.floor(border).astype(np.int64)
    mask = rows > whole[None, :] if keep_above else rows < whole[None, :]
    edge = np.flatnonzero((whole >= 0) & (whole < len(target)))
    at = whole[edge]
    share = (border - whole)[edge, None]  # of the crossed pixel that lies above the border
    above, below = (target, other) if keep_above else (other, target)
    mixed = above[at, edge] * share + below[at, edge] * (1 - share)
    cv2.copyTo(other, mask.astype(np.uint8), target)
    target[at, edge] = mixed.astype(np.uint8)


def _hall_maps(lens: Lens) -> _Hall:
    rows = math.ceil(lens.center_px[1])
    x = (np.arange(lens.width_px) + 0.5 - lens.center_px[0]) / lens.focal_px
    y = (lens.center_px[1] - np.arange(rows) - 0.5) / lens.focal_px
    turn = np.degrees(np.arctan(x))
    elevation = np.degrees(np.arctan2(y[:, None], np.sqrt(1 + x**2)[None, :]))
    width, height = HALL_SIZE
    low, high = HALL_ELEVATION_DEG
    map_x = np.broadcast_to(turn / 360 * width + width / 8, elevation.shape).astype(np.float32)
    map_y = ((high - elevation) / (high - low) * height).astype(np.float32)
    xy, fraction = cv2.convertMaps(map_x, map_y, cv2.CV_16SC2)
    return _Hall(np.asarray(xy, np.int16), np.asarray(fraction, np.uint16), rows)


def _vignette(lens: Lens) -> npt.NDArray[np.float32]:
    """(height, width, 3) float32: a lens passes less light towards its corners."""
    x = (np.arange(lens.width_px) - lens.width_px / 2) / (lens.width_px / 2)
    y = (np.arange(lens.height_px) - lens.height_px / 2) / (lens.width_px / 2)
    plane = 1.05 - 0.26 * (x[None, :] ** 2 + y[:, None] ** 2)
    return np.repeat(plane[:, :, None], 3, axis=2).astype(np.float32)


def _noise(seed: int, lens: Lens) -> npt.NDArray[np.int8]:
    """Sensor noise, a little larger than the picture: each frame takes another part of it."""
    rng = np.random.default_rng((seed, 303))
    size = (lens.height_px + 64, lens.width_px + 64)
    brightness = rng.normal(0, 2.0, (*size, 1))
    return np.asarray(np.clip(np.round(brightness + rng.normal(0, 1.3, (*size, 3))), -12, 12), np.int8)
