"""Calls to a machine's own resources over its link, with viam-sdk's generated stubs; errors come out as AppError."""

from __future__ import annotations

import importlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from grpclib import GRPCError, Status
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from viam.gen.common.v1.common_pb2 import DoCommandRequest, GetReadingsRequest, Vector3
from viam.gen.component.base.v1.base_grpc import BaseServiceStub
from viam.gen.component.base.v1.base_pb2 import SetPowerRequest, StopRequest
from viam.gen.component.camera.v1.camera_grpc import CameraServiceStub
from viam.gen.component.camera.v1.camera_pb2 import GetImagesRequest
from viam.gen.component.sensor.v1.sensor_grpc import SensorServiceStub
from viam.gen.robot.v1.robot_grpc import RobotServiceStub
from viam.gen.robot.v1.robot_pb2 import SendSessionHeartbeatRequest, StartSessionRequest
from viam.gen.service.vision.v1.vision_grpc import VisionServiceStub
from viam.gen.service.vision.v1.vision_pb2 import CaptureAllFromCameraRequest

from gleaner.app.errors import AppError, InvalidInput, NotFound, Unavailable
from gleaner.app.live.pipe import PipeChannel
from gleaner.app.services.fleet_values import iso
from gleaner.wire.track_names import split_track

CALL_S = 10.0
SESSION_HEADER = "viam-sid"


@dataclass(frozen=True)
class Picture:
    """An encoded picture and what a model saw in it; boxes are 0–1."""

    data: bytes
    mime_type: str
    captured_at: str
    detections: tuple[dict[str, Any], ...] = ()
    classifications: tuple[dict[str, Any], ...] = ()
    inference_ms: float | None = None


class MachineCallFailed(AppError):
    """The machine itself said no; the message is its own."""

    code, http_status, grpc_status = "machine_error", 502, 2


class Robot:
    """The machine's resources through one channel."""

    def __init__(self, channel: PipeChannel) -> None:
        self._cameras = CameraServiceStub(channel)
        self._vision = VisionServiceStub(channel)
        self._bases = BaseServiceStub(channel)
        self._sensors = SensorServiceStub(channel)
        self._robot = RobotServiceStub(channel)
        self._channel = channel

    async def image(self, camera: str) -> Picture:
        async with _calling(f"the camera {camera}"):
            answer = await self._cameras.GetImages(GetImagesRequest(name=camera), timeout=CALL_S)
        if not answer.images:
            raise MachineCallFailed(f"the camera {camera} sent no picture", "Look at the machine's logs.")
        first = answer.images[0]
        stamp = answer.response_metadata.captured_at
        moment = iso(stamp.seconds * 1_000_000_000 + stamp.nanos) or iso(time.time_ns())
        return Picture(first.image, first.mime_type or "image/jpeg", moment or "")

    async def image_with_vision(self, camera: str, vision: str) -> Picture:
        """The picture and what the vision service says about that very picture."""
        request = CaptureAllFromCameraRequest(
            name=vision, camera_name=camera, return_image=True, return_classifications=True, return_detections=True
        )
        async with _calling(f"the vision service {vision}"):
            answer = await self._vision.CaptureAllFromCamera(request, timeout=CALL_S)
        extra = MessageToDict(answer.extra)
        return Picture(
            answer.image.image,
            answer.image.mime_type or "image/jpeg",
            str(extra.get("captured_at") or iso(time.time_ns())),
            tuple(_box(d) for d in answer.detections),
            tuple({"label": c.class_name, "confidence": c.confidence} for c in answer.classifications),
            extra.get("inference_ms"),
        )

    async def readings(self, sensor: str) -> dict[str, Any]:
        async with _calling(f"the sensor {sensor}"):
            answer = await self._sensors.GetReadings(GetReadingsRequest(name=sensor), timeout=CALL_S)
        return {name: _plain(value) for name, value in answer.readings.items()}

    async def command(self, api: str, name: str, command: dict[str, Any]) -> dict[str, Any]:
        """DoCommand of any resource whose API viam-sdk knows."""
        stub = _stub(api, name, self._channel)
        request = DoCommandRequest(name=name, command=Struct())
        request.command.update(command)
        async with _calling(f"{name}"):
            answer = await stub.DoCommand(request, timeout=CALL_S)
        result: dict[str, Any] = MessageToDict(answer.result)
        return result

    async def set_power(self, base: str, linear: float, angular: float, session: str) -> None:
        """`linear` forward and `angular` to the left, each -1 to 1."""
        request = SetPowerRequest(name=base, linear=Vector3(y=linear), angular=Vector3(z=angular))
        async with _calling(f"the base {base}"):
            await self._bases.SetPower(request, timeout=CALL_S, metadata=_session(session))

    async def stop(self, base: str, session: str = "") -> None:
        async with _calling(f"the base {base}"):
            await self._bases.Stop(StopRequest(name=base), timeout=CALL_S, metadata=_session(session))

    async def start_session(self) -> tuple[str, float]:
        """(session id, seconds within which the next heartbeat must come). ("", 0) if the machine has no sessions."""
        try:
            async with _calling("the machine"):
                answer = await self._robot.StartSession(StartSessionRequest(), timeout=CALL_S)
        except NotFound:
            return "", 0.0
        window = answer.heartbeat_window
        return answer.id, window.seconds + window.nanos / 1e9

    async def heartbeat(self, session: str) -> None:
        async with _calling("the machine"):
            await self._robot.SendSessionHeartbeat(SendSessionHeartbeatRequest(id=session), timeout=CALL_S)


@asynccontextmanager
async def _calling(what: str) -> AsyncIterator[None]:
    try:
        yield
    except GRPCError as error:
        message = error.message or error.status.name.lower()
        if error.status is Status.UNIMPLEMENTED:
            raise NotFound(f"{what} cannot do that: {message}", "Check the resource's type in CONFIGURE.") from error
        if error.status is Status.UNAVAILABLE:
            raise Unavailable(f"{what} is not available: {message}", "Look at the machine's logs.") from error
        raise MachineCallFailed(
            _plainly(what, message), "Look at its card in CONFIGURE and at the machine's logs."
        ) from error
    except (StreamTerminatedError, ProtocolError, ConnectionError) as error:
        raise Unavailable("the machine went offline", "Wait until it is back; its page shows when.") from error
    except TimeoutError as error:
        raise Unavailable(f"{what} did not answer in {CALL_S:g} s", "Look at the machine's logs.") from error


def _plainly(what: str, message: str) -> str:
    """A machine's error for a person: without Viam's wrapping, and with the resource's name in it once."""
    reason = message.rpartition("not available; reason=")[2]
    return reason if reason.startswith(f"{what.removeprefix('the ')}: ") else f"{what}: {reason}"


def _stub(api: str, name: str, channel: PipeChannel) -> Any:
    """The generated stub of an API. viam-sdk registers an API when its module is imported."""
    from viam.errors import ResourceNotFoundError
    from viam.resource.registry import Registry
    from viam.resource.types import API

    if api == "rdk:service:data_manager":  # viam-sdk has its messages, and no client to register
        from viam.proto.service.datamanager import DataManagerServiceStub

        return DataManagerServiceStub(channel)
    try:
        wanted = API.from_string(api)
        if wanted.resource_type in ("component", "service") and wanted.resource_subtype.isidentifier():
            importlib.import_module(f"viam.{wanted.resource_type}s.{wanted.resource_subtype}")
        return Registry.lookup_api(wanted).create_rpc_client(name, channel).client
    except (ValueError, ImportError, ResourceNotFoundError) as error:
        raise InvalidInput(f"{api!r} is no API that can be called", "Use one like rdk:component:camera.") from error


def _session(session: str) -> dict[str, str]:
    return {SESSION_HEADER: session} if session else {}


def _box(detection: Any) -> dict[str, Any]:
    label, track = split_track(detection.class_name)
    return {
        "label": label,
        **({} if track is None else {"track": track}),
        "confidence": detection.confidence,
        "x_min": detection.x_min_normalized,
        "y_min": detection.y_min_normalized,
        "x_max": detection.x_max_normalized,
        "y_max": detection.y_max_normalized,
        "px": (detection.x_min, detection.y_min, detection.x_max, detection.y_max),
    }


def _plain(value: Any) -> Any:
    from viam.utils import value_to_primitive

    return value_to_primitive(value)
