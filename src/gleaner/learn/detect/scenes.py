"""Makes new scenes to learn from: pictures turned and scaled, four put together, boxed things pasted into others.

Geometry only; colour, light, blur and noise are `learn.augment`'s. Boxes are float32 (n, 5): label number, x_min, y_min,
x_max, y_max in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gleaner.learn.picture_file import Pictures
from gleaner.wire.picture import Rgb

Boxes = NDArray[np.float32]
SMALLEST_SIDE_PX = 5
"""Of a box after a change; what is smaller teaches noise."""
_VISIBLE_SHARE = 0.3
"""Of a box that must have stayed in the picture for it to count."""
_FEATHER_PX = 3
_MARGIN_PX = 3


@dataclass(frozen=True)
class SceneOptions:
    """Angles in radians, shifts as shares of the picture."""

    mirror: bool = True
    mosaic_share: float = 0.5
    paste_share: float = 0.5
    scale: tuple[float, float] = (0.6, 1.5)
    rotation: float = 0.12
    shift: float = 0.2
    stretch: float = 0.12


def no_boxes() -> Boxes:
    return np.zeros((0, 5), np.float32)


class SceneMaker:
    """Draws scenes from `pictures` (N, H, W, 3) with their boxes; the same seed draws the same ones."""

    def __init__(
        self, pictures: Pictures, boxes: Sequence[Boxes], seed: int, options: SceneOptions | None = None
    ) -> None:
        self._pictures = pictures
        self._boxes = boxes
        self._random = np.random.default_rng(seed)
        self._options = options or SceneOptions()
        self._boxed = [index for index, each in enumerate(boxes) if len(each)]
        self._height, self._width = (int(side) for side in pictures.shape[1:3])
        cv2.setNumThreads(1)

    def scene(self, index: int, size: tuple[int, int], allow_mosaic: bool) -> tuple[Rgb, Boxes]:
        """A scene around picture `index`, of `size` (height, width)."""
        options, random = self._options, self._random
        if allow_mosaic and random.random() < options.mosaic_share:
            picture, boxes = self._mosaic(index, size)
        else:
            base = size[1] / self._width
            low, high = (base * scale for scale in options.scale)
            picture, boxes = self._moved(index, size, low, high, options.shift)
        if self._boxed and random.random() < options.paste_share:
            for _ in range(int(random.integers(1, 4))):
                boxes = self._paste(picture, boxes)
        return picture, boxes

    def _moved(self, index: int, size: tuple[int, int], low: float, high: float, shift: float) -> tuple[Rgb, Boxes]:
        matrix = self._matrix(size, low, high, shift)
        height, width = size
        moved = cv2.warpAffine(
            self._pictures[index], matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        return np.asarray(moved, np.uint8), move_boxes(self._boxes[index], matrix, size)

    def _matrix(self, size: tuple[int, int], low: float, high: float, shift: float) -> NDArray[np.float64]:
        options, random, (height, width) = self._options, self._random, size
        scale = math.exp(random.uniform(math.log(low), math.log(high)))
        angle = random.uniform(-options.rotation, options.rotation)
        flip = -1.0 if options.mirror and random.random() < 0.5 else 1.0
        wide = math.exp(random.uniform(-options.stretch, options.stretch))
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        turn = np.array([[cos * flip * wide, -sin], [sin * flip, cos / wide]])
        middle = np.array([width, height]) * (0.5 + random.uniform(-shift, shift, 2))
        offset = middle - turn @ np.array([self._width / 2, self._height / 2])
        return np.column_stack([turn, offset])

    def _mosaic(self, index: int, size: tuple[int, int]) -> tuple[Rgb, Boxes]:
        """Four pictures in the quarters around a random point: more things, smaller, in front of other backgrounds."""
        height, width = size
        x, y = (int(self._random.uniform(0.35, 0.65) * side) for side in (width, height))
        scene = np.empty((height, width, 3), np.uint8)
        parts = []
        for left, top, right, bottom in ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)):
            part = (bottom - top, right - left)
            fill = max(part[0] / self._height, part[1] / self._width)
            picture, boxes = self._moved(index, part, fill, fill * 1.9, 0.1)
            scene[top:bottom, left:right] = picture
            parts.append(boxes + np.array([0, left, top, left, top], np.float32))
            index = int(self._random.integers(len(self._pictures)))
        return scene, np.concatenate(parts)

    def _paste(self, scene: Rgb, boxes: Boxes) -> Boxes:
        """Copies one boxed thing with soft edges to where no other is; returns the boxes with it, if it found room."""
        random, (height, width) = self._random, scene.shape[:2]
        source = self._boxed[int(random.integers(len(self._boxed)))]
        box = self._boxes[source][int(random.integers(len(self._boxes[source])))]
        x0, y0 = (max(0, int(edge) - _MARGIN_PX) for edge in box[1:3])
        x1, y1 = min(self._width, math.ceil(box[3]) + _MARGIN_PX), min(self._height, math.ceil(box[4]) + _MARGIN_PX)
        scale = width / self._width * math.exp(random.uniform(-0.6, 0.35))
        wide, high = int((x1 - x0) * scale), int((y1 - y0) * scale)
        mirrored = self._options.mirror and random.random() < 0.5
        if not 8 < wide < width or not 8 < high < height:
            return boxes
        left, top = int(random.integers(0, width - wide)), int(random.integers(0, height - high))
        if _overlaps(boxes, left, top, left + wide, top + high):
            return boxes
        patch = cv2.resize(
            self._pictures[source][y0:y1, x0:x1],
            (wide, high),
            interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
        )
        inner = (box[1:] - np.array([x0, y0, x0, y0], np.float32)) * scale
        if mirrored:
            patch = patch[:, ::-1]
            inner = np.array([wide - inner[2], inner[1], wide - inner[0], inner[3]], np.float32)
        soft = _feather(high, wide)
        under = scene[top : top + high, left : left + wide]
        scene[top : top + high, left : left + wide] = (under * (1 - soft) + patch * soft).astype(np.uint8)
        added = np.concatenate([box[:1], inner + np.array([left, top, left, top], np.float32)])
        return np.concatenate([boxes, added[None].astype(np.float32)])


def move_boxes(boxes: Boxes, matrix: NDArray[np.float64], size: tuple[int, int]) -> Boxes:
    """The upright boxes around turned ones, clipped to `size`; those that have left the picture or become tiny are dropped."""
    if not len(boxes):
        return no_boxes()
    height, width = size
    xs, ys = boxes[:, [1, 3, 3, 1]].astype(np.float64), boxes[:, [2, 2, 4, 4]].astype(np.float64)
    x = matrix[0, 0] * xs + matrix[0, 1] * ys + matrix[0, 2]
    y = matrix[1, 0] * xs + matrix[1, 1] * ys + matrix[1, 2]
    hull = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], 1)
    # The box around a turned box overstates the thing in it, which rarely fills the corners: half of the growth is taken back.
    growth = 0.25 * abs(matrix[0, 1]) / (abs(matrix[0, 0]) + 1e-6)
    sides = hull[:, 2:] - hull[:, :2]
    hull += np.concatenate([sides, -sides], 1) * growth
    area = (hull[:, 2:] - hull[:, :2]).prod(1)
    clipped = hull.copy()
    clipped[:, 0::2] = clipped[:, 0::2].clip(0, width)
    clipped[:, 1::2] = clipped[:, 1::2].clip(0, height)
    left = clipped[:, 2:] - clipped[:, :2]
    kept = (left.prod(1) > _VISIBLE_SHARE * area) & (left > SMALLEST_SIDE_PX).all(1)
    moved: Boxes = np.concatenate([boxes[:, :1], clipped], 1)[kept].astype(np.float32)
    return moved


def _overlaps(boxes: Boxes, left: int, top: int, right: int, bottom: int) -> bool:
    wide = np.minimum(boxes[:, 3], right) - np.maximum(boxes[:, 1], left)
    high = np.minimum(boxes[:, 4], bottom) - np.maximum(boxes[:, 2], top)
    return bool(((wide > 0) & (high > 0)).any())


def _feather(height: int, width: int) -> NDArray[np.float32]:
    """(height, width, 1): 1 inside, falling to a quarter over the last three pixels of each edge."""
    down, across = (np.minimum(np.arange(side) + 1, np.arange(side, 0, -1)) for side in (height, width))
    nearest = np.minimum(down[:, None], across[None, :])
    return np.asarray(np.minimum(1.0, nearest / (_FEATHER_PX + 1))[..., None], np.float32)
