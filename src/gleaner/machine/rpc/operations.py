"""The requests that are running now: listed, cancelled and waited for by id."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from grpclib import GRPCError, Status

#: Arguments larger than this (uploads, images) are listed without their content.
_MAX_LISTED_BYTES = 16 * 1024


@dataclass(eq=False)
class Operation:
    method: str
    task: asyncio.Task[Any]
    session_id: str = ""
    id: str = field(default_factory=lambda: str(uuid4()))
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    request: Any = None
    cancelled: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def arguments(self) -> dict[str, Any]:
        if not isinstance(self.request, Message) or self.request.ByteSize() > _MAX_LISTED_BYTES:
            return {}
        return dict(MessageToDict(self.request, preserving_proto_field_name=True))


class Operations:
    def __init__(self) -> None:
        self._running: dict[str, Operation] = {}

    def begin(self, method: str, session_id: str) -> Operation:
        task = asyncio.current_task()
        assert task is not None
        operation = Operation(method, task, session_id)
        self._running[operation.id] = operation
        return operation

    def end(self, operation: Operation) -> None:
        self._running.pop(operation.id, None)
        operation.done.set()

    def running(self) -> list[Operation]:
        return list(self._running.values())

    def cancel(self, operation_id: str) -> None:
        """Its caller gets CANCELLED."""
        operation = self._get(operation_id)
        operation.cancelled = True
        operation.task.cancel()

    async def wait_for(self, operation_id: str) -> None:
        await self._get(operation_id).done.wait()

    def _get(self, operation_id: str) -> Operation:
        if operation_id not in self._running:
            raise GRPCError(Status.NOT_FOUND, f"operation {operation_id!r} is not running: it ended, or never was")
        return self._running[operation_id]
