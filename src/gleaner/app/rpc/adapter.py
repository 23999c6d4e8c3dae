"""From gRPC to the services and back: who is calling, a worker thread for the work, errors as gRPC statuses.

A service file subclasses `Service` and one of viam-sdk's generated bases and decorates plain methods
`(self, caller, request) -> response` with `unary`. What it leaves out answers UNIMPLEMENTED with its name.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpclib import GRPCError, Status
from grpclib.const import Handler
from grpclib.server import Stream

from gleaner.app.caller import Caller
from gleaner.app.context import AppContext
from gleaner.app.errors import AppError

log = logging.getLogger("gleaner.app.rpc")

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Handle = Callable[[Any, "Stream[Any, Any]"], Coroutine[Any, Any, None]]


class Service:
    """What every service of the gRPC door has: the running app."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    def caller(self, metadata: Mapping[str, Any]) -> Caller:
        """Blocking. Raises Unauthenticated."""
        headers = {name: value for name, value in metadata.items() if isinstance(value, str)}
        return self.context.auth.caller_from_headers(headers)


def unary(method: Callable[[Any, Caller, Any], Message]) -> Handle:
    """A blocking method of one request and one response as a handler."""

    async def handle(self: Service, stream: Stream[Any, Any]) -> None:
        async with answering(stream):
            request = await stream.recv_message()
            metadata: Mapping[str, Any] = stream.metadata or {}

            def work() -> Message:
                return method(self, self.caller(metadata), request)

            await stream.send_message(await self.context.call(work))

    return handle


def stoppable(method: Callable[[Any, Caller, Any, threading.Event], Message]) -> Handle:
    """As `unary`, for what may take a minute: the event is set when the client is gone, so that nobody's work goes on."""

    async def handle(self: Service, stream: Stream[Any, Any]) -> None:
        async with answering(stream):
            request = await stream.recv_message()
            metadata: Mapping[str, Any] = stream.metadata or {}
            stop = threading.Event()

            def work() -> Message:
                return method(self, self.caller(metadata), request, stop)

            try:
                await stream.send_message(await self.context.call(work))
            except asyncio.CancelledError:
                stop.set()
                raise

    return handle


def streaming(method: Callable[[Any, Caller, Stream[Any, Any]], Awaitable[None]]) -> Handle:
    """An async method that reads or writes the stream itself, with the caller already known."""

    async def handle(self: Service, stream: Stream[Any, Any]) -> None:
        async with answering(stream):
            caller = await self.context.call(self.caller, stream.metadata or {})
            await method(self, caller, stream)

    return handle


@asynccontextmanager
async def answering(stream: Stream[Any, Any]) -> AsyncIterator[None]:
    """Turns what services raise into the status a client expects. A broken stream is neither caught nor committed."""
    try:
        yield
    except AppError as error:
        text = f"{error.message}. {error.hint}" if error.hint else error.message
        raise GRPCError(Status(error.grpc_status), text) from error


def named(service: Any) -> Any:
    """The service with a name in the answer of every method that it does not implement."""
    mapping: dict[str, Handler] = service.__mapping__()
    for path, handler in mapping.items():
        function = getattr(type(service), path.rsplit("/", 1)[1])
        if function.__qualname__.startswith("Unimplemented"):
            mapping[path] = handler._replace(func=_unimplemented(path))
    service.__mapping__ = lambda: mapping
    return service


def _unimplemented(path: str) -> Callable[[Stream[Any, Any]], Coroutine[Any, Any, None]]:
    async def answer(stream: Stream[Any, Any]) -> None:
        raise GRPCError(Status.UNIMPLEMENTED, f"{path.lstrip('/')} is not implemented by this app")

    return answer


def timestamp(time_ns: int | None) -> Timestamp | None:
    if not time_ns:
        return None
    return Timestamp(seconds=time_ns // 1_000_000_000, nanos=time_ns % 1_000_000_000)


def nanoseconds(stamp: Timestamp) -> int:
    return int(stamp.seconds) * 1_000_000_000 + int(stamp.nanos)
