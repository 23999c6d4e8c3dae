"""Sends what the disk holds over one link: small files in batches, big ones piece by piece beside them.

`run_pass` goes through everything that is ready, oldest first, tagged shelves before others. While it works on a long
backlog, `run_new` sends what was captured meanwhile in a better lane (see `lanes`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from gleaner.machine.sync.lanes import Lane
from gleaner.machine.sync.link import Answer, Link, LinkError
from gleaner.machine.sync.local_files import LocalFiles
from gleaner.machine.sync.outgoing import Amounts, LocalFile, Outgoing
from gleaner.machine.sync.scan import Candidate, Shelf
from gleaner.wire.sync_frames import SMALL_FILE_BYTES, Ack, Batch, Offset, Piece, PieceAck, Result, Resume, Status

T = TypeVar("T")
# Enough pieces to fill the window of a fast line; the lanes let no more than fit go.
PIECES_IN_FLIGHT = 16
# While one file's position is asked for, the others keep the line busy.
BIG_FILES_AT_ONCE = 3
# More big files than these are found again by the next pass.
BIG_FILES_REMEMBERED = 256


@dataclass
class Meter:
    """What the app has confirmed, for the rate; bytes as they travel."""

    files: int = 0
    size_bytes: int = 0


class Sender:
    """Lives as long as one link. Reading and settling have a thread each. All methods raise LinkError.

    Once `may_send` says no, nothing more goes out, in the middle of a pass or of a big file too; what is on its way is
    settled. `send_file` does not ask.
    """

    def __init__(
        self,
        link: Link,
        files: LocalFiles,
        reading: Executor,
        settling: Executor,
        log: logging.Logger,
        meter: Meter,
        may_send: Callable[[], bool] = lambda: True,
    ) -> None:
        self._link = link
        self._files = files
        self._reading = reading
        self._settler = Settler(files, settling)
        self._log = log
        self._meter = meter
        self._may_send = may_send
        self._taken: set[str] = set()
        """Small files on their way: another pass must not send them again."""
        self._big: dict[str, Candidate] = {}
        self._big_running: set[str] = set()
        self._big_changed = asyncio.Condition()
        self.left_big_files = False
        """The last pass found more big files than are remembered: another one has to look for them."""

    async def run_pass(self) -> int:
        """Sends the small files that are ready now and notes the big ones; returns how many the app has confirmed."""
        self.left_big_files = False
        found = await self._on_disk(self._files.shelves, 0)
        tagged = await self._send_shelves([s for s in found if s.is_tagged], Lane.TAGGED)
        return tagged + await self._send_shelves([s for s in found if not s.is_tagged], Lane.BACKLOG)

    async def run_new(self, since_ns: int) -> int:
        """The same for files that are newer, in better lanes; may run beside `run_pass`."""
        found = await self._on_disk(self._files.shelves, since_ns)
        tagged = await self._send_shelves([s for s in found if s.is_tagged], Lane.TAGGED)
        return tagged + await self._send_shelves([s for s in found if not s.is_tagged], Lane.NEW)

    async def send_big_files(self) -> None:
        """Runs for the life of the link: sends what the passes have noted."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(BIG_FILES_AT_ONCE):
                    tasks.create_task(self._send_big_files())
        except BaseExceptionGroup as group:
            raise first_error(group) from group

    async def big_files_sent(self) -> None:
        """Waits until no noted big file is left."""
        async with self._big_changed:
            await self._big_changed.wait_for(lambda: not self._big)

    async def send_file(self, file: LocalFile, content: bytes) -> Ack | None:
        """One file for which somebody waits; its local copy is left alone. None: it changed meanwhile."""
        if len(content) > SMALL_FILE_BYTES:
            return await self._pieces(file, Lane.URGENT)
        return _ack(await self._link.request(Batch(0, (file.entry,), (content,)), Lane.URGENT))

    # --- small files -------------------------------------------------------------------------------------------------

    async def _send_shelves(self, found: Iterable[Shelf], lane: Lane) -> int:
        """Reads the next batch while others are on their way; waits for room before it reads one more."""
        waiting = deque(found)
        confirmed = 0

        async def exchange(files: Sequence[LocalFile], size_bytes: int, answering: asyncio.Future[Answer]) -> None:
            nonlocal confirmed
            try:
                ack = _ack(await self._link.answer(answering))
                self._meter.size_bytes += size_bytes
                confirmed += await self._settle(files, ack.results)
            finally:
                self._taken.difference_update(f.candidate.path for f in files)

        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._next_batch(waiting))
                while True:
                    outgoing, big = await reading
                    if not self._may_send():
                        self._taken.difference_update(f.candidate.path for f in (outgoing.files if outgoing else ()))
                        break
                    if outgoing is not None or big:
                        reading = tasks.create_task(self._next_batch(waiting))
                    await self._note_big(big)
                    if outgoing is not None:
                        entries = tuple(file.entry for file in outgoing.files)
                        answering = await self._link.send(Batch(0, entries, outgoing.payloads), lane)
                        # Without the payloads: a second window full of them would be kept until they are answered.
                        tasks.create_task(exchange(outgoing.files, outgoing.size_bytes, answering))
                    elif not big:
                        break
        except BaseExceptionGroup as group:
            raise first_error(group) from group
        return confirmed

    async def _next_batch(self, waiting: deque[Shelf]) -> tuple[Outgoing | None, list[Candidate]]:
        flow = self._link.flow
        amounts = Amounts(flow.batch_bytes, flow.small_file_bytes, self._link.compresses, self._link.keeps_sequences)
        return await self._on_disk(self._files.next_batch, waiting, amounts, self._taken)

    async def _settle(self, files: Sequence[LocalFile], results: Sequence[Result]) -> int:
        """Returns how many of the files the app has."""
        await self._settler.settle(files, results)
        count = sum(result.status is not Status.REJECTED for result in results)
        self._meter.files += count
        return count

    async def _note_big(self, found: Iterable[Candidate]) -> None:
        async with self._big_changed:
            for candidate in found:
                if len(self._big) < BIG_FILES_REMEMBERED:
                    self._big.setdefault(candidate.path, candidate)
                else:
                    self.left_big_files = self.left_big_files or candidate.path not in self._big
            self._big_changed.notify_all()

    # --- big files ---------------------------------------------------------------------------------------------------

    async def _send_big_files(self) -> None:
        while True:
            async with self._big_changed:
                await self._big_changed.wait_for(lambda: self._big.keys() - self._big_running)
                path, candidate = next((p, c) for p, c in self._big.items() if p not in self._big_running)
                self._big_running.add(path)
            try:
                file = await self._on_disk(self._files.describe, candidate) if self._may_send() else None
                if file is not None and self._may_send():
                    is_tagged = await self._on_disk(self._files.is_tagged, candidate)
                    await self._send_big(file, Lane.BIG_TAGGED if is_tagged else Lane.BIG)
            finally:
                async with self._big_changed:
                    self._big.pop(path, None)
                    self._big_running.discard(path)
                    self._big_changed.notify_all()

    async def _send_big(self, file: LocalFile, lane: Lane) -> None:
        ack = await self._pieces(file, lane)
        if ack is None and not self._may_send():
            return  # the app keeps what it has of it, a later pass goes on there
        if ack is None:
            self._log.info("%s changed while it was sent; it is sent again once it rests", file.candidate.path)
            return
        await self._settle([file], ack.results)

    async def _pieces(self, file: LocalFile, lane: Lane) -> Ack | None:
        """Follows the app's word on where to go on, until it has the file. None: the file changed meanwhile, or is held back."""
        answer = await self._link.request(Resume(0, file.entry), min(lane, Lane.TAGGED))
        reached = -1
        while not isinstance(answer, Ack):
            if not isinstance(answer, Offset) or answer.offset > file.entry.size:
                raise LinkError(f"the app answered {type(answer).__name__} where a position in the file was expected")
            if answer.offset <= reached:
                raise LinkError(f"the app asks again for {file.entry.path} from byte {answer.offset} on")
            reached = answer.offset
            following = await self._stream(file, answer.offset, lane)
            if following is None:
                return None
            answer = following
        return answer

    async def _stream(self, file: LocalFile, offset: int, lane: Lane) -> Answer | None:
        """Sends pieces from `offset`; returns the first answer that is not just "go on". None: it may not go on."""
        running: deque[asyncio.Future[Answer]] = deque()
        is_last, reached = False, offset
        try:
            while True:
                # As many as the lanes admit; an answer that has come is looked at before the next piece.
                while not is_last and len(running) < PIECES_IN_FLIGHT and not (running and running[0].done()):
                    if lane is not Lane.URGENT and not self._may_send():
                        return None
                    size = self._link.flow.piece_bytes
                    data = await self._on_disk(self._files.read_piece, file, offset, size)
                    if data is None:
                        return None
                    is_last = offset + len(data) >= file.entry.size
                    running.append(await self._link.send(Piece(0, file.entry.id, offset, is_last, data), lane))
                    offset += len(data)
                answer = await self._link.answer(running.popleft())
                if not isinstance(answer, PieceAck):
                    return answer
                self._meter.size_bytes += answer.offset - reached
                reached = answer.offset
                if is_last and not running:
                    raise LinkError("the app confirmed the last piece of a file but not the file")
        finally:
            for future in running:
                future.cancel()

    async def _on_disk(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, work, *arguments)


class Settler:
    """Lets go of confirmed files, those of all answers that have come meanwhile at once: one fsync for many batches."""

    def __init__(self, files: LocalFiles, settling: Executor) -> None:
        self._files = files
        self._settling = settling
        self._waiting: list[tuple[Sequence[LocalFile], Sequence[Result], asyncio.Future[None]]] = []
        self._is_running = False

    async def settle(self, files: Sequence[LocalFile], results: Sequence[Result]) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((files, results, done))
        if not self._is_running:
            self._is_running = True
            try:
                await self._run()
            finally:
                self._is_running = False
        await done

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            files = [file for some, _, _ in group for file in some]
            results = [result for _, some, _ in group for result in some]
            try:
                await loop.run_in_executor(self._settling, self._files.settle, files, results)
            finally:
                for _, _, done in group:
                    if not done.done():
                        done.set_result(None)


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
