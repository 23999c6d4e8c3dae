"""`viam.app.v1.RobotService`: what a machine asks of its app (configuration, logs, restart, certificate)."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from grpclib.server import Stream
from viam.gen.app.v1 import robot_pb2 as pb
from viam.gen.app.v1.robot_grpc import UnimplementedRobotServiceBase

from gleaner.app.caller import Caller
from gleaner.app.context import AppContext
from gleaner.app.errors import InvalidInput
from gleaner.app.rpc.adapter import Service, nanoseconds, streaming, unary
from gleaner.app.rpc.certificates import MachineCertificates
from gleaner.app.services.fleet_setup import cloud_section
from gleaner.app.services.fleet_values import Place
from gleaner.app.services.logs import NewLine
from gleaner.app.services.tokens import new_secret
from gleaner.wire.link import WEB_ADDRESS_HEADER
from gleaner.wire.machine_config import ConfigProblem
from gleaner.wire.robot_config import to_proto

_RESTART_CHECK_S = 5
_MOST_LINES = 1000


class RobotRpc(Service, UnimplementedRobotServiceBase):
    def __init__(self, context: AppContext) -> None:
        super().__init__(context)
        self._certificates = MachineCertificates()

    @streaming
    async def Config(self, caller: Caller, stream: Stream[Any, Any]) -> None:
        """Says the web door in a header: Viam's machine.json knows `app_address` only, and its message has no room."""
        request = await stream.recv_message()
        if request is None:
            raise InvalidInput("nothing was asked for", "Send the part's id.")
        message = await self.context.call(self._config, caller, request)
        await stream.send_initial_metadata(metadata={WEB_ADDRESS_HEADER: self.context.addresses.web})
        await stream.send_message(message)

    def _config(self, caller: Caller, request: pb.ConfigRequest) -> pb.ConfigResponse:
        place = self._place(caller, request.id)
        # A script may look at the configuration with an owner's key; only machines tell about themselves.
        if caller.part_id or request.HasField("agent_info"):
            self.context.fleet.heard_from(place.part_id, _info(request.agent_info))
        saved = self.context.fleet.configs.served(place.part_id)
        try:
            message = to_proto(saved.config)
        except ConfigProblem as error:
            raise InvalidInput(str(error), "Correct the configuration on the machine's CONFIGURE tab.") from error
        message.revision = saved.revision
        self._fill_cloud(message.cloud, place)
        return pb.ConfigResponse(config=message)

    @unary
    def Log(self, caller: Caller, request: pb.LogRequest) -> pb.LogResponse:
        place = self._place(caller, request.id)
        if len(request.logs) > _MOST_LINES:
            raise InvalidInput(f"{len(request.logs)} log entries in one call", f"Send at most {_MOST_LINES}.")
        lines = [
            NewLine(nanoseconds(entry.time), entry.level, entry.logger_name, _message(entry)) for entry in request.logs
        ]
        self.context.logs.append(caller, place.part_id, lines)
        self.context.fleet.heard_from(place.part_id)
        return pb.LogResponse()

    @unary
    def NeedsRestart(self, caller: Caller, request: pb.NeedsRestartRequest) -> pb.NeedsRestartResponse:
        place = self._place(caller, request.id)
        must = self.context.fleet.take_restart(place.part_id)
        every = Duration(seconds=_RESTART_CHECK_S)
        return pb.NeedsRestartResponse(id=place.part_id, must_restart=must, restart_check_interval=every)

    @unary
    def Certificate(self, caller: Caller, request: pb.CertificateRequest) -> pb.CertificateResponse:
        """Self-signed: for the machine's own listener. Clients that pin or verify it get it from the machine."""
        place = self._place(caller, request.id)
        cloud = cloud_section(place, self.context.addresses)
        made = self._certificates.get(place.part_id, [cloud["fqdn"], cloud["local_fqdn"], "localhost"])
        return pb.CertificateResponse(id=place.part_id, tls_certificate=made.certificate, tls_private_key=made.key)

    def _place(self, caller: Caller, part_id: str) -> Place:
        """A part may leave its id out; keys of owners may ask for their machines, as a script does."""
        part_id = part_id or caller.part_id
        if caller.part_id != part_id:
            self.context.fleet.part(caller, part_id, owner=True)
        place = self.context.fleet.place(part_id)
        assert place is not None  # checked by `part`, or by the caller's own secret
        return place

    def _fill_cloud(self, cloud: pb.CloudConfig, place: Place) -> None:
        """viam-server wants names, and at least one location secret; nobody can log in with the one it gets."""
        section = cloud_section(place, self.context.addresses)
        for name in ("id", "fqdn", "local_fqdn", "primary_org_id", "location_id", "machine_id"):
            setattr(cloud, name, section[name])
        cloud.signaling_address = self.context.addresses.grpc.partition("://")[2]
        cloud.signaling_insecure = not self.context.addresses.tls
        unused = new_secret()
        cloud.location_secrets.append(pb.LocationSecret(id="unused", secret=unused))
        cloud.location_secret = unused


def _info(agent: pb.AgentInfo) -> dict[str, Any]:
    return {
        "version": agent.version,
        "host": agent.host,
        "os": agent.os,
        "platform": agent.platform,
        "ips": list(agent.ips),
    }


def _message(entry: Any) -> str:
    return f"{entry.message}\n{entry.stack}" if entry.stack else str(entry.message)
