"""Machine parts: configuration, history, secrets, logs, restart."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from grpclib.server import Stream
from viam.gen.app.v1 import app_pb2 as pb
from viam.gen.common.v1.common_pb2 import LogEntry

from gleaner.app.caller import Caller
from gleaner.app.errors import Conflict, InvalidInput
from gleaner.app.rpc.adapter import Service, nanoseconds, streaming, timestamp, unary
from gleaner.app.rpc.app_fleet import online_state, seconds_since
from gleaner.app.services.fleet_config import SavedConfig
from gleaner.app.services.fleet_setup import cloud_section
from gleaner.app.services.fleet_values import Part
from gleaner.app.services.logs import LogLine

#: One microsecond: a client's `last_known_update` may have lost nanoseconds on its way through a datetime.
_SAME_NS = 1_000
_TAIL_POLL_S = 1.0


class PartMethods(Service):
    @unary
    def GetRobotParts(self, caller: Caller, request: pb.GetRobotPartsRequest) -> pb.GetRobotPartsResponse:
        machine = self.context.fleet.machine(caller, request.robot_id)
        return pb.GetRobotPartsResponse(parts=[self._message(part) for part in machine.parts])

    @unary
    def GetRobotPart(self, caller: Caller, request: pb.GetRobotPartRequest) -> pb.GetRobotPartResponse:
        part = self.context.fleet.part(caller, request.id)
        config = self.context.fleet.configs.current(part.id).config
        return pb.GetRobotPartResponse(part=self._message(part), config_json=json.dumps(config, indent=2))

    @unary
    def UpdateRobotPart(self, caller: Caller, request: pb.UpdateRobotPartRequest) -> pb.UpdateRobotPartResponse:
        """`robot_config_json` wins over `robot_config`. A stale `last_known_update` is refused."""
        part = self.context.fleet.part(caller, request.id, owner=True)
        saved = self.context.fleet.configs.current(part.id)
        known = nanoseconds(request.last_known_update) if request.HasField("last_known_update") else 0
        if known and known + _SAME_NS < (saved.saved_ns or 0):
            raise Conflict("the configuration was changed in the meantime", "Read the part again, then change it.")
        if request.name and request.name != part.name:
            self.context.fleet.rename_part(caller, part.id, request.name)
        config = _config_of(request)
        if config is not None:
            self.context.fleet.put_config(caller, part.id, config, saved.revision)
        return pb.UpdateRobotPartResponse(part=self._message(self.context.fleet.part(caller, part.id)))

    @unary
    def NewRobotPart(self, caller: Caller, request: pb.NewRobotPartRequest) -> pb.NewRobotPartResponse:
        made = self.context.fleet.create_part(caller, request.robot_id, request.part_name)
        return pb.NewRobotPartResponse(part_id=made.id)

    @unary
    def DeleteRobotPart(self, caller: Caller, request: pb.DeleteRobotPartRequest) -> pb.DeleteRobotPartResponse:
        self.context.fleet.delete_part(caller, request.part_id)
        return pb.DeleteRobotPartResponse()

    @unary
    def MarkPartAsMain(self, caller: Caller, request: pb.MarkPartAsMainRequest) -> pb.MarkPartAsMainResponse:
        self.context.fleet.mark_main(caller, request.part_id)
        return pb.MarkPartAsMainResponse()

    @unary
    def MarkPartForRestart(
        self, caller: Caller, request: pb.MarkPartForRestartRequest
    ) -> pb.MarkPartForRestartResponse:
        self.context.fleet.request_restart(caller, request.part_id)
        self.context.links.notify(request.part_id, {"type": "restart"})
        return pb.MarkPartForRestartResponse()

    @unary
    def CreateRobotPartSecret(
        self, caller: Caller, request: pb.CreateRobotPartSecretRequest
    ) -> pb.CreateRobotPartSecretResponse:
        """The only answer that ever holds the secret."""
        secret = self.context.fleet.new_secret(caller, request.part_id)
        message = self._message(self.context.fleet.part(caller, request.part_id))
        message.secret = secret
        newest = self.context.fleet.secrets(request.part_id)[0]
        state = pb.SharedSecret.State.STATE_ENABLED
        message.secrets.add(id=newest[0], secret=secret, created_on=timestamp(newest[1]), state=state)
        return pb.CreateRobotPartSecretResponse(part=message)

    @unary
    def DeleteRobotPartSecret(
        self, caller: Caller, request: pb.DeleteRobotPartSecretRequest
    ) -> pb.DeleteRobotPartSecretResponse:
        self.context.fleet.delete_secret(caller, request.part_id, request.secret_id)
        return pb.DeleteRobotPartSecretResponse()

    @unary
    def GetRobotPartHistory(
        self, caller: Caller, request: pb.GetRobotPartHistoryRequest
    ) -> pb.GetRobotPartHistoryResponse:
        """Newest first; `old` is the configuration that was replaced."""
        part = self.context.fleet.part(caller, request.id)
        versions = self.context.fleet.configs.history(part.id)
        entries = []
        for saved, before in zip(versions, [*versions[1:], None], strict=True):
            old = self._message(part, before) if before else None
            entries.append(
                pb.RobotPartHistoryEntry(
                    part=part.id,
                    robot=part.machine_id,
                    when=timestamp(saved.saved_ns),
                    old=old,
                    edited_by=pb.AuthenticatorInfo(value=saved.edited_by),
                )
            )
        return pb.GetRobotPartHistoryResponse(history=entries)

    @unary
    def GetRobotPartLogs(self, caller: Caller, request: pb.GetRobotPartLogsRequest) -> pb.GetRobotPartLogsResponse:
        token = request.page_token
        if token and not token.isdecimal():
            raise InvalidInput(f"{token!r} is no page marker", "Send next_page_token as the previous page gave it.")
        page = self.context.logs.page(
            caller,
            request.id,
            levels=["error"] if request.errors_only else list(request.levels),
            search=request.filter,
            before=int(token) if token else None,
            start_ns=nanoseconds(request.start) if request.HasField("start") else 0,
            end_ns=nanoseconds(request.end) if request.HasField("end") else 0,
            limit=request.limit or 100,
        )
        return pb.GetRobotPartLogsResponse(
            logs=[_entry(line) for line in page.lines], next_page_token=str(page.next or "")
        )

    @streaming
    async def TailRobotPartLogs(self, caller: Caller, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        if request is None:
            raise InvalidInput("no part was named", "Send the part's id.")
        levels = ["error"] if request.errors_only else []
        after = -1
        while True:
            page = await self.context.call(
                self.context.logs.page, caller, request.id, levels=levels, search=request.filter, limit=1000
            )
            new = [line for line in page.lines if line.id > after]
            if after < 0:
                new = new[:100]
            if new:
                await stream.send_message(pb.TailRobotPartLogsResponse(logs=[_entry(line) for line in new]))
                after = new[0].id
            await asyncio.sleep(_TAIL_POLL_S)

    def _message(self, part: Part, saved: SavedConfig | None = None) -> pb.RobotPart:
        """The part with its current configuration, or with an older one. Never with a secret."""
        saved = saved or self.context.fleet.configs.current(part.id)
        place = self.context.fleet.place(part.id)
        cloud = cloud_section(place, self.context.addresses) if place else {}
        config, info = Struct(), Struct()
        config.update(saved.config)
        info.update(part.info)
        return pb.RobotPart(
            id=part.id,
            name=part.name,
            robot=part.machine_id,
            location_id=place.location_id if place else "",
            fqdn=cloud.get("fqdn", ""),
            local_fqdn=cloud.get("local_fqdn", ""),
            robot_config=config,
            robot_config_json=json.dumps(saved.config),
            user_supplied_info=info,
            main_part=part.is_main,
            last_access=timestamp(part.last_seen_ns),
            created_on=timestamp(part.created_ns),
            last_updated=timestamp(saved.saved_ns),
            online_state=online_state(part.online_state),
            seconds_since_online=seconds_since(part.last_seen_ns),
        )


def _config_of(request: pb.UpdateRobotPartRequest) -> dict[str, Any] | None:
    if request.HasField("robot_config_json") and request.robot_config_json:
        try:
            config = json.loads(request.robot_config_json)
        except ValueError as error:
            raise InvalidInput(f"robot_config_json is not JSON: {error}", "Check brackets and commas.") from error
        if not isinstance(config, dict):
            raise InvalidInput("robot_config_json is not a JSON object", 'Start from {"components": []}.')
        return config
    return _whole_numbers(MessageToDict(request.robot_config)) if request.HasField("robot_config") else None


def _whole_numbers(value: Any) -> Any:
    """A Struct knows only floats: 640.0 is the 640 that someone wrote."""
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _entry(line: LogLine) -> LogEntry:
    return LogEntry(level=line.level, time=timestamp(line.time_ns), logger_name=line.logger, message=line.message)
