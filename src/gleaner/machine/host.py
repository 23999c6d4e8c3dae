"""What a machine offers to its resources (`models.base.Host`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from viam.resource.base import ResourceBase

from gleaner.wire.machine_config import CloudConfig, MachineConfig
from gleaner.wire.world_pose import Frames


class MachineHost:
    """`config` changes when a new configuration is applied; resources read it in `resources_changed`."""

    def __init__(self, home: Path, cloud: CloudConfig | None) -> None:
        self.config = MachineConfig(cloud=cloud)
        self.home = home
        self.cloud = cloud
        self.find: Callable[[str, str], ResourceBase | None] = lambda _name, _subtype: None
        self.remote_frames: Callable[[], Frames] = dict

    def frames(self) -> Frames:
        return {**self.remote_frames(), **{one.name: one.frame for one in self.config.components}}

    def resource(self, name: str, subtype: str = "") -> ResourceBase | None:
        return self.find(name, subtype)
