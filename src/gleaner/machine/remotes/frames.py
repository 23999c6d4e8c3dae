"""The frames of a remote's components, under the names they have here. Pure.

Viam's way: the remote's world is a frame `<remote>_world`, where the remote's own `frame` puts it; its parts keep their
places in it. A remote without a frame stands nowhere, and so do its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from viam.proto.common import Transform
from viam.proto.robot import FrameSystemConfig

from gleaner.machine.rpc.frame_system import frame_system_part
from gleaner.wire.machine_config import RemoteConfig
from gleaner.wire.world_pose import WORLD, Frames


def remote_parts(remote: RemoteConfig, parts: Iterable[FrameSystemConfig]) -> list[FrameSystemConfig]:
    """For this machine's frame system. Raises ValueError for a frame of the remote that cannot be read."""
    if remote.frame is None:
        return []
    try:
        found = [frame_system_part(world_of(remote), remote.frame)]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"the frame of remote {remote.name!r} cannot be used: {error}") from error
    for there in parts:
        here = FrameSystemConfig()
        here.CopyFrom(there)
        here.frame.reference_frame = _here(remote, there.frame.reference_frame)
        observer = here.frame.pose_in_observer_frame
        observer.reference_frame = _parent(remote, observer.reference_frame)
        found.append(here)
    return found


def remote_frames(remote: RemoteConfig, parts: Iterable[FrameSystemConfig]) -> Frames:
    """The same as configured frames, by name, for `wire/world_pose.py`."""
    nowhere = f"remote {remote.name} has no frame: give it one, its parent 'world' or a component"
    found: dict[str, Mapping[str, Any] | str | None] = {world_of(remote): remote.frame or nowhere}
    for part in parts:
        found[_here(remote, part.frame.reference_frame)] = _configured(remote, part.frame)
    return found


def world_of(remote: RemoteConfig) -> str:
    return f"{remote.name}_{WORLD}"


def _configured(remote: RemoteConfig, frame: Transform) -> dict[str, Any]:
    pose = frame.pose_in_observer_frame.pose
    vector = {"x": pose.o_x, "y": pose.o_y, "z": pose.o_z, "th": pose.theta}
    return {
        "parent": _parent(remote, frame.pose_in_observer_frame.reference_frame),
        "translation": {"x": pose.x, "y": pose.y, "z": pose.z},
        "orientation": {"type": "ov_degrees", "value": vector},
    }


def _here(remote: RemoteConfig, name: str) -> str:
    return f"{remote.name}:{remote.prefix}{name}"


def _parent(remote: RemoteConfig, name: str) -> str:
    return world_of(remote) if name in ("", WORLD) else _here(remote, name)
