"""`/api/link`: machines dial in here and stay."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from gleaner.app.errors import AppError
from gleaner.app.http.deps import context_of, websocket_caller

router = APIRouter()


@router.websocket("/api/link")
async def link(socket: WebSocket) -> None:
    context = context_of(socket)
    try:
        caller = await websocket_caller(socket)
    except AppError as error:
        await socket.close(4401, error.message)
        return
    if not caller.part_id:
        await socket.close(4403, "only machines keep a link: send part_id and secret, or part_id, key_id and key")
        return
    await socket.accept()
    await context.links.serve(caller.part_id, _Socket(socket))


class _Socket:
    """A WebSocket as `live.links` uses one."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> str | bytes | None:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        data: str | bytes | None = message.get("bytes")
        return data if data is not None else message.get("text")

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self._socket.send_text(message)
        else:
            await self._socket.send_bytes(message)

    async def close(self, reason: str) -> None:
        try:
            await self._socket.close(4409, reason)
        except (RuntimeError, WebSocketDisconnect):
            return  # it was gone already
