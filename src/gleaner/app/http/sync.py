"""`/api/sync`: machines deliver their capture files. The protocol is in docs/architecture.md and `wire/sync_frames.py`.

An ack leaves only after the ingest's receipt, so what a machine deletes is on disk here. Batches are worked on side by
side; pieces of big files one after the other, into the encrypted spool, where a dropped connection or a restart of the app
leaves them to be continued. `rejected` is said only of what can never work; everything else slows the machine down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from gleaner.app.caller import CallerKind
from gleaner.app.context import AppContext
from gleaner.app.errors import AppError, PermissionDenied, Unavailable
from gleaner.app.http.deps import context_of, deny, websocket_caller
from gleaner.app.services.items_sync import Incoming, SyncFiles
from gleaner.app.store.ingest import Receipt
from gleaner.app.store.records import Upload
from gleaner.wire.sync_frames import (
    WINDOW_FRAMES,
    Ack,
    Batch,
    FrameError,
    Offset,
    Piece,
    PieceAck,
    Result,
    Resume,
    ServerFrame,
    SlowDown,
    Status,
    decode,
    encode,
)

router = APIRouter()
log = logging.getLogger(__name__)

_RETRY_S = 0.2
_SLOW_DOWN_S = 1.0
_PROTOCOL_ERROR = 4400
_TRY_AGAIN_LATER = 1013


@router.websocket("/api/sync")
async def sync(socket: WebSocket) -> None:
    context = context_of(socket)
    try:
        caller = await websocket_caller(socket)
        if caller.kind is not CallerKind.PART:
            raise PermissionDenied("Only machines sync", "Connect with the headers part_id and secret of a part.")
        files = SyncFiles(context.database, context.spool, context.fleet, caller.part_id)
        await context.call(files.place)
    except AppError as err:
        await deny(socket, err)
        return
    await socket.accept()
    await _Session(socket, context, files).run()


class _Session:
    """One connection of one part."""

    def __init__(self, socket: WebSocket, context: AppContext, files: SyncFiles) -> None:
        self._socket = socket
        self._context = context
        self._files = files
        self._window = asyncio.Semaphore(WINDOW_FRAMES)
        self._sending = asyncio.Lock()
        self._big: dict[str, Incoming] = {}

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._receive(tasks)
        except* WebSocketDisconnect:
            pass  # what was not acknowledged comes again
        except* (FrameError, UnicodeDecodeError) as errors:
            await self._close(_PROTOCOL_ERROR, str(errors.exceptions[0]))
        except* Unavailable as errors:
            await self._close(_TRY_AGAIN_LATER, str(errors.exceptions[0]))
        finally:
            for incoming in self._big.values():
                await self._context.call(incoming.spool.close)

    async def _receive(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1006))
            match decode(message.get("bytes") or message.get("text") or b""):
                case Batch() as batch:
                    await self._window.acquire()
                    tasks.create_task(self._in_window(self._batch(batch)))
                case Resume() as resume:
                    await self._resume(resume)
                case Piece() as piece:
                    await self._piece(piece, tasks)
                case other:
                    raise FrameError(f"a {type(other).__name__} frame came from a machine")

    async def _in_window(self, work: Awaitable[None]) -> None:
        try:
            await work
        finally:
            self._window.release()

    async def _batch(self, batch: Batch) -> None:
        judged = await self._context.call(self._files.judge, batch.entries, batch.payloads)
        waiting = [one if isinstance(one, Result) else await self._submit(one) for one in judged]
        results = []
        for entry, one in zip(batch.entries, waiting, strict=True):
            results.append(one if isinstance(one, Result) else await self._result(entry.id, one))
        await self._send(Ack(batch.seq, tuple(results)))

    async def _resume(self, frame: Resume) -> None:
        entry = frame.entry
        if before := self._big.pop(entry.id, None):
            await self._context.call(before.spool.close)
        if known := await self._context.call(self._files.known, entry):
            await self._send(Ack(frame.seq, (known,)))
            return
        incoming = await self._context.call(self._files.open, entry)
        if incoming.spool.size == entry.size:
            await self._complete(frame.seq, incoming)
            return
        self._big[entry.id] = incoming
        await self._send(Offset(frame.seq, entry.id, incoming.spool.size))

    async def _piece(self, frame: Piece, tasks: asyncio.TaskGroup) -> None:
        incoming = self._big.get(frame.id)
        if incoming is None:
            raise FrameError(f"a piece of {frame.id} came without a resume")
        if frame.offset != incoming.spool.size:
            await self._send(Offset(frame.seq, frame.id, incoming.spool.size))
            return
        try:
            await self._context.call(incoming.spool.append, frame.data, durable=True)
        except OSError as err:
            raise Unavailable(f"The app cannot keep the file: {err}", "It is sent again later.") from err
        if not frame.last:
            await self._send(PieceAck(frame.seq, frame.id, incoming.spool.size))
            return
        del self._big[frame.id]
        await self._window.acquire()
        tasks.create_task(self._in_window(self._complete(frame.seq, incoming)))

    async def _complete(self, seq: int, incoming: Incoming) -> None:
        judged = await self._context.call(self._files.finish, incoming)
        if isinstance(judged, Result):
            await self._send(Ack(seq, (judged,)))
            return
        result = await self._result(incoming.entry.id, await self._submit(judged))
        await self._send(Ack(seq, (result,)))

    async def _submit(self, upload: Upload) -> asyncio.Future[Receipt]:
        """Waits, and tells the machine to, while too much is waiting already."""
        told = False
        while True:
            try:
                return asyncio.wrap_future(self._context.ingest.submit(upload))
            except Unavailable as err:
                if not self._context.ingest.is_running:
                    raise
                if not told:
                    await self._send(SlowDown(_SLOW_DOWN_S, err.message))
                    told = True
            await asyncio.sleep(_RETRY_S)

    async def _result(self, id_: str, future: asyncio.Future[Receipt]) -> Result:
        try:
            receipt = await future
        except Unavailable as err:
            await self._send(SlowDown(_SLOW_DOWN_S * 5, err.message))
            raise
        except AppError as err:
            return Result(id_, Status.REJECTED, err.message, err.hint)
        status = Status.DUPLICATE if receipt.is_duplicate else Status.STORED
        if receipt.unknown_dataset_ids:
            missing = ", ".join(receipt.unknown_dataset_ids)
            return Result(
                id_, status, f"There is no dataset {missing}", "The file is stored; add it to a dataset in the app."
            )
        return Result(id_, status)

    async def _send(self, frame: ServerFrame) -> None:
        async with self._sending:
            try:
                await self._socket.send_bytes(encode(frame))
            except RuntimeError as err:  # closed meanwhile
                raise WebSocketDisconnect(1006) from err

    async def _close(self, code: int, reason: str) -> None:
        log.warning("Sync of part %s ended: %s", self._files.part_id, reason)
        try:
            await self._socket.close(code, reason.encode()[:120].decode(errors="ignore"))
        except (RuntimeError, WebSocketDisconnect):
            return  # it was faster
