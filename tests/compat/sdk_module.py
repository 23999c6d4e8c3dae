#!/usr/bin/env python3
"""A module as its author writes one with the unmodified viam-sdk; it knows nothing of Gleaner. Run as a program."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sdk_custom_api  # noqa: F401 - registers an API of its own
from viam.components.camera import Camera
from viam.components.movement_sensor import MovementSensor
from viam.components.sensor import Sensor
from viam.errors import NoCaptureToStoreError
from viam.media.video import CameraMimeType, NamedImage, ViamImage
from viam.module.module import Module
from viam.proto.app.robot import ComponentConfig
from viam.proto.common import Geometry, GeoPoint, Orientation, PointCloudObject, ResourceName, ResponseMetadata, Vector3
from viam.proto.component.camera import GetPropertiesResponse as CameraProperties
from viam.proto.service.vision import Classification, Detection, Detection3D, GetPropertiesResponse
from viam.resource.base import ResourceBase
from viam.resource.easy_resource import EasyResource
from viam.resource.types import Model
from viam.services.vision import CaptureAllResult, Vision
from viam.utils import from_dm_from_extra, struct_to_dict

LIFE = Path(os.environ.get("LIFE", os.devnull))


def note(event: str) -> None:
    with LIFE.open("a", encoding="utf-8") as file:
        file.write(event + "\n")


class Counter(Sensor, EasyResource):
    """Counts from `first`; `crash`, `hang` and `pid` are commands."""

    MODEL = Model.from_string("acme:test:counter")
    count = 0

    @classmethod
    def validate_config(cls, config: ComponentConfig) -> tuple[Sequence[str], Sequence[str]]:
        attributes = struct_to_dict(config.attributes)
        if not isinstance(attributes.get("first", 0), float | int):
            raise ValueError("first must be a number")
        return list(attributes.get("needs", [])), list(attributes.get("likes", []))

    @classmethod
    def new(cls, config: ComponentConfig, dependencies: Mapping[ResourceName, ResourceBase]) -> Counter:
        made = super().new(config, dependencies)
        attributes = struct_to_dict(config.attributes)
        if attributes.get("broken"):
            raise RuntimeError("the counter is broken")
        made.count = int(attributes.get("first", 0))
        made.others = {name.name: resource for name, resource in dependencies.items()}
        note(f"+{config.name} {made.count} {','.join(sorted(made.others))}")
        made.logger.info("counter %s begins at %d", config.name, made.count)
        return made

    async def get_readings(self, *, extra: Mapping[str, Any] | None = None, **_: Any) -> Mapping[str, Any]:
        self.count += 1
        return {"count": self.count, "from_dm": from_dm_from_extra(dict(extra or {}))}

    async def do_command(self, command: Mapping[str, Any], **_: Any) -> Mapping[str, Any]:
        if "crash" in command:
            print("the counter gives up", file=sys.stderr, flush=True)
            os._exit(3)
        if "hang" in command:
            time.sleep(float(command["hang"]))  # noqa: ASYNC251 - a driver that blocks its event loop
        if "ask" in command:
            other: Any = self.others[command["ask"]]
            return {"readings": dict(await other.get_readings())}
        if "environment" in command:
            return {name: os.environ.get(name, "") for name in command["environment"]}
        return {"pid": os.getpid(), "echo": dict(command)}

    async def close(self) -> None:
        note(f"-{self.name}")


class Ship(MovementSensor, EasyResource):
    MODEL = Model.from_string("acme:test:ship")

    async def get_position(self, **_: Any) -> tuple[GeoPoint, float]:
        return GeoPoint(latitude=54.3, longitude=10.1), 2.5

    async def get_linear_velocity(self, **_: Any) -> Vector3:
        return Vector3(x=1, y=2, z=3)

    async def get_angular_velocity(self, **_: Any) -> Vector3:
        return Vector3(x=0, y=0, z=4)

    async def get_linear_acceleration(self, **_: Any) -> Vector3:
        return Vector3(x=0, y=0, z=9.8)

    async def get_compass_heading(self, **_: Any) -> float:
        return 42.0

    async def get_orientation(self, **_: Any) -> Orientation:
        return Orientation(o_x=0, o_y=0, o_z=1, theta=90)

    async def get_readings(self, **_: Any) -> Mapping[str, Any]:
        return {"heading": 42.0}

    async def get_properties(self, **_: Any) -> MovementSensor.Properties:
        return MovementSensor.Properties(position_supported=True, compass_heading_supported=True)

    async def get_accuracy(self, **_: Any) -> MovementSensor.Accuracy:
        return MovementSensor.Accuracy(accuracy={"gps": 1.5})


class Filter(Camera, EasyResource):
    """Another camera's pictures; the data manager gets only every second one."""

    MODEL = Model.from_string("acme:test:filter")
    asked = 0

    @classmethod
    def validate_config(cls, config: ComponentConfig) -> tuple[Sequence[str], Sequence[str]]:
        return [struct_to_dict(config.attributes)["source"]], []

    @classmethod
    def new(cls, config: ComponentConfig, dependencies: Mapping[ResourceName, ResourceBase]) -> Filter:
        made = super().new(config, dependencies)
        made.source = next(iter(dependencies.values()))
        return made

    async def get_images(
        self, *, extra: Mapping[str, Any] | None = None, **_: Any
    ) -> tuple[Sequence[NamedImage], ResponseMetadata]:
        source: Any = self.source
        if from_dm_from_extra(dict(extra or {})):
            self.asked += 1
            if self.asked % 2:
                raise NoCaptureToStoreError
        return await source.get_images()

    async def get_point_cloud(self, **_: Any) -> tuple[bytes, str]:
        raise NotImplementedError

    async def get_properties(self, **_: Any) -> CameraProperties:
        return CameraProperties(supports_pcd=False, mime_types=["image/jpeg"])

    async def get_geometries(self, **_: Any) -> Sequence[Geometry]:
        return []


class Seer(Vision, EasyResource):
    """Sees one box in every picture of the camera it depends on."""

    MODEL = Model.from_string("acme:test:seer")

    @classmethod
    def validate_config(cls, config: ComponentConfig) -> tuple[Sequence[str], Sequence[str]]:
        return [struct_to_dict(config.attributes)["camera_name"]], []

    @classmethod
    def new(cls, config: ComponentConfig, dependencies: Mapping[ResourceName, ResourceBase]) -> Seer:
        made = super().new(config, dependencies)
        made.camera = next(iter(dependencies.values()))
        return made

    async def get_detections(self, image: ViamImage, **_: Any) -> list[Detection]:
        return [Detection(x_min=1, y_min=2, x_max=31, y_max=22, confidence=0.75, class_name="thing")]

    async def get_detections_from_camera(self, camera_name: str, **kwargs: Any) -> list[Detection]:
        camera: Any = self.camera
        images, _ = await camera.get_images()
        return await self.get_detections(images[0])

    async def get_classifications(self, image: ViamImage, count: int, **_: Any) -> list[Classification]:
        return [Classification(class_name="scene", confidence=0.5)]

    async def get_classifications_from_camera(self, camera_name: str, count: int, **_: Any) -> list[Classification]:
        return [Classification(class_name="scene", confidence=0.5)]

    async def get_object_point_clouds(self, camera_name: str, **_: Any) -> list[PointCloudObject]:
        return []

    async def get_detections_3d(self, camera_name: str, **_: Any) -> list[Detection3D]:
        return []

    async def get_properties(self, **_: Any) -> GetPropertiesResponse:
        return GetPropertiesResponse(classifications_supported=True, detections_supported=True)

    async def capture_all_from_camera(self, camera_name: str, *args: Any, **kwargs: Any) -> CaptureAllResult:
        camera: Any = self.camera
        images, _ = await camera.get_images()
        image = NamedImage("", images[0].data, CameraMimeType.JPEG)
        return CaptureAllResult(
            image=image,
            detections=await self.get_detections(image),
            classifications=await self.get_classifications(image, 1),
        )


if __name__ == "__main__":
    asyncio.run(Module.run_from_registry())
