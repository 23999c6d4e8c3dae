"""The `frame` of a component: Viam's JSON form and its message, both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# JSON orientation type -> (field of viam.app.v1.Orientation, JSON keys with the message's field names)
_ORIENTATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "ov_degrees": ("vector_degrees", {"th": "theta", "x": "x", "y": "y", "z": "z"}),
    "ov_radians": ("vector_radians", {"th": "theta", "x": "x", "y": "y", "z": "z"}),
    "euler_angles": ("euler_angles", {"roll": "roll", "pitch": "pitch", "yaw": "yaw"}),
    "axis_angles": ("axis_angles", {"th": "theta", "x": "x", "y": "y", "z": "z"}),
    "quaternion": ("quaternion", {"w": "w", "x": "x", "y": "y", "z": "z"}),
}
_SHAPES = ("box", "sphere", "capsule", "point")


def frame_to_message(frame: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON form of `viam.app.v1.Frame`. Raises ValueError naming the part that cannot be expressed."""
    message: dict[str, Any] = {"parent": frame.get("parent", "")}
    if frame.get("translation") is not None:
        message["translation"] = dict(frame["translation"])
    if frame.get("orientation"):
        message["orientation"] = _orientation_to_message(frame["orientation"])
    if frame.get("geometry"):
        message["geometry"] = _geometry_to_message(frame["geometry"])
    return message


def frame_from_message(message: Mapping[str, Any]) -> dict[str, Any]:
    frame: dict[str, Any] = {"parent": message.get("parent", "")}
    if "translation" in message:
        frame["translation"] = dict(message["translation"])
    if "orientation" in message:
        orientation = _orientation_from_message(message["orientation"])
        if orientation:
            frame["orientation"] = orientation
    if "geometry" in message:
        frame["geometry"] = _geometry_from_message(message["geometry"])
    return frame


def orientation_vector_degrees(orientation: Mapping[str, Any] | None) -> tuple[float, float, float, float]:
    """(o_x, o_y, o_z, theta in degrees) of any of Viam's orientation forms; no orientation points along +z."""
    if not orientation:
        return (0.0, 0.0, 1.0, 0.0)
    value = {key.lower(): float(v) for key, v in orientation.get("value", {}).items()}
    kind = orientation.get("type", "ov_degrees")
    if kind in ("ov_degrees", "ov_radians"):
        theta = value.get("th", 0.0)
        vector = (value.get("x", 0.0), value.get("y", 0.0), value.get("z", 0.0))
        length = math.hypot(*vector)
        x, y, z = (part / length for part in vector) if length else (0.0, 0.0, 1.0)
        return (x, y, z, theta if kind == "ov_degrees" else math.degrees(theta))
    return vector_from_quaternion(*_quaternion(kind, value))


def _quaternion(kind: str, value: Mapping[str, float]) -> tuple[float, float, float, float]:
    if kind == "quaternion":
        parts = (value.get("w", 0.0), value.get("x", 0.0), value.get("y", 0.0), value.get("z", 0.0))
    elif kind == "axis_angles":
        axis = (value.get("x", 0.0), value.get("y", 0.0), value.get("z", 0.0))
        length, half = math.hypot(*axis) or 1.0, value.get("th", 0.0) / 2
        parts = (math.cos(half), *(a / length * math.sin(half) for a in axis))  # type: ignore[assignment]
    elif kind == "euler_angles":
        roll, pitch, yaw = (value.get(k, 0.0) / 2 for k in ("roll", "pitch", "yaw"))
        cr, sr, cp, sp, cy, sy = (f(a) for a in (roll, pitch, yaw) for f in (math.cos, math.sin))
        parts = (
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        )
    else:
        raise ValueError(f"orientation type {kind!r} is not known: use one of {', '.join(_ORIENTATIONS)}")
    norm = math.hypot(*parts) or 1.0
    return (parts[0] / norm, parts[1] / norm, parts[2] / norm, parts[3] / norm)


def vector_from_quaternion(w: float, x: float, y: float, z: float) -> tuple[float, float, float, float]:
    """Where +z lands, and the turn about that axis: the last of the z-y-z Euler angles (longitude, latitude, theta).

    At the poles the longitude is not defined and is taken as 0, so theta holds the whole turn.
    """
    o = (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y))
    new_x = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    latitude = math.acos(max(-1.0, min(1.0, o[2])))
    longitude = 0.0 if 1 - abs(o[2]) < 1e-9 else math.atan2(o[1], o[0])
    reference_x = (
        math.cos(latitude) * math.cos(longitude),
        math.cos(latitude) * math.sin(longitude),
        -math.sin(latitude),
    )
    reference_y = (-math.sin(longitude), math.cos(longitude), 0.0)
    along_x = sum(a * b for a, b in zip(new_x, reference_x, strict=True))
    along_y = sum(a * b for a, b in zip(new_x, reference_y, strict=True))
    return (*o, math.degrees(math.atan2(along_y, along_x)))


def _orientation_to_message(orientation: Mapping[str, Any]) -> dict[str, Any]:
    kind = orientation.get("type", "ov_degrees")
    if kind not in _ORIENTATIONS:
        raise ValueError(f"orientation type {kind!r} is not known: use one of {', '.join(_ORIENTATIONS)}")
    field, keys = _ORIENTATIONS[kind]
    value = {key.lower(): v for key, v in orientation.get("value", {}).items()}
    return {field: {name: value[key] for key, name in keys.items() if key in value}}


def _orientation_from_message(message: Mapping[str, Any]) -> dict[str, Any] | None:
    for kind, (field, keys) in _ORIENTATIONS.items():
        if field in message:
            return {"type": kind, "value": {key: message[field].get(name, 0) for key, name in keys.items()}}
    return None


def _geometry_to_message(geometry: Mapping[str, Any]) -> dict[str, Any]:
    kind = geometry.get("type") or ("box" if "x" in geometry else "capsule" if "l" in geometry else "sphere")
    message: dict[str, Any] = {"label": geometry.get("label", "")}
    if kind == "box":
        message["box"] = {"dims_mm": {axis: geometry.get(axis, 0) for axis in "xyz"}}
    elif kind in ("sphere", "point"):
        message["sphere"] = {"radius_mm": geometry.get("r", 0)}
    elif kind == "capsule":
        message["capsule"] = {"radius_mm": geometry.get("r", 0), "length_mm": geometry.get("l", 0)}
    else:
        raise ValueError(f"geometry type {kind!r} is not known: use one of {', '.join(_SHAPES)}")
    if geometry.get("translation") or geometry.get("orientation"):
        o_x, o_y, o_z, theta = orientation_vector_degrees(geometry.get("orientation"))
        message["center"] = {**geometry.get("translation", {}), "o_x": o_x, "o_y": o_y, "o_z": o_z, "theta": theta}
    return message


def _geometry_from_message(message: Mapping[str, Any]) -> dict[str, Any]:
    geometry: dict[str, Any] = {}
    if "box" in message:
        geometry = {"type": "box", **{axis: message["box"].get("dims_mm", {}).get(axis, 0) for axis in "xyz"}}
    elif "capsule" in message:
        geometry = {
            "type": "capsule",
            "r": message["capsule"].get("radius_mm", 0),
            "l": message["capsule"].get("length_mm", 0),
        }
    elif "sphere" in message:
        radius = message["sphere"].get("radius_mm", 0)
        geometry = {"type": "sphere", "r": radius} if radius else {"type": "point"}
    if message.get("label"):
        geometry["label"] = message["label"]
    center = message.get("center")
    if center:
        geometry["translation"] = {axis: center.get(axis, 0) for axis in "xyz"}
        vector = {axis: center.get(f"o_{axis}", 0) for axis in "xyz"}
        geometry["orientation"] = {"type": "ov_degrees", "value": {"th": center.get("theta", 0), **vector}}
    return geometry
