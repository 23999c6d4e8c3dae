"""What every request passes: authentication, operation id, session, the limit per resource, and clear errors."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any, cast

from grpclib import GRPCError, Status
from grpclib.events import RecvRequest, SendInitialMetadata, listen
from grpclib.exceptions import StreamTerminatedError
from grpclib.server import Server, Stream
from h2.exceptions import StreamClosedError

from gleaner.machine.names import ResourceKey
from gleaner.machine.rpc.apis import is_safety_monitored, service_apis
from gleaner.machine.rpc.auth import Authenticator
from gleaner.machine.rpc.errors import to_grpc_error
from gleaner.machine.rpc.forward import Methods, RawMessage, forward, resource_name_in
from gleaner.machine.rpc.operations import Operation, Operations
from gleaner.machine.rpc.resources import GraphResources
from gleaner.machine.rpc.sessions import Sessions

AnyStream = Stream[Any, Any]
_Handle = Callable[[AnyStream], Coroutine[Any, Any, None]]

SESSION_HEADER = "viam-sid"
MONITORED_HEADER = "viam-smrn"
OPERATION_HEADER = "opid"

#: Source: Viam's documented default of VIAM_RESOURCE_REQUESTS_LIMIT.
MAX_REQUESTS_PER_RESOURCE = 100

_PUBLIC_PREFIXES = ("/proto.rpc.v1.AuthService/", "/proto.rpc.webrtc.v1.", "/grpc.reflection.")
_reply_headers: ContextVar[dict[str, str] | None] = ContextVar("reply_headers", default=None)
_entity: ContextVar[str] = ContextVar("entity", default="")


def current_entity() -> str:
    """Who made the request that is being handled: a key id, a part id, `module:<name>`, or empty on the private socket."""
    return _entity.get()


def session_of(stream: AnyStream) -> str:
    """The session id in the request's headers, or empty."""
    return str(stream.metadata.get(SESSION_HEADER, "")) if stream.metadata else ""


class RequestGate:
    def __init__(
        self,
        operations: Operations,
        sessions: Sessions,
        resources: GraphResources,
        foreign_services: Callable[[], Mapping[str, str]],
    ) -> None:
        """`foreign_services` are gRPC services that only modules and remotes have, with their APIs."""
        self._operations = operations
        self._sessions = sessions
        self._resources = resources
        self._foreign_services = foreign_services
        self._in_flight: Counter[ResourceKey] = Counter()

    def guard(self, server: Server, authenticator: Authenticator | None, caller: str = "") -> None:
        """Put this gate in front of a server; without an authenticator every request is let in, as `caller`."""
        inner: Any = server  # grpclib has no public way to answer methods that are not known when the server is made
        inner._mapping = Methods(inner._mapping, lambda service: service in self._foreign_services())

        async def on_request(event: RecvRequest) -> None:
            entity = caller
            if authenticator is not None and not event.method_name.startswith(_PUBLIC_PREFIXES):
                entity = authenticator.authorize(str(event.metadata.get("authorization", "")))
            _entity.set(entity)
            event.method_func = cast(Any, self._wrap(event.method_name, event.method_func))

        listen(server, RecvRequest, on_request)
        listen(server, SendInitialMetadata, _add_reply_headers)

    def _wrap(self, method: str, handle: _Handle) -> _Handle:
        service = method.split("/")[1]
        api = service_apis().get(service) or self._foreign_services().get(service)
        return self._resource_call(method, api, handle) if api else self._plain_call(method, handle)

    @staticmethod
    def _plain_call(method: str, handle: _Handle) -> _Handle:
        async def call(stream: AnyStream) -> None:
            try:
                await handle(stream)
            except StreamTerminatedError:
                raise
            except StreamClosedError:
                raise asyncio.CancelledError from None  # the caller left while the answer was sent
            except Exception as error:
                raise to_grpc_error(error, method, "") from error

        return call

    def _resource_call(self, method: str, api: str, handle: _Handle) -> _Handle:
        async def call(stream: AnyStream) -> None:
            session_id = session_of(stream)
            if session_id:
                self._sessions.check(session_id, current_entity())
            operation = self._operations.begin(method, session_id)
            _reply_headers.set({OPERATION_HEADER: operation.id})
            keys: list[ResourceKey] = []
            self._watch_request(stream, api, operation, keys)
            try:
                await self._serve(stream, method, api, handle)
            except StreamTerminatedError:
                raise
            except asyncio.CancelledError:
                if not operation.cancelled:
                    raise
                operation.task.uncancel()
                raise GRPCError(Status.CANCELLED, f"operation {operation.id} was cancelled") from None
            except StreamClosedError:
                raise asyncio.CancelledError from None  # the caller left while the answer was sent
            except Exception as error:
                raise to_grpc_error(error, method, str(keys[0]) if keys else "") from error
            finally:
                self._in_flight.subtract(keys)
                self._operations.end(operation)

        return call

    async def _serve(self, stream: AnyStream, method: str, api: str, handle: _Handle) -> None:
        """Here, or in the process of the module or remote whose resource is meant."""
        first = await stream.recv_message()
        if first is not None:
            name = resource_name_in(first, self._resources.names(api) if isinstance(first, RawMessage) else ())
            route = self._resources.foreign_route(api, name)
            if route is not None:
                await forward(stream, method, first, route, name)
                return
            if isinstance(first, RawMessage) and name:
                raise self._resources.missing(ResourceKey(api, name))
        receive, pending = stream.recv_message, [first]

        async def again() -> Any:
            return pending.pop() if pending else await receive()

        stream.recv_message = again  # type: ignore[method-assign]
        await handle(stream)

    def _watch_request(self, stream: AnyStream, api: str, operation: Operation, keys: list[ResourceKey]) -> None:
        """The resource is named in the first message, so that is where the limit and the session apply."""
        receive = stream.recv_message

        async def first_message() -> Any:
            message = await receive()
            if operation.request is None and message is not None:
                operation.request = message
                names = self._resources.names(api) if isinstance(message, RawMessage) else ()
                self._enter(ResourceKey(api, resource_name_in(message, names)), operation, keys)
            return message

        stream.recv_message = first_message  # type: ignore[method-assign]

    def _enter(self, key: ResourceKey, operation: Operation, keys: list[ResourceKey]) -> None:
        if self._in_flight[key] >= MAX_REQUESTS_PER_RESOURCE:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"{key} has {MAX_REQUESTS_PER_RESOURCE} requests running: wait for answers before sending more",
            )
        self._in_flight[key] += 1
        keys.append(key)
        if is_safety_monitored(operation.method):
            self._sessions.moved(operation.session_id, key)
            headers = _reply_headers.get()
            if headers is not None:
                headers[MONITORED_HEADER] = str(key)


async def _add_reply_headers(event: SendInitialMetadata) -> None:
    event.metadata.update(_reply_headers.get() or {})
