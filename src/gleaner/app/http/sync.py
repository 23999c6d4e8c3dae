"""`/api/sync`: machines deliver their capture files. The protocol is in docs/architecture.md and `wire/sync_frames.py`.

An ack leaves only after the ingest's receipt, so what a machine deletes is on disk here. Batches are worked on side by
side; pieces of big files one after the other, into the encrypted spool, where a dropped connection or a restart of the app
leaves them to be continued. `rejected` is said only of what can never work; everything else slows the machine down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from functools import partial

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from gleaner.app.caller import CallerKind
from gleaner.app.context import AppContext
from gleaner.app.errors import AppError, PermissionDenied, Unavailable
from gleaner.app.http.deps import context_of, deny, websocket_caller
from gleaner.app.services.items_sync import Incoming, SyncFiles, rejection
from gleaner.app.store.ingest import Receipt
from gleaner.app.store.records import Upload
from gleaner.wire.sync_frames import (
    COMPRESSION_HEADER,
    KINDS_HEADER,
    WINDOW_FRAMES,
    ZLIB,
    Ack,
    Batch,
    Entry,
    EntryKind,
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
            raise PermissionDenied(
                "Only machines sync", "Connect with part_id and secret, or an owner's key_id and key."
            )
        files = SyncFiles(context.database, context.spool, context.fleet, context.sequences, caller.part_id)
        await context.call(files.place)
    except AppError as err:
        await deny(socket, err)
        return
    offered = {COMPRESSION_HEADER: ZLIB, KINDS_HEADER: EntryKind.SEQUENCE}
    await socket.accept(headers=[(name.encode(), value.encode()) for name, value in offered.items()])
    await _Session(socket, context, files).run()


@dataclass
class _Arriving:
    """A big file of this connection. `size` counts the pieces that were taken, also while they are being written."""

    incoming: Incoming
    size: int
    pieces: list[tuple[Piece, float]] = field(default_factory=list)
    is_running: bool = False


class _Session:
    """One connection of one part."""

    def __init__(self, socket: WebSocket, context: AppContext, files: SyncFiles) -> None:
        self._socket = socket
        self._context = context
        self._files = files
        self._window = asyncio.Semaphore(WINDOW_FRAMES)
        self._sending = asyncio.Lock()
        self._big: dict[str, _Arriving] = {}

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._receive(tasks)
        except* WebSocketDisconnect:
            pass  # what was not acknowledged comes again
        except* (FrameError, UnicodeDecodeError) as errors:
            await self._close(_PROTOCOL_ERROR, str(errors.exceptions[0]))
        except* AppError as errors:  # overloaded, or the part was deleted: whoever connects again is told
            await self._close(_TRY_AGAIN_LATER, str(errors.exceptions[0]))
        finally:
            for arriving in self._big.values():
                await self._context.call(arriving.incoming.spool.close)

    async def _receive(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1006))
            arrived_s = asyncio.get_running_loop().time()
            match decode(message.get("bytes") or message.get("text") or b""):
                case Batch() as batch:
                    await self._window.acquire()
                    tasks.create_task(self._in_window(self._batch(batch, arrived_s)))
                case Resume() as resume:
                    await self._resume(resume, arrived_s)
                case Piece() as piece:
                    await self._window.acquire()
                    self._piece(piece, arrived_s, tasks)
                case other:
                    raise FrameError(f"a {type(other).__name__} frame came from a machine")

    async def _in_window(self, work: Awaitable[None]) -> None:
        try:
            await work
        finally:
            self._window.release()

    # --- batches -----------------------------------------------------------------------------------------------------

    async def _batch(self, batch: Batch, arrived_s: float) -> None:
        # A sequence is stored at once and may wait for the database.
        may_wait = any(entry.kind is EntryKind.SEQUENCE for entry in batch.entries)
        run = self._context.call if may_wait else self._context.compute
        judged = await run(self._files.judge, batch.entries, batch.payloads)
        await self._send(Ack(batch.seq, tuple(await self._store(batch.entries, judged)), _held_ms(arrived_s)))

    async def _store(self, entries: Sequence[Entry], judged: Sequence[Upload | Result]) -> list[Result]:
        """Returns when everything that can be stored is."""
        uploads = [one for one in judged if not isinstance(one, Result)]
        outcomes = iter(await self._submit(uploads) if uploads else ())
        results = []
        for entry, one in zip(entries, judged, strict=True):
            results.append(one if isinstance(one, Result) else await self._result(entry.id, next(outcomes)))
        return results

    async def _submit(self, uploads: Sequence[Upload]) -> list[Receipt | BaseException | None]:
        """Waits, and tells the machine to, while too much is waiting already."""
        loop = asyncio.get_running_loop()
        told = False
        while True:
            done = asyncio.Event()
            try:
                submission = self._context.ingest.submit_together(uploads, partial(loop.call_soon_threadsafe, done.set))
            except Unavailable as err:
                if not self._context.ingest.is_running:
                    raise
                if not told:
                    await self._send(SlowDown(_SLOW_DOWN_S, err.message))
                    told = True
                await asyncio.sleep(_RETRY_S)
                continue
            await done.wait()
            return submission.outcomes

    # --- big files ---------------------------------------------------------------------------------------------------

    async def _resume(self, frame: Resume, arrived_s: float) -> None:
        entry = frame.entry
        if before := self._big.pop(entry.id, None):
            await self._context.call(before.incoming.spool.close)
        if known := await self._context.call(self._files.known, entry):
            await self._send(Ack(frame.seq, (known,), _held_ms(arrived_s)))
            return
        incoming = await self._context.call(self._files.open, entry)
        if incoming.spool.size == entry.size:
            await self._complete(frame.seq, incoming, arrived_s)
            return
        self._big[entry.id] = _Arriving(incoming, incoming.spool.size)
        await self._send(Offset(frame.seq, entry.id, incoming.spool.size, _held_ms(arrived_s)))

    def _piece(self, frame: Piece, arrived_s: float, tasks: asyncio.TaskGroup) -> None:
        """Pieces of one file are worked on in their order, beside everything else."""
        arriving = self._big.get(frame.id)
        if arriving is None:
            raise FrameError(f"a piece of {frame.id} came without a resume")
        arriving.pieces.append((frame, arrived_s))
        if not arriving.is_running:
            arriving.is_running = True
            tasks.create_task(self._append_pieces(arriving))

    async def _append_pieces(self, arriving: _Arriving) -> None:
        """All pieces that have come meanwhile are made durable at once, then acknowledged."""
        try:
            while arriving.pieces:
                group, arriving.pieces = arriving.pieces, []
                try:
                    await self._append(arriving, group)
                finally:
                    for _ in group:
                        self._window.release()
        finally:
            arriving.is_running = False

    async def _append(self, arriving: _Arriving, group: list[tuple[Piece, float]]) -> None:
        incoming, last = arriving.incoming, None
        fitting: list[bytes] = []
        answers: list[tuple[type[Offset | PieceAck], Piece, int, float]] = []
        for frame, arrived_s in group:
            if frame.offset != arriving.size or last is not None:
                answers.append((Offset, frame, arriving.size, arrived_s))
                continue
            fitting.append(frame.data)
            arriving.size += len(frame.data)
            if frame.last:
                last = (frame.seq, arrived_s)
            else:
                answers.append((PieceAck, frame, arriving.size, arrived_s))
        try:
            await self._context.call(incoming.append, fitting)
        except OSError as err:
            raise Unavailable(f"The app cannot keep the file: {err}", "It is sent again later.") from err
        for kind, frame, size, arrived_s in answers:
            await self._send(kind(frame.seq, frame.id, size, _held_ms(arrived_s)))
        if last is not None:
            self._big.pop(incoming.entry.id, None)
            await self._complete(last[0], incoming, last[1])

    async def _complete(self, seq: int, incoming: Incoming, arrived_s: float) -> None:
        judged = await self._context.call(self._files.finish, incoming)
        [result] = await self._store([incoming.entry], [judged])
        await self._send(Ack(seq, (result,), _held_ms(arrived_s)))

    # --- both --------------------------------------------------------------------------------------------------------

    async def _result(self, id_: str, outcome: Receipt | BaseException | None) -> Result:
        match outcome:
            case Receipt() as receipt:
                pass
            case Unavailable() as err:
                await self._send(SlowDown(_SLOW_DOWN_S * 5, err.message))
                raise err
            case AppError() as err:
                return rejection(id_, err)
            case other:
                raise RuntimeError(f"an upload ended with {other!r}")
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


def _held_ms(arrived_s: float) -> float:
    return round((asyncio.get_running_loop().time() - arrived_s) * 1000, 2)
