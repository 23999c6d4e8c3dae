"""What changed, to the pages that are open: the event WebSocket."""

from __future__ import annotations

import asyncio
import contextlib

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from gleaner.app.errors import AppError
from gleaner.app.events import LAGGED, Event
from gleaner.app.http.deps import context_of, deny, websocket_caller

router = APIRouter()


@router.websocket("/api/events")
async def events(socket: WebSocket) -> None:
    try:
        caller = await websocket_caller(socket)
    except AppError as err:
        await deny(socket, err)
        return
    await socket.accept()
    organizations = caller.organization_ids()
    async with context_of(socket).events.subscribe() as queue:
        gone = asyncio.create_task(_until_gone(socket))
        try:
            while not gone.done():
                following = asyncio.create_task(queue.get())
                await asyncio.wait((following, gone), return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    following.cancel()
                    break
                event = following.result()
                if event is LAGGED or event.organization_id in organizations:
                    await socket.send_json(_body(event))
        except (WebSocketDisconnect, RuntimeError):
            pass  # the page went away while a message was on its way to it
        finally:
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone


def _body(event: Event) -> dict[str, object]:
    return {"type": event.type, **event.data}


async def _until_gone(socket: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.receive_text()
