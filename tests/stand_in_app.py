"""A stand-in for the app's `/api/sync`: keeps what it acknowledges, and misbehaves as a test asks."""

from __future__ import annotations

import asyncio
import http
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from gleaner.wire.ids import capture_id
from gleaner.wire.sync_frames import (
    COMPRESSION_HEADER,
    KINDS_HEADER,
    MAX_FRAME_BYTES,
    Ack,
    Batch,
    Entry,
    Frame,
    Offset,
    Piece,
    PieceAck,
    Result,
    Resume,
    SlowDown,
    Status,
    decode,
    encode,
    plain,
)

PART, SECRET = "part-1", "s3cret"


class StandInApp:
    """`files` is what it holds for good, by id. Survives `stop` and `start`, like the app's disk."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[Entry, bytes]] = {}
        self.arrivals: list[str] = []
        """Ids in the order of their arrival, repeats included."""
        self.partial: dict[str, bytearray] = {}
        self.entries: dict[str, Entry] = {}
        self.connections = 0
        self.piece_bytes = 0
        """Of big files, as they arrived, repeats included."""
        self.port = 0
        # Misbehaviour:
        self.refuse_with: int | None = None
        self.judge: Callable[[Entry], Result | None] = lambda _entry: None
        self.lose_answers = 0
        """So many frames are committed, then the connection breaks instead of an answer."""
        self.slow_down_s = 0.0
        self.hold = asyncio.Event()
        self.hold.set()
        """While cleared, frames are read and not answered."""
        self.extra_answers: list[Frame] = []
        self.repeat_answers = False
        """Every answer comes twice."""
        self.break_piece_at: int | None = None
        self.compression = ""
        """What it says in the handshake that it takes compressed."""
        self.kinds = ""
        """Entry kinds that it says it knows, beside those of always."""
        self._server: Server | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, ssl: Any = None) -> None:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            max_size=MAX_FRAME_BYTES,
            process_request=self._check,
            process_response=self._say_what_it_takes,
            compression=None,
            ssl=ssl,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        """Breaks every connection, as a crash does."""
        if self._server is not None:
            # Who was accepted and not attached to the listener yet would be left open by its end (asyncio asserts there):
            # nobody new first, then a turn for those.
            for listener in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
            await asyncio.sleep(0)
            for connection in list(self._server.connections):
                connection.transport.abort()
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def _check(self, connection: ServerConnection, request: Any) -> Any:
        if self.refuse_with is not None:
            return connection.respond(http.HTTPStatus(self.refuse_with), "no\n")
        if (request.headers.get("part_id"), request.headers.get("secret")) != (PART, SECRET):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "no\n")
        return None

    def _say_what_it_takes(self, connection: ServerConnection, request: Any, response: Any) -> None:
        if self.compression:
            response.headers[COMPRESSION_HEADER] = self.compression
        if self.kinds:
            response.headers[KINDS_HEADER] = self.kinds

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections += 1
        try:
            if self.slow_down_s:
                await connection.send(encode(SlowDown(self.slow_down_s, "busy")))
            async for message in connection:
                answer = self._answer(decode(message))
                if self.lose_answers:
                    self.lose_answers -= 1
                    connection.transport.abort()
                    return
                await self.hold.wait()
                for extra in self.extra_answers:
                    await connection.send(encode(extra))
                for _ in range(1 + self.repeat_answers):
                    await connection.send(encode(answer))
        except ConnectionClosed:
            pass

    def _answer(self, frame: Frame) -> Frame:
        match frame:
            case Batch(seq, entries, payloads):
                return Ack(seq, tuple(self._store(e, p) for e, p in zip(entries, payloads, strict=True)))
            case Resume(seq, entry):
                if entry.id in self.files:
                    return Ack(seq, (Result(entry.id, Status.DUPLICATE),))
                self.entries[entry.id] = entry
                return Offset(seq, entry.id, len(self.partial.setdefault(entry.id, bytearray())))
            case Piece(seq, id_, offset, last, data):
                return self._piece(seq, id_, offset, last, data)
        raise AssertionError(f"a client must not send {frame}")

    def _piece(self, seq: int, id_: str, offset: int, last: bool, data: bytes) -> Frame:
        held = self.partial[id_]
        self.piece_bytes += len(data)
        if offset != len(held):
            return Offset(seq, id_, len(held))
        if self.break_piece_at is not None and offset >= self.break_piece_at:
            self.break_piece_at = None
            self.lose_answers = 1
        held += data
        if not last:
            return PieceAck(seq, id_, len(held))
        return Ack(seq, (self._store(self.entries[id_], bytes(self.partial.pop(id_))),))

    def _store(self, entry: Entry, payload: bytes) -> Result:
        content = plain(entry, payload)
        assert entry.size == len(content)
        assert entry.id == capture_id(PART, entry.path, content)
        self.arrivals.append(entry.id)
        judgement = self.judge(entry)
        if judgement is not None:
            return judgement
        if entry.id in self.files:
            return Result(entry.id, Status.DUPLICATE)
        self.files[entry.id] = (entry, content)
        return Result(entry.id, Status.STORED)


@asynccontextmanager
async def running_app() -> AsyncIterator[StandInApp]:
    app = StandInApp()
    await app.start()
    try:
        yield app
    finally:
        app.hold.set()
        await app.stop()
