"""`proto.rpc.v1.AuthService`: a bearer token for an API key or a part secret."""

from __future__ import annotations

from typing import Any

from grpclib import GRPCError, Status
from grpclib.server import Stream
from viam.gen.proto.rpc.v1.auth_grpc import UnimplementedAuthServiceBase
from viam.gen.proto.rpc.v1.auth_pb2 import AuthenticateResponse

from gleaner.app.rpc.adapter import Service, answering


class AuthRpc(Service, UnimplementedAuthServiceBase):
    async def Authenticate(self, stream: Stream[Any, Any]) -> None:
        async with answering(stream):
            request = await stream.recv_message()
            if request is None:
                raise GRPCError(Status.INVALID_ARGUMENT, "no credentials were sent")
            given = request.credentials
            token = await self.context.call(self.context.auth.authenticate, given.type, request.entity, given.payload)
            await stream.send_message(AuthenticateResponse(access_token=token))
