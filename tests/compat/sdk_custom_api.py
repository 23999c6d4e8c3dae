"""An API of its own, as a module's author defines one with viam-sdk; only modules import it, never the machine or a test.

Its messages are Viam's own, to spare a compiler for them; the service is one that nobody else knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream
from viam.components.component_base import ComponentBase
from viam.proto.common import DoCommandRequest, DoCommandResponse
from viam.resource.easy_resource import EasyResource
from viam.resource.registry import Registry, ResourceRegistration
from viam.resource.rpc_client_base import ReconfigurableResourceRPCClientBase
from viam.resource.rpc_service_base import ResourceRPCServiceBase
from viam.resource.types import API, Model
from viam.utils import dict_to_struct, struct_to_dict

SERVICE = "acme.component.greeter.v1.GreeterService"


class Greeter(ComponentBase):
    API = API("acme", "component", "greeter")

    async def greet(self, whom: str) -> str:
        raise NotImplementedError


class GreeterRPCService(ResourceRPCServiceBase[Greeter]):
    RESOURCE_TYPE = Greeter

    async def Greet(self, stream: Stream[DoCommandRequest, DoCommandResponse]) -> None:
        request = await stream.recv_message()
        assert request is not None
        said = await self.get_resource(request.name).greet(struct_to_dict(request.command)["whom"])
        await stream.send_message(DoCommandResponse(result=dict_to_struct({"said": said})))

    async def Repeat(self, stream: Stream[DoCommandRequest, DoCommandResponse]) -> None:
        request = await stream.recv_message()
        assert request is not None
        for number in range(3):
            await stream.send_message(DoCommandResponse(result=dict_to_struct({"number": number})))

    async def DoCommand(self, stream: Stream[DoCommandRequest, DoCommandResponse]) -> None:
        request = await stream.recv_message()
        assert request is not None
        result = await self.get_resource(request.name).do_command(struct_to_dict(request.command))
        await stream.send_message(DoCommandResponse(result=dict_to_struct(result)))

    def __mapping__(self) -> dict[str, Handler]:
        unary, streaming = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        calls = {"Greet": (self.Greet, unary), "Repeat": (self.Repeat, streaming), "DoCommand": (self.DoCommand, unary)}
        return {
            f"/{SERVICE}/{name}": Handler(call, kind, DoCommandRequest, DoCommandResponse)
            for name, (call, kind) in calls.items()
        }


class GreeterClient(Greeter, ReconfigurableResourceRPCClientBase):
    def __init__(self, name: str, channel: Channel) -> None:
        self.channel = channel
        super().__init__(name)

    async def greet(self, whom: str) -> str:
        call = UnaryUnaryMethod(self.channel, f"/{SERVICE}/Greet", DoCommandRequest, DoCommandResponse)
        answer = await call(DoCommandRequest(name=self.name, command=dict_to_struct({"whom": whom})))
        return str(struct_to_dict(answer.result)["said"])


Registry.register_api(ResourceRegistration(Greeter, GreeterRPCService, GreeterClient))


class Polite(Greeter, EasyResource):
    MODEL = Model.from_string("acme:test:polite")

    async def greet(self, whom: str) -> str:
        if whom == "nobody":
            raise ValueError("nobody is there")
        return f"Good day, {whom}!"

    async def do_command(self, command: Mapping[str, Any], **_: Any) -> Mapping[str, Any]:
        return {"greeter": self.name, **command}
