"""What the machine asks of the sync process and waits for: a sync now, an upload. The answer is true or says why not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec.structs import replace

from gleaner.machine.sync.link import LinkError
from gleaner.machine.sync.local_files import LocalFiles
from gleaner.machine.sync.scan import Candidate, path_tags
from gleaner.machine.sync.sender import Sender
from gleaner.wire.sync_frames import EntryKind, Status

# An upload that the connection broke under is sent again (the app knows it by its id), so often at most.
UPLOAD_ATTEMPTS = 5
_LOOK_AGAIN_S = 0.5


class Line(Protocol):
    """The connection to the app as requests see it."""

    @property
    def is_connected(self) -> bool: ...

    @property
    def is_held(self) -> bool:
        """Whether nothing is sent but what somebody asks for."""

    async def reach(self) -> Sender:
        """Waits for a connection for some seconds. Raises LinkError."""

    def want_pass(self) -> None: ...


@dataclass(frozen=True)
class Upload:
    path: str
    tags: tuple[str, ...] = ()
    dataset_ids: tuple[str, ...] = ()


class Requests:
    """`done(number, error)` is called exactly once for each request; an empty error means that the app has everything."""

    def __init__(self, line: Line, files: LocalFiles, reading: Executor, done: Callable[[int, str], None]) -> None:
        self._line = line
        self._files = files
        self._reading = reading
        self._done = done
        self._syncs: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def sync(self, number: int) -> None:
        self._start(number, self._sync)

    def upload(self, number: int, upload: Upload) -> None:
        self._start(number, lambda: self._upload(upload))

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    # --- for the passes ----------------------------------------------------------------------------------------------

    def take_syncs(self) -> list[asyncio.Future[None]]:
        """Who waits for the pass that begins now: each is done with it, or given back."""
        taken, self._syncs = [each for each in self._syncs if not each.done()], []
        return taken

    def give_back(self, syncs: list[asyncio.Future[None]]) -> None:
        """Who has no answer yet, because the connection broke: the next pass is theirs."""
        self._syncs = [each for each in syncs if not each.done()] + self._syncs

    # --- inside ------------------------------------------------------------------------------------------------------

    def _start(self, number: int, work: Callable[[], Awaitable[str]]) -> None:
        task = asyncio.create_task(self._answer(number, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, work: Callable[[], Awaitable[str]]) -> None:
        try:
            error = await work()
        except LinkError as problem:
            error = str(problem)
        except OSError as problem:
            error = f"{problem.filename or 'the file'} cannot be read: {problem.strerror or problem}"
        self._done(number, error)

    async def _sync(self) -> str:
        problems = self._files.problems.count
        await self._line.reach()
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._syncs.append(passed)
        self._line.want_pass()
        try:
            while not passed.done():
                await asyncio.wait([passed], timeout=_LOOK_AGAIN_S)
                if not passed.done() and not self._line.is_connected:
                    await self._line.reach()
        except LinkError as error:
            later = "ask again, sync is held back" if self._line.is_held else "sync goes on by itself"
            raise LinkError(f"not everything was sent: {error}; {later}") from error
        finally:
            passed.cancel()
        return self._files.problems.words_since(problems)

    async def _upload(self, upload: Upload) -> str:
        for attempt in range(1, UPLOAD_ATTEMPTS + 1):
            sender = await self._line.reach()
            try:
                return await self._upload_once(sender, upload)
            except LinkError as error:
                if attempt == UPLOAD_ATTEMPTS:
                    raise LinkError(f"the app did not confirm it: {error}") from error
                await asyncio.sleep(_LOOK_AGAIN_S)
        raise AssertionError("not reached")

    async def _upload_once(self, sender: Sender, upload: Upload) -> str:
        loop = asyncio.get_running_loop()
        status = await loop.run_in_executor(self._reading, os.stat, upload.path)
        candidate = Candidate(
            upload.path, EntryKind.FILE, status.st_size, status.st_mtime_ns, status.st_mtime_ns, status.st_ino
        )
        loaded = await loop.run_in_executor(self._reading, self._files.load, candidate)
        if loaded is None:
            return f"{upload.path} cannot be read"
        file, content = loaded
        # Viam's rule: the service's tags are for what it captures itself, not for what is uploaded through it.
        tags = tuple(dict.fromkeys((*path_tags(upload.path)[0], *upload.tags)))
        file = file._replace(entry=replace(file.entry, tags=tags, dataset_ids=upload.dataset_ids))
        ack = await sender.send_file(file, content)
        if ack is None:
            return f"{upload.path} changed while it was sent"
        answer = next((result for result in ack.results if result.id == file.entry.id), None)
        if answer is None:
            raise LinkError("the app's answer does not name the file")
        # A stored file's message says what did not work beside it: a dataset that does not exist.
        return " ".join(filter(None, (answer.message, answer.hint))) if answer.message else _refused(answer.status)


def _refused(status: Status) -> str:
    return "the app rejected it without a reason" if status is Status.REJECTED else ""


def parse_upload(values: dict[str, Any]) -> Upload:
    """From a control message."""
    return Upload(str(values["path"]), tuple(values.get("tags", ())), tuple(values.get("dataset_ids", ())))
