"""Sends the process's log messages to the app, without ever making anyone wait."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections import deque

from google.protobuf.timestamp_pb2 import Timestamp
from viam.proto.app.robot import LogRequest, RobotServiceStub
from viam.proto.common import LogEntry
from viam.utils import dict_to_struct

from gleaner.machine.cloud.connection import AppConnection, AppError, AppRefused

# Source: Viam's documented queue length, batch size and wait after an error.
MAX_QUEUED = 20_000
MAX_BATCH = 100
_ERROR_WAIT_S = 5.0
_FLUSH_INTERVAL_S = 0.25
_SEND_TIMEOUT_S = 4.0

_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"), (0, "debug"))


class LogShipper(logging.Handler):
    """Install on the root logger; `run` until cancelled; `flush_last` at the end. The oldest messages are dropped."""

    def __init__(self, connection: AppConnection, part_id: str) -> None:
        super().__init__()
        self._connection = connection
        self._part_id = part_id
        self._host = socket.gethostname()
        self._queue: deque[LogEntry] = deque()
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        # logging.Handler.handle holds the handler's lock here, so threads do not mix.
        try:
            entry = self._entry(record)
        except (TypeError, ValueError):
            self.handleError(record)
            return
        if len(self._queue) >= MAX_QUEUED:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(entry)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_INTERVAL_S)
            try:
                await self._send_all(_SEND_TIMEOUT_S)
            except AppError:
                await asyncio.sleep(_ERROR_WAIT_S)

    async def flush_last(self, timeout_s: float) -> None:
        """One last attempt; what the app does not take is lost."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._send_all(timeout_s)
        except (AppError, TimeoutError):
            return

    async def _send_all(self, timeout_s: float) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue)))]
            if self.dropped:
                lost, self.dropped = self.dropped, 0
                batch.append(
                    self._note(f"{lost} older log messages were dropped: the app could not be reached for too long")
                )
            try:
                await self._connection.call(
                    RobotServiceStub, "Log", LogRequest(id=self._part_id, logs=batch), timeout_s=timeout_s
                )
            except AppRefused as error:
                # Never sent again: the app would refuse the same batch for ever.
                logging.getLogger("gleaner.cloud").debug("the app refused %d log messages: %s", len(batch), error)
            except (AppError, asyncio.CancelledError):
                self._put_back(batch)
                raise

    def _put_back(self, batch: list[LogEntry]) -> None:
        room = MAX_QUEUED - len(self._queue)
        self.dropped += max(0, len(batch) - room)
        self._queue.extendleft(reversed(batch[-room:] if room > 0 else []))

    def _note(self, message: str) -> LogEntry:
        when = Timestamp()
        when.GetCurrentTime()
        return LogEntry(host=self._host, level="warn", time=when, logger_name="gleaner.cloud.logs", message=message)

    def _entry(self, record: logging.LogRecord) -> LogEntry:
        when = Timestamp()
        when.FromNanoseconds(int(record.created * 1e9))
        level = next(name for least, name in _LEVELS if record.levelno >= least)
        stack = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        caller = dict_to_struct({"File": record.pathname, "Line": record.lineno, "Function": record.funcName})
        return LogEntry(
            host=self._host,
            level=level,
            time=when,
            logger_name=record.name,
            message=record.getMessage(),
            caller=caller,
            stack=stack,
        )
