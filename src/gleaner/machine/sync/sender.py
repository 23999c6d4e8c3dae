"""Sends what the disk holds over one link: small files in batches, big ones piece by piece beside them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any, TypeVar

from gleaner.machine.sync.link import Answer, Link, LinkError
from gleaner.machine.sync.local_files import LocalFile, LocalFiles, Outgoing
from gleaner.machine.sync.scan import Candidate
from gleaner.wire.sync_frames import PIECE_BYTES, SMALL_FILE_BYTES, Ack, Batch, Offset, Piece, PieceAck, Resume

T = TypeVar("T")
# Batches read ahead of their answers: enough for a line of 100 ms at 100 Mbit/s, few enough for a small memory.
BATCHES_IN_FLIGHT = 4
# Two pieces on the way keep a line busy, and leave the rest of the window to new small files.
PIECES_IN_FLIGHT = 2
# More big files than these are found again by the next pass.
BIG_FILES_REMEMBERED = 256


class Sender:
    """Lives as long as one link. Disk work runs in `disk`, an executor with one thread. All methods raise LinkError."""

    def __init__(self, link: Link, files: LocalFiles, disk: Executor, log: logging.Logger) -> None:
        self._link = link
        self._files = files
        self._disk = disk
        self._log = log
        self._big: dict[str, Candidate] = {}
        self._big_changed = asyncio.Condition()

    async def run_pass(self) -> int:
        """Sends the small files that are ready now and notes the big ones; returns how many the app has confirmed."""
        source = self._files.scan()
        slots = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        confirmed = 0

        async def exchange(outgoing: Outgoing) -> None:
            nonlocal confirmed
            try:
                confirmed += await self._send_batch(outgoing)
            finally:
                slots.release()

        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await slots.acquire()
                    outgoing, big = await self._on_disk(self._files.next_batch, source)
                    await self._note_big(big)
                    if outgoing is None:
                        slots.release()
                        if not big:
                            break
                    else:
                        tasks.create_task(exchange(outgoing))
        except BaseExceptionGroup as group:
            raise first_error(group) from group
        return confirmed

    async def send_big_files(self) -> None:
        """Runs for the life of the link: sends what the passes have noted, one file after the other."""
        while True:
            async with self._big_changed:
                await self._big_changed.wait_for(lambda: self._big)
                path, candidate = next(iter(self._big.items()))
            try:
                file = await self._on_disk(self._files.describe, candidate)
                if file is not None:
                    await self._send_big(file)
            finally:
                async with self._big_changed:
                    self._big.pop(path, None)
                    self._big_changed.notify_all()

    async def big_files_sent(self) -> None:
        """Waits until no noted big file is left."""
        async with self._big_changed:
            await self._big_changed.wait_for(lambda: not self._big)

    async def send_file(self, file: LocalFile, content: bytes) -> Ack | None:
        """One file for which somebody waits; its local copy is left alone. None: it changed meanwhile."""
        if len(content) > SMALL_FILE_BYTES:
            return await self._pieces(file, await self._link.request(Resume(0, file.entry)))
        answer = await self._link.request(Batch(0, (file.entry,), (content,)), len(content))
        return _ack(answer)

    # --- small files -------------------------------------------------------------------------------------------------

    async def _send_batch(self, outgoing: Outgoing) -> int:
        entries = tuple(file.entry for file in outgoing.files)
        answer = await self._link.request(Batch(0, entries, outgoing.payloads), outgoing.size_bytes)
        return await self._on_disk(self._files.settle, outgoing.files, _ack(answer).results)

    async def _note_big(self, found: Iterable[Candidate]) -> None:
        async with self._big_changed:
            for candidate in found:
                if len(self._big) < BIG_FILES_REMEMBERED:
                    self._big.setdefault(candidate.path, candidate)
            self._big_changed.notify_all()

    # --- big files ---------------------------------------------------------------------------------------------------

    async def _send_big(self, file: LocalFile) -> None:
        ack = await self._pieces(file, await self._link.request(Resume(0, file.entry)))
        if ack is None:
            self._log.info("%s changed while it was sent; it is sent again once it rests", file.candidate.path)
            return
        await self._on_disk(self._files.settle, [file], ack.results)

    async def _pieces(self, file: LocalFile, answer: Answer) -> Ack | None:
        """Follows the app's word on where to go on, until it has the file. None: the file changed meanwhile."""
        reached = -1
        while not isinstance(answer, Ack):
            if not isinstance(answer, Offset) or answer.offset > file.entry.size:
                raise LinkError(f"the app answered {type(answer).__name__} where a position in the file was expected")
            if answer.offset <= reached:
                raise LinkError(f"the app asks again for {file.entry.path} from byte {answer.offset} on")
            reached = answer.offset
            following = await self._stream(file, answer.offset)
            if following is None:
                return None
            answer = following
        return answer

    async def _stream(self, file: LocalFile, offset: int) -> Answer | None:
        """Sends pieces from `offset`; returns the first answer that is not just "go on"."""
        running: deque[asyncio.Task[Answer]] = deque()
        is_last = False
        try:
            while True:
                while not is_last and len(running) < PIECES_IN_FLIGHT:
                    data = await self._on_disk(self._files.read_piece, file, offset, PIECE_BYTES)
                    if data is None:
                        return None
                    is_last = offset + len(data) >= file.entry.size
                    piece = Piece(0, file.entry.id, offset, is_last, data)
                    running.append(asyncio.create_task(self._link.request(piece, len(data))))
                    offset += len(data)
                answer = await running.popleft()
                if not isinstance(answer, PieceAck):
                    return answer
                if is_last and not running:
                    raise LinkError("the app confirmed the last piece of a file but not the file")
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _on_disk(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *arguments)


def _ack(answer: Answer) -> Ack:
    if not isinstance(answer, Ack):
        raise LinkError(f"the app answered a batch with {type(answer).__name__}")
    return answer


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that made a group of tasks end: the others were cancelled because of it."""
    leaves: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((e for e in leaves if not isinstance(e, LinkError)), leaves[0])
