"""The request of a unary call."""

from __future__ import annotations

from typing import Any, TypeVar

from grpclib import GRPCError, Status
from grpclib.server import Stream

Request = TypeVar("Request")


async def receive(stream: Stream[Request, Any]) -> Request:
    """Raises INVALID_ARGUMENT when the client closed the call without sending a message."""
    request = await stream.recv_message()
    if request is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "the call ended before its request message arrived")
    return request
