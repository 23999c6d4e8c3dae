"""The frames of a machine's components, as motion planners ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import ParseDict
from viam.proto.common import Geometry, Pose, PoseInFrame, Transform
from viam.proto.robot import FrameSystemConfig

from gleaner.wire.frame_config import frame_to_message, orientation_vector_degrees
from gleaner.wire.machine_config import MachineConfig


def frame_system_parts(config: MachineConfig) -> list[FrameSystemConfig]:
    """One part per component with a `frame`. Raises ValueError naming the component whose frame cannot be read."""
    parts = []
    for index, component in enumerate(config.components):
        if component.frame is None:
            continue
        try:
            parts.append(frame_system_part(component.name, component.frame))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"components[{index}].frame of {component.name!r} cannot be used: {error}") from error
    return parts


def frame_system_part(name: str, frame: Mapping[str, Any]) -> FrameSystemConfig:
    """Raises ValueError, TypeError or AttributeError for a frame that cannot be read."""
    o_x, o_y, o_z, theta = orientation_vector_degrees(frame.get("orientation"))
    place = {axis: float((frame.get("translation") or {}).get(axis, 0.0)) for axis in "xyz"}
    geometry = frame_to_message(frame).get("geometry")
    pose = Pose(**place, o_x=o_x, o_y=o_y, o_z=o_z, theta=theta)
    observer = PoseInFrame(reference_frame=frame.get("parent") or "world", pose=pose)
    transform = Transform(reference_frame=name, pose_in_observer_frame=observer)
    if geometry is not None:
        transform.physical_object.CopyFrom(ParseDict(geometry, Geometry()))
    return FrameSystemConfig(frame=transform)
