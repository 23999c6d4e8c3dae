"""The object that stands in this process for a resource of another: a client of viam-sdk, or a nameless forwarder.

Handlers of viam-sdk pass their callers' metadata on as `metadata=…`, in a type that viam-sdk's clients do not take, so a
client cannot be served again as it is: here it drops that argument.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from grpclib import GRPCError, Status
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from viam.errors import ResourceNotFoundError
from viam.proto.common import DoCommandRequest, DoCommandResponse
from viam.resource.base import ResourceBase
from viam.resource.registry import Registry
from viam.resource.types import API
from viam.utils import dict_to_struct, struct_to_dict

from gleaner.machine.rpc.ml_models import MLMODEL_API, import_mlmodel


@dataclass(frozen=True)
class Route:
    """Where requests for a resource go on to: a connection, the name there, and whose words its errors are."""

    channel: Channel
    name: str
    owner: str
    """E.g. `module lidar`, for messages."""
    service: str = ""
    """The gRPC service of its API."""


class OpaqueResource:
    """A resource whose API this process does not know: requests are forwarded as bytes. Here it has its commands only,
    which every API of Viam has under the same name."""

    def __init__(self, route: Route) -> None:
        self.name = route.name
        self._command = UnaryUnaryMethod(
            route.channel, f"/{route.service}/DoCommand", DoCommandRequest, DoCommandResponse
        )

    async def do_command(
        self, command: Mapping[str, Any], *, timeout: float | None = None, **_: Any
    ) -> Mapping[str, Any]:
        request = DoCommandRequest(name=self.name, command=dict_to_struct(command))
        return struct_to_dict((await self._command(request, timeout=timeout)).result)


def make_resource(api: str, route: Route, on_close: Callable[[], Awaitable[None]]) -> ResourceBase:
    """A client for the API where viam-sdk has one; `on_close` is awaited when the machine is done with it."""
    resource: Any
    if api == MLMODEL_API:
        import_mlmodel()
    try:
        registration = Registry.lookup_api(API.from_string(api))
    except ResourceNotFoundError:
        resource = OpaqueResource(route)
    else:
        client: Any = type(registration.create_rpc_client(route.name, route.channel))
        resource = _servable(client)(route.name, route.channel)
    resource.route = route
    resource.close = on_close
    made: ResourceBase = resource
    return made


def route_of(resource: Any) -> Route | None:
    """None for resources of this process."""
    route = getattr(resource, "route", None)
    return route if isinstance(route, Route) else None


@cache
def _servable(client: type[Any]) -> type[Any]:
    """A subclass whose calls drop `metadata`."""
    calls: dict[str, Any] = {}
    for name in dir(client):
        call = getattr(client, name, None)
        if not name.startswith("_") and inspect.iscoroutinefunction(call):
            calls[name] = _without_metadata(call)
    return type(client.__name__, (client,), calls)


def _without_metadata(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(call)
    async def called(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("metadata", None)
        return await call(*args, **kwargs)

    return called


async def call_process(owner: str, call: Any, request: Any, timeout_s: float) -> Any:
    """One unary call to another process. Raises ProcessSilent when there is no answer, else GRPCError as it answered."""
    try:
        return await call(request, timeout=timeout_s)
    except TimeoutError as error:
        raise ProcessSilent(f"{owner} did not answer {_method(call)} within {timeout_s:g} s") from error
    except GRPCError as error:
        if error.status is Status.DEADLINE_EXCEEDED:
            raise ProcessSilent(f"{owner} did not answer {_method(call)} within {timeout_s:g} s") from error
        raise
    except (OSError, StreamTerminatedError, ProtocolError) as error:
        raise ProcessSilent(f"{owner} cannot be reached: {reason_of(error)}") from error


class ProcessSilent(Exception):
    """No answer: the process is gone, busy or not there yet."""


def reason_of(error: BaseException) -> str:
    return str(getattr(error, "strerror", "") or error or type(error).__name__)


def _method(call: Any) -> str:
    return str(getattr(call, "name", "")).rpartition("/")[2]
