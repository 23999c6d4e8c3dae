"""Single pictures, MJPEG streams, sensor readings and commands of linked machines."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from gleaner.app.caller import Caller
from gleaner.app.context import AppContext
from gleaner.app.errors import Unavailable
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.models_fleet import Command, CommandResult, LiveReadings
from gleaner.app.live.frames import as_jpeg
from gleaner.app.live.robot import Robot
from gleaner.app.services.fleet_values import iso
from gleaner.wire.picture import PictureProblem

router = APIRouter(prefix="/api/parts/{part_id}")
_BOUNDARY = "gleanerframe"


@router.get("/cameras/{name}/image.jpg", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def image(part_id: str, name: str, context: ContextDep, caller: CallerDep) -> Response:
    robot = await _robot(context, caller, part_id)
    picture = await robot.image(name)
    try:
        jpeg = await context.call(as_jpeg, picture)
    except PictureProblem as error:
        raise Unavailable(f"the camera {name} sent something that is no picture: {error}", "See its logs.") from error
    return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "no-store"})


@router.get(
    "/cameras/{name}/stream.mjpeg",
    response_class=StreamingResponse,
    responses={200: {"content": {"multipart/x-mixed-replace": {}}}},
)
async def stream(part_id: str, name: str, context: ContextDep, caller: CallerDep) -> StreamingResponse:
    """For VLC, `curl` and other programs that read multipart JPEG."""
    await _robot(context, caller, part_id)
    frames = _mjpeg(context, part_id, name)
    return StreamingResponse(frames, media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}")


@router.get("/sensors/{name}/readings")
async def readings(part_id: str, name: str, context: ContextDep, caller: CallerDep) -> LiveReadings:
    robot = await _robot(context, caller, part_id)
    return LiveReadings(readings=await robot.readings(name), time=iso(time.time_ns()) or "")


@router.post("/command")
async def command(part_id: str, body: Command, context: ContextDep, caller: CallerDep) -> CommandResult:
    robot = await _robot(context, caller, part_id)
    return CommandResult(result=await robot.command(body.api, body.resource, body.command))


async def _robot(context: AppContext, caller: Caller, part_id: str) -> Robot:
    await context.call(context.fleet.part, caller, part_id)
    return Robot(context.links.channel(part_id))


async def _mjpeg(context: AppContext, part_id: str, camera: str) -> AsyncIterator[bytes]:
    source = context.links.frames.acquire(part_id, camera, "", lambda: Robot(context.links.channel(part_id)))
    try:
        seq = source.seq
        while True:
            frame = await source.newer_than(seq)
            seq = frame.seq
            if frame.picture is None:
                continue
            try:
                jpeg = await context.call(as_jpeg, frame.picture)
            except PictureProblem:
                continue
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n"
    finally:
        context.links.frames.release(part_id, camera, "")
