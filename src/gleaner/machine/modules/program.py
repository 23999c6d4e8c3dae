"""One run of a module's program: its logs, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

_GUARD = Path(__file__).with_name("guard.py")
_LINE_BYTES = 64 * 1024
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_LEVEL = re.compile(r"\b(DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)\b")
_LEVELS = {"WARN": logging.WARNING, "FATAL": logging.CRITICAL}
#: The guard needs this long to notice that a program has ended.
_GUARD_MARGIN_S = 1.5


class Program:
    """`await start(…)`, then `wait()` for its end or `stop()` it. Raises OSError when it cannot be started."""

    def __init__(self, process: asyncio.subprocess.Process, log: logging.Logger) -> None:
        self._process = process
        self._log = log
        self._last_words: deque[str] = deque(maxlen=3)
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(process.stdout, logging.INFO), name="module stdout"),
            asyncio.create_task(self._read(process.stderr, logging.WARNING), name="module stderr"),
        ]

    @classmethod
    async def start(
        cls, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: logging.Logger
    ) -> Program:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", str(_GUARD), *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            cwd=folder,
            limit=_LINE_BYTES,
            start_new_session=True,
        )
        return cls(process, log)

    @property
    def pid(self) -> int:
        """Of the guard; the program is its only child."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> str:
        """How it ended, in words, with the last it said on stderr."""
        code = await self._process.wait()
        await self._drain()
        ending = f"was ended by signal {code - 128}" if code > 128 else f"ended with code {code}"
        return f"{ending}: {self._last_words[-1]}" if self._last_words else ending

    async def stop(self, grace_s: float) -> None:
        """Asks it to end; after `grace_s` it is killed with everything it started."""
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            stdin.write(f"{grace_s:.1f}\n".encode())
        stdin.close()
        try:
            async with asyncio.timeout(grace_s + _GUARD_MARGIN_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._drain()

    def kill(self) -> None:
        """Of a program that has been told to stop: now."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    async def _drain(self) -> None:
        """The pipes close when the last process that holds them has ended, which may have fled from the guard."""
        await asyncio.wait(self._readers, timeout=_GUARD_MARGIN_S)
        for reader in self._readers:
            reader.cancel()

    async def _read(self, stream: asyncio.StreamReader, level: int) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the limit; what was read of it is gone
                continue
            if not line:
                return
            text = _COLORS.sub("", line.decode(errors="replace")).rstrip()
            if text:
                if level >= logging.WARNING:
                    self._last_words.append(text[:500])
                self._log.log(_level_of(text, level), "%s", text)


def _level_of(line: str, otherwise: int) -> int:
    """The level that a program's own log format names near the beginning of the line."""
    found = _LEVEL.search(line[:64])
    if found is None:
        return otherwise
    return _LEVELS.get(found[1]) or logging.getLevelNamesMapping()[found[1]]
