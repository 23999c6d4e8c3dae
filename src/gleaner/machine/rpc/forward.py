"""Requests for resources of other processes, passed on as they are: known APIs, streams, and APIs nobody here knows.

A request of an unknown API travels as bytes. Every request of Viam's APIs names its resource in a text field; which one it
is, is told by its content: the first that names a resource of that API here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.internal.decoder import _DecodeVarint  # type: ignore[attr-defined]
from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[attr-defined]
from google.protobuf.message import DecodeError
from grpclib import GRPCError, Status
from grpclib.client import Stream as ClientStream
from grpclib.const import Cardinality, Handler
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from grpclib.server import Stream

from gleaner.machine.foreign.resource import Route, reason_of

AnyStream = Stream[Any, Any]

#: Headers of one hop; everything else that a caller sends is the resource's business.
_HOP_HEADERS = ("authorization", "viam-sid", "host", "user-agent", "te", "content-type", "connection", "trailer")


class RawMessage:
    """A message whose type this process does not know, for grpclib's codec."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @classmethod
    def FromString(cls, data: bytes) -> RawMessage:
        return cls(data)

    def SerializeToString(self) -> bytes:
        return self.data


class Methods(dict[str, Handler]):
    """A server's methods by path, and any method of the services that `is_known` says to be someone else's."""

    def __init__(self, known: Mapping[str, Handler], is_foreign: Callable[[str], bool]) -> None:
        super().__init__(known)
        self._is_foreign = is_foreign

    def get(self, path: str, default: Any = None) -> Any:
        found = super().get(path)
        if found is None and self._is_foreign(path.split("/")[1] if path.count("/") == 2 else ""):
            # Every kind of call fits in a call of streams.
            return Handler(_refuse, Cardinality.STREAM_STREAM, RawMessage, RawMessage)
        return default if found is None else found


async def _refuse(_stream: AnyStream) -> None:
    raise GRPCError(Status.UNKNOWN, "the request names no resource of this machine: check the resource's name")


def resource_name_in(request: Any, names: Iterable[str]) -> str:
    """The name of the resource that a request is for; empty when it names none."""
    if not isinstance(request, RawMessage):
        return str(getattr(request, "name", ""))
    known = set(names)
    return next((text for _start, _end, text in _texts(request.data) if text in known), "")


def renamed(request: Any, old: str, new: str) -> Any:
    """The request for the resource's name where it lives."""
    if old == new:
        return request
    if not isinstance(request, RawMessage):
        request.name = new
        return request
    for start, end, text in _texts(request.data):
        if text == old:
            body = new.encode()
            return RawMessage(request.data[:start] + _VarintBytes(len(body)) + body + request.data[end:])
    return request


def _texts(data: bytes) -> Iterator[tuple[int, int, str]]:
    """(where its length begins, where it ends, text) of each length-delimited field that is text."""
    at = 0
    try:
        while at < len(data):
            tag, at = _DecodeVarint(data, at)
            kind = tag & 7
            if kind == 2:
                length, body = _DecodeVarint(data, at)
                text = data[body : body + length]
                if text.isascii() or _is_utf8(text):
                    yield at, body + length, text.decode()
                at = body + length
            elif kind == 0:
                _, at = _DecodeVarint(data, at)
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:
                return  # groups are not used by any of Viam's APIs
    except (IndexError, DecodeError):
        return


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


async def forward(stream: AnyStream, method: str, first: Any, route: Route, name: str) -> None:
    """Answers a call with what the resource's own process answers. `name` is what the caller calls the resource."""
    kind = stream._cardinality  # grpclib has no public name for these three
    request_type, reply_type = stream._recv_type, stream._send_type
    metadata = {
        key: value
        for key, value in (stream.metadata or {}).items()
        if key not in _HOP_HEADERS and not key.startswith((":", "grpc-"))
    }
    deadline = stream.deadline
    request = route.channel.request(method, kind, request_type, reply_type, deadline=deadline, metadata=metadata)
    try:
        async with request as onward:
            await onward.send_message(renamed(first, name, route.name), end=not kind.client_streaming)
            requests = (
                asyncio.create_task(_pass_requests(stream, onward, route, name)) if kind.client_streaming else None
            )
            try:
                async for reply in onward:
                    await _send(stream, reply)
            finally:
                if requests is not None:
                    requests.cancel()
                    await asyncio.gather(requests, return_exceptions=True)
    except _CallerLeft as left:
        raise left.error from left
    except (OSError, StreamTerminatedError, ProtocolError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise GRPCError(Status.UNAVAILABLE, f"{route.owner} does not answer: {reason_of(error)}") from error


class _CallerLeft(Exception):
    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


async def _send(stream: AnyStream, reply: Any) -> None:
    try:
        await stream.send_message(reply)
    except (OSError, StreamTerminatedError, ProtocolError) as error:
        raise _CallerLeft(error) from error


async def _pass_requests(stream: AnyStream, onward: ClientStream[Any, Any], route: Route, name: str) -> None:
    while (message := await stream.recv_message()) is not None:
        await onward.send_message(renamed(message, name, route.name))
    await onward.end()
