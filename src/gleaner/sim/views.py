"""Pictures of the arena from chosen places with their true label: held-out data for tests and benchmarks, not for the product."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg

from gleaner.sim import truth
from gleaner.sim.drive import ROVER_RADIUS_MM
from gleaner.sim.geometry import Arena, Lens, Pose
from gleaner.sim.layout import SIGNS
from gleaner.sim.render import Renderer
from gleaner.sim.scene import Frame, scene_for
from gleaner.sim.world import DEFAULT_SEED


@dataclass(frozen=True)
class LabelledView:
    """A picture and the one sign in it, or None for a picture of no sign at all."""

    label: str | None
    pose: Pose
    time_s: float
    jpeg: bytes


def render(pose: Pose, time_s: float = 0.0, seed: int = DEFAULT_SEED, lens: Lens | None = None) -> Frame:
    """(height, width, 3) uint8 BGR at a given pose."""
    return Renderer(scene_for(seed), lens or Lens()).render(pose, time_s)


def labelled_views(
    label: str | None, count: int, seed: int, *, world_seed: int = DEFAULT_SEED
) -> Iterator[LabelledView]:
    """`count` pictures in which `label` is the only sign and wholly visible (label None: no sign at all), from places, directions
    and times drawn with `seed`."""
    renderer = Renderer(scene_for(world_seed), Lens())
    rng = np.random.default_rng((seed, 404))
    for _ in range(count):
        pose = single_sign_pose(label, rng)
        time_s = float(rng.uniform(0, 600))
        jpeg = simplejpeg.encode_jpeg(renderer.render(pose, time_s), quality=85, colorspace="BGR")
        yield LabelledView(label, pose, time_s, jpeg)


def single_sign_pose(label: str | None, rng: np.random.Generator) -> Pose:
    """A place a rover can stand at that sees the whole sign (or, for None, not one bit of any) and nothing else."""
    for _ in range(20_000):
        pose = _empty_guess(rng) if label is None else _guess(label, rng)
        seen = truth.visible(pose)
        if label is None and not seen:
            return pose
        if [s.label for s in seen] == [label] and seen[0].visible_fraction > 0.995:
            return pose
    raise ValueError(f"no place sees only {label!r}: the signs are {', '.join(sorted({s.label for s in SIGNS}))}")


def _guess(label: str, rng: np.random.Generator) -> Pose:
    arena = Arena()
    signs = [sign for sign in SIGNS if sign.label == label]
    if not signs:
        raise ValueError(f"no sign is labelled {label!r}: the signs are {', '.join(sorted({s.label for s in SIGNS}))}")
    sign = signs[0]
    target = np.array(arena.wall_point(sign.wall, sign.along_mm))
    facing = math.degrees(math.atan2(*(arena.normals[sign.wall][::-1])))
    bearing = facing + float(rng.uniform(-38, 38))
    distance = float(rng.uniform(650, 2300))
    x, y = target - distance * np.array([math.cos(math.radians(bearing)), math.sin(math.radians(bearing))])
    x, y = arena.keep_inside(float(x), float(y), ROVER_RADIUS_MM)
    straight = math.degrees(math.atan2(target[1] - y, target[0] - x))
    return Pose(x, y, straight + float(rng.uniform(-20, 20)))


def _empty_guess(rng: np.random.Generator) -> Pose:
    reach = Arena().apothem_mm - ROVER_RADIUS_MM
    x, y = Arena().keep_inside(float(rng.uniform(-reach, reach)), float(rng.uniform(-reach, reach)), ROVER_RADIUS_MM)
    return Pose(x, y, float(rng.uniform(-180, 180)))
