"""How fast the sim renders on one core, beside the plain way to draw the same room in software.

Peer: a full-frame ray caster in numpy + `cv2.remap`: for every pixel the wall and the point on it are computed, then one
remap looks the colour up in an atlas of the same wall pictures. It draws walls and a flat floor only: no reflection, hall,
light, focus or noise. Both run with OpenCV on one thread along the same path.

    python bench/sim_render.py [seconds per row]
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import simplejpeg

from gleaner.sim.geometry import Lens, Pose, View
from gleaner.sim.render import Renderer
from gleaner.sim.scene import Frame, Scene, scene_for

SIZES = ((320, 240), (640, 480), (1280, 720))


def path() -> Iterator[tuple[Pose, float]]:
    """An endless drive around the arena with turns: all walls, near and far."""
    step = 0
    while True:
        angle = step * 0.021
        yield Pose(1300 * math.cos(angle), 1000 * math.sin(1.7 * angle), step * 2.3, 300, 40), step / 30
        step += 1


class RayCaster:
    """The peer."""

    def __init__(self, scene: Scene, lens: Lens) -> None:
        self.scene, self.lens = scene, lens
        walls = [pyramid.levels[0] for pyramid in scene.walls]
        self.tall, self.wide = walls[0].shape[:2]
        floor = np.full((8, self.wide * len(walls), 3), 100, np.uint8)
        # OpenCV's remap takes at most 32 767 columns or rows; eight walls fit.
        self.atlas = np.concatenate([np.concatenate(walls, axis=1), floor])

    def render(self, pose: Pose, _time_s: float) -> Frame:
        view = View(self.scene.arena, self.lens, pose)
        wall, depth = view.columns()
        hit = view.eye + view.rays() * depth[:, None]
        along = np.einsum("ij,ij->i", hit, self.scene.arena.rights[wall]) / self.scene.arena.wall_width_mm + 0.5
        up = (
            self.lens.height_mm
            + depth[None, :]
            * (self.lens.center_px[1] - np.arange(self.lens.height_px) - 0.5)[:, None]
            / self.lens.focal_px
        )
        map_y = (1 - up / self.scene.arena.wall_height_mm) * self.tall
        map_x = np.broadcast_to((np.clip(along, 0, 0.999) + wall) * self.wide, map_y.shape)
        return np.asarray(
            cv2.remap(
                self.atlas,
                map_x.astype(np.float32),
                np.clip(map_y, 0, self.tall + 7).astype(np.float32),
                cv2.INTER_LINEAR,
            )
        )


def measure(work: Callable[[Pose, float], object], seconds: float) -> tuple[float, float]:
    """(median, 99th percentile) milliseconds of processor time per frame: other programs on this computer do not count."""
    spent = []
    poses = path()
    for _ in range(10):
        work(*next(poses))
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pose, at = next(poses)
        started = time.thread_time()
        work(pose, at)
        spent.append((time.thread_time() - started) * 1000)
    return float(np.median(spent)), float(np.percentile(spent, 99))


def main(seconds: float) -> None:
    cv2.setNumThreads(1)
    started = time.thread_time()
    scene = scene_for(7)
    build_s = time.thread_time() - started
    print(f"drawing the arena once: {build_s:.2f} s of one core\n")
    print(f"{'':34}{'median ms':>10}{'p99 ms':>9}{'fps':>7}")
    figures: dict[str, float] = {"build_s": round(build_s, 2)}
    for width, height in SIZES:
        lens = Lens(width, height)
        renderer, peer = Renderer(scene, lens), RayCaster(scene, lens)

        def with_jpeg(pose: Pose, at: float, renderer: Renderer = renderer) -> bytes:
            return bytes(simplejpeg.encode_jpeg(renderer.render(pose, at), quality=85, colorspace="BGR", fastdct=True))

        for name, work in (
            ("sim", renderer.render),
            ("sim + JPEG", with_jpeg),
            ("ray caster (walls only)", peer.render),
        ):
            median, worst = measure(work, seconds)
            print(f"{f'{width}×{height} {name}':34}{median:10.2f}{worst:9.2f}{1000 / median:7.0f}")
            key = {"sim": "sim", "sim + JPEG": "sim_jpeg", "ray caster (walls only)": "peer"}[name]
            figures[f"{key}_{width}x{height}_fps"] = round(1000 / median, 1)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
