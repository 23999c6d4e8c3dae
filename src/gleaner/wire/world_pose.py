"""Where a component is, in the world's frame, by the frames of the configuration.

A frame says where a component stands in its parent's. Moving parts are taken as they are mounted: the joints of an arm or
gantry are not followed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gleaner.wire.frame_config import orientation_vector_degrees, vector_from_quaternion

WORLD = "world"
Quaternion = tuple[float, float, float, float]
"""w, x, y, z."""
Vector = tuple[float, float, float]
Frames = Mapping[str, Mapping[str, Any] | str | None]
"""By name: a frame as it is configured, None for a component without one, or why there is none."""


@dataclass(frozen=True)
class WorldPose:
    """Millimetres, and Viam's orientation vector with theta in degrees."""

    x: float
    y: float
    z: float
    o_x: float
    o_y: float
    o_z: float
    theta: float


def world_pose(frames: Frames, name: str) -> WorldPose:
    """Raises ValueError, naming the component whose frame is missing, wrong or goes in a circle."""
    place: Vector = (0.0, 0.0, 0.0)
    turn: Quaternion = (1.0, 0.0, 0.0, 0.0)
    seen: list[str] = []
    at = name
    while at != WORLD:
        if at in seen:
            raise ValueError(f"the frames go in a circle: {' in '.join([*seen, at])}")
        seen.append(at)
        frame = frames.get(at)
        if isinstance(frame, str):
            raise ValueError(frame)
        if frame is None:
            why = f"{at!r} is no component with a frame" if at in frames or at != name else f"there is no {at!r}"
            raise ValueError(f"{why}: give it one under Frame, its parent 'world' or another component")
        own_place, own_turn = _of(frame, at)
        place = _add(own_place, _rotate(own_turn, place))
        turn = _times(own_turn, turn)
        at = frame.get("parent") or WORLD
    o_x, o_y, o_z, theta = vector_from_quaternion(*turn)
    return WorldPose(*place, o_x, o_y, o_z, theta)


def _of(frame: Mapping[str, Any], name: str) -> tuple[Vector, Quaternion]:
    try:
        offset = frame.get("translation") or {}
        place = (float(offset.get("x", 0.0)), float(offset.get("y", 0.0)), float(offset.get("z", 0.0)))
        return place, _quaternion(*orientation_vector_degrees(frame.get("orientation")))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"the frame of {name!r} cannot be used: {error}") from error


def _quaternion(o_x: float, o_y: float, o_z: float, theta: float) -> Quaternion:
    """Turns +z to (o_x, o_y, o_z), then about that axis: z-y-z Euler angles longitude, latitude, theta."""
    longitude = 0.0 if 1 - abs(o_z) < 1e-9 else math.atan2(o_y, o_x)
    latitude = math.acos(max(-1.0, min(1.0, o_z)))
    return _times(_times(_about_z(longitude), _about_y(latitude)), _about_z(math.radians(theta)))


def _about_z(angle: float) -> Quaternion:
    return (math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2))


def _about_y(angle: float) -> Quaternion:
    return (math.cos(angle / 2), 0.0, math.sin(angle / 2), 0.0)


def _times(a: Quaternion, b: Quaternion) -> Quaternion:
    return (
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    )


def _rotate(turn: Quaternion, vector: Vector) -> Vector:
    w, x, y, z = turn
    _, a, b, c = _times(_times(turn, (0.0, *vector)), (w, -x, -y, -z))
    return (a, b, c)


def _add(a: Vector, b: Vector) -> Vector:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])
