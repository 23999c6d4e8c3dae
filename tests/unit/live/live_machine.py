"""A stand-in machine: the far end of the link, and a gRPC server with a camera, a base and sessions behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websockets
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from grpclib import GRPCError, Status
from grpclib.server import Server
from viam.gen.component.base.v1 import base_pb2
from viam.gen.component.base.v1.base_grpc import UnimplementedBaseServiceBase
from viam.gen.component.camera.v1 import camera_pb2
from viam.gen.component.camera.v1.camera_grpc import UnimplementedCameraServiceBase
from viam.gen.robot.v1 import robot_pb2
from viam.gen.robot.v1.robot_grpc import UnimplementedRobotServiceBase
from viam.gen.service.vision.v1 import vision_pb2
from viam.gen.service.vision.v1.vision_grpc import UnimplementedVisionServiceBase

from gleaner.app.context import AppContext
from gleaner.app.server import AppServer
from gleaner.app.settings import Settings
from gleaner.wire.link import pack_pipe, unpack_pipe


@dataclass
class Rover:
    """What the machine's resources were told, and what they answer."""

    picture: bytes = b""
    failing: set[str] = field(default_factory=set)
    fetched: int = 0
    moves: list[tuple[float, float, str]] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    sessions: int = 0
    heartbeats: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, wanted: Any) -> None:
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(wanted), 10)

    def check(self, name: str, api: str) -> None:
        if name in self.failing or name not in ("cam", "base", "eye"):
            raise GRPCError(Status.UNKNOWN, f"resource {api}/{name} not available; reason=no such device")


class Camera(UnimplementedCameraServiceBase):
    def __init__(self, rover: Rover) -> None:
        self.rover = rover

    async def GetImages(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.rover.check(request.name, "rdk:component:camera")
        self.rover.fetched += 1
        image = camera_pb2.Image(source_name="color", image=self.rover.picture, mime_type="image/jpeg")
        await stream.send_message(camera_pb2.GetImagesResponse(images=[image]))


class Vision(UnimplementedVisionServiceBase):
    def __init__(self, rover: Rover) -> None:
        self.rover = rover

    async def CaptureAllFromCamera(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.rover.check(request.name, "rdk:service:vision")
        extra = Struct()
        extra.update({"inference_ms": 1.5, "captured_at": "2026-01-02T03:04:05.000000Z"})
        box = vision_pb2.Detection(
            class_name="star_2_20260102_030405", confidence=0.9, x_min=0, y_min=0, x_max=32, y_max=16
        )
        answer = vision_pb2.CaptureAllFromCameraResponse(
            image=camera_pb2.Image(image=self.rover.picture, mime_type="image/jpeg"),
            detections=[box],
            classifications=[vision_pb2.Classification(class_name="red", confidence=0.7)],
            extra=extra,
        )
        await stream.send_message(answer)


class Base(UnimplementedBaseServiceBase):
    def __init__(self, rover: Rover) -> None:
        self.rover = rover

    async def SetPower(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.rover.check(request.name, "rdk:component:base")
        self.rover.moves.append((request.linear.y, request.angular.z, stream.metadata.get("viam-sid", "")))
        await stream.send_message(base_pb2.SetPowerResponse())
        await self.rover.note()

    async def Stop(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.rover.stops.append(request.name)
        await stream.send_message(base_pb2.StopResponse())
        await self.rover.note()


class Robot(UnimplementedRobotServiceBase):
    def __init__(self, rover: Rover) -> None:
        self.rover = rover

    async def StartSession(self, stream: Any) -> None:
        await stream.recv_message()
        self.rover.sessions += 1
        window = Duration(nanos=100_000_000)
        await stream.send_message(robot_pb2.StartSessionResponse(id=f"s{self.rover.sessions}", heartbeat_window=window))

    async def SendSessionHeartbeat(self, stream: Any) -> None:
        await stream.recv_message()
        self.rover.heartbeats += 1
        await stream.send_message(robot_pb2.SendSessionHeartbeatResponse())
        await self.rover.note()


class FarEnd:
    """Pipes link frames into the machine's unix socket, as `gleaner machine` does."""

    def __init__(self, socket: websockets.ClientConnection, path: str) -> None:
        self.socket, self.path = socket, path
        self.notices: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._pipes: dict[int, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        try:
            async for message in self.socket:
                if isinstance(message, str):
                    self.notices.put_nowait(json.loads(message))
                    continue
                pipe, data = unpack_pipe(message)
                if pipe not in self._pipes and data:
                    reader, self._pipes[pipe] = await asyncio.open_unix_connection(self.path)
                    task = asyncio.create_task(self._back(pipe, reader))
                    self._tasks.add(task)
                if data:
                    self._pipes[pipe].write(data)
        except websockets.ConnectionClosed:
            pass
        finally:
            for writer in self._pipes.values():
                writer.close()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _back(self, pipe: int, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            await self.socket.send(pack_pipe(pipe, data))


@dataclass
class Live:
    context: AppContext
    part_id: str
    secret: str
    cookie: str
    rover: Rover
    path: str

    @property
    def web(self) -> str:
        return self.context.addresses.web

    @asynccontextmanager
    async def link(self) -> AsyncIterator[FarEnd]:
        headers = {"part_id": self.part_id, "secret": self.secret}
        url = self.web.replace("http", "ws") + "/api/link"
        async with websockets.connect(url, additional_headers=headers, max_size=None) as socket:
            far = FarEnd(socket, self.path)
            task = asyncio.create_task(far.run())
            await socket.send(json.dumps({"type": "hello", "version": "1", "platform": "x", "hostname": "pi"}))
            await self.seen(lambda: self.context.fleet.presence.now(self.part_id).info.get("host") == "pi")
            try:
                yield far
            finally:
                await socket.close()
                await task

    @asynccontextmanager
    async def page(self) -> AsyncIterator[websockets.ClientConnection]:
        url = f"{self.web.replace('http', 'ws')}/api/parts/{self.part_id}/live"
        headers = {"Cookie": f"gleaner_session={self.cookie}"}
        async with websockets.connect(url, additional_headers=headers, max_size=None) as socket:
            yield socket

    async def seen(self, wanted: Any) -> None:
        async with asyncio.timeout(10):
            while not wanted():  # noqa: ASYNC110 - the app has no event for it
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Live]:
    """A real app and a machine that is not linked yet."""
    rover, path = Rover(), str(folder / "rover.sock")
    server = Server([Camera(rover), Vision(rover), Base(rover), Robot(rover)])
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(AppServer(Settings(data_dir=folder / "app", port=0, grpc_port=0)))
        await server.start(path=path)
        stack.push_async_callback(server.wait_closed)
        stack.callback(server.close)
        context = app.context
        owner = context.auth.first_owner()
        [organization] = context.fleet.organizations(owner)
        [location] = context.fleet.locations(owner, organization.id)
        part_id = context.fleet.create_machine(owner, "rover", location.id).main.id
        secret = context.fleet.new_secret(owner, part_id)
        cookie = context.auth.redeem_login_link(context.auth.create_login_link()).token
        yield Live(context, part_id, secret, cookie, rover, path)
