"""`/api/parts/{id}/live`: camera frames and driving for pages. One WebSocket a view (docs/architecture.md)."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from gleaner.app.errors import AppError
from gleaner.app.http import control
from gleaner.app.http.deps import context_of, websocket_caller
from gleaner.app.live.robot import Robot
from gleaner.app.live.viewer import Viewer

router = APIRouter()
router.include_router(control.router)


@router.websocket("/api/parts/{part_id}/live")
async def live(socket: WebSocket, part_id: str) -> None:
    context = context_of(socket)
    try:
        caller = await websocket_caller(socket)
        await context.call(context.fleet.part, caller, part_id)
    except AppError as error:
        await socket.close(4401 if error.http_status == 401 else 4404, error.message)
        return
    await socket.accept()

    async def say(message: dict[str, Any]) -> None:
        await socket.send_text(json.dumps(message))

    viewer = Viewer(
        part_id, context.links.frames, lambda: Robot(context.links.channel(part_id)), say, socket.send_bytes
    )
    try:
        while True:
            await viewer.hear(await socket.receive_text())
    except (WebSocketDisconnect, RuntimeError, KeyError):
        pass  # the page went away, or sent bytes where text belongs: either way this view is over
    finally:
        await viewer.close()
