"""`viam.robot.v1.RobotService`: everything that makes sense for a machine without tunnels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpclib import GRPCError, Status
from grpclib.server import Stream
from viam.proto import robot as pb
from viam.proto.common import ResourceName
from viam.utils import dict_to_struct, resource_names_for_resource, struct_to_dict
from viam.version_metadata import API_VERSION

from gleaner import __version__
from gleaner.machine.cloud.uploads import PathUploader
from gleaner.machine.graph import ResourceGraph
from gleaner.machine.host import MachineHost
from gleaner.machine.modules.manager import ModuleManager, NoSuchModule
from gleaner.machine.names import ResourceKey
from gleaner.machine.node import Node
from gleaner.machine.rpc.apis import service_apis
from gleaner.machine.rpc.frame_system import frame_system_parts
from gleaner.machine.rpc.gate import current_entity, session_of
from gleaner.machine.rpc.operations import Operations
from gleaner.machine.rpc.sessions import Sessions
from gleaner.machine.rpc.stop import stop_everything
from gleaner.machine.rpc.streams import receive
from gleaner.machine.status import PackageReports

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
#: How requests of a module are told from others: `module:<name>`.
MODULE_CALLER = "module:"

_PACKAGE_TYPES = {"archive": 1, "ml_model": 2, "module": 3, "slam_map": 4}


@dataclass
class RobotContext:
    """What the service shows and commands."""

    host: MachineHost
    graph: ResourceGraph
    packages: PackageReports
    operations: Operations
    sessions: Sessions
    shutdown: Callable[[], None]
    modules: ModuleManager
    is_initializing: Callable[[], bool] = lambda: False
    foreign_services: Callable[[], Mapping[str, str]] = dict
    """gRPC service → API of what only modules and remotes have."""
    remote_parts: Callable[[], Sequence[pb.FrameSystemConfig]] = list
    uploader: PathUploader | None = None
    """None without an app."""
    configured_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class RobotRPCService(pb.UnimplementedRobotServiceBase):
    def __init__(self, context: RobotContext) -> None:
        self._context = context

    # -- what there is ------------------------------------------------------------------------------------------

    async def ResourceNames(self, stream: Stream[pb.ResourceNamesRequest, pb.ResourceNamesResponse]) -> None:
        await receive(stream)
        names = []
        for node in self._context.graph.nodes:
            if node.instance is not None:
                for name in _names(node):
                    if name not in names:
                        names.append(name)
        await stream.send_message(pb.ResourceNamesResponse(resources=names))

    async def ResourceRPCSubtypes(
        self, stream: Stream[pb.ResourceRPCSubtypesRequest, pb.ResourceRPCSubtypesResponse]
    ) -> None:
        await receive(stream)
        context = self._context
        services = {api: service for service, api in {**context.foreign_services(), **service_apis()}.items()}
        keys = {node.key.api: node.key for node in context.graph.nodes if node.key.api in services}
        subtypes = []
        for api, key in keys.items():
            name = key.to_proto()
            name.name = ""
            subtypes.append(pb.ResourceRPCSubtype(subtype=name, proto_service=services[api]))
        await stream.send_message(pb.ResourceRPCSubtypesResponse(resource_rpc_subtypes=subtypes))

    async def GetMachineStatus(self, stream: Stream[pb.GetMachineStatusRequest, pb.GetMachineStatusResponse]) -> None:
        await receive(stream)
        context = self._context
        states = pb.GetMachineStatusResponse
        resources = [
            pb.ResourceStatus(
                name=node.key.to_proto(),
                state=cast(Any, node.state.value),
                last_updated=_timestamp(node.last_updated),
                revision=node.revision,
                error=node.error,
                cloud_metadata=self._cloud_metadata(),
                reachability=pb.ResourceStatus.REACHABILITY_REACHABLE,
            )
            for node in context.graph.nodes
        ]
        packages = [
            pb.PackageStatus(
                name=package.name,
                type=_PACKAGE_TYPES.get(package.kind, 0),
                state=cast(Any, package.state.value),
                error=package.error,
                last_updated=_timestamp(package.last_updated),
                version=package.version,
                bytes_downloaded=package.bytes_downloaded,
                total_bytes=package.total_bytes,
            )
            for package in context.packages.reports()
        ]
        modules = [
            pb.ModuleStatus(
                module_name=module.name,
                state=cast(Any, module.state.value),
                last_updated=_timestamp(module.last_updated),
                error=module.error,
                consecutive_failures=module.failures,
            )
            for module in context.modules.hosts
        ]
        config = pb.ConfigStatus(revision=context.host.config.revision, last_updated=_timestamp(context.configured_at))
        state = states.STATE_INITIALIZING if context.is_initializing() else states.STATE_RUNNING
        await stream.send_message(
            states(resources=resources, config=config, state=state, packages=packages, modules=modules)
        )

    async def GetVersion(self, stream: Stream[pb.GetVersionRequest, pb.GetVersionResponse]) -> None:
        await receive(stream)
        await stream.send_message(
            pb.GetVersionResponse(platform="rdk", version=f"gleaner-{__version__}", api_version=API_VERSION)
        )

    async def GetCloudMetadata(self, stream: Stream[pb.GetCloudMetadataRequest, pb.GetCloudMetadataResponse]) -> None:
        await receive(stream)
        metadata = self._cloud_metadata()
        if metadata is None:
            raise GRPCError(
                Status.UNAVAILABLE, "this machine has no app: its configuration is a local file without a cloud section"
            )
        await stream.send_message(metadata)

    async def GetModelsFromModules(
        self, stream: Stream[pb.GetModelsFromModulesRequest, pb.GetModelsFromModulesResponse]
    ) -> None:
        await receive(stream)
        models = [
            pb.ModuleModel(module_name=host.name, api=api, model=model, from_local_module=host.is_local)
            for host in self._context.modules.hosts
            for api, model in sorted(host.models)
        ]
        await stream.send_message(pb.GetModelsFromModulesResponse(models=models))

    async def FrameSystemConfig(
        self, stream: Stream[pb.FrameSystemConfigRequest, pb.FrameSystemConfigResponse]
    ) -> None:
        await receive(stream)
        parts = [*frame_system_parts(self._context.host.config), *self._context.remote_parts()]
        await stream.send_message(pb.FrameSystemConfigResponse(frame_system_configs=parts))

    async def ListTunnels(self, stream: Stream[pb.ListTunnelsRequest, pb.ListTunnelsResponse]) -> None:
        await receive(stream)
        await stream.send_message(pb.ListTunnelsResponse())

    # -- what runs ----------------------------------------------------------------------------------------------

    async def GetOperations(self, stream: Stream[pb.GetOperationsRequest, pb.GetOperationsResponse]) -> None:
        await receive(stream)
        operations = [
            pb.Operation(
                id=operation.id,
                method=operation.method,
                arguments=dict_to_struct(operation.arguments()),
                started=_timestamp(operation.started),
                session_id=operation.session_id or None,
            )
            for operation in self._context.operations.running()
        ]
        await stream.send_message(pb.GetOperationsResponse(operations=operations))

    async def CancelOperation(self, stream: Stream[pb.CancelOperationRequest, pb.CancelOperationResponse]) -> None:
        request = await receive(stream)
        self._context.operations.cancel(request.id)
        await stream.send_message(pb.CancelOperationResponse())

    async def BlockForOperation(
        self, stream: Stream[pb.BlockForOperationRequest, pb.BlockForOperationResponse]
    ) -> None:
        request = await receive(stream)
        await self._context.operations.wait_for(request.id)
        await stream.send_message(pb.BlockForOperationResponse())

    async def GetSessions(self, stream: Stream[pb.GetSessionsRequest, pb.GetSessionsResponse]) -> None:
        await receive(stream)
        kind = pb.PeerConnectionType.PEER_CONNECTION_TYPE_GRPC
        sessions = [
            pb.Session(
                id=session.id, peer_connection_info=pb.PeerConnectionInfo(type=kind, remote_address=session.peer)
            )
            for session in self._context.sessions.active()
        ]
        await stream.send_message(pb.GetSessionsResponse(sessions=sessions))

    async def StartSession(self, stream: Stream[pb.StartSessionRequest, pb.StartSessionResponse]) -> None:
        request = await receive(stream)
        sessions = self._context.sessions
        if session_of(stream):
            raise GRPCError(Status.ALREADY_EXISTS, "session already exists")
        address = stream.peer.addr()
        peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) and len(address) >= 2 else "the app"
        session = sessions.start(request.resume, current_entity(), peer)
        window = Duration()
        window.FromTimedelta(timedelta(seconds=sessions.window_s))
        await stream.send_message(pb.StartSessionResponse(id=session.id, heartbeat_window=window))

    async def SendSessionHeartbeat(
        self, stream: Stream[pb.SendSessionHeartbeatRequest, pb.SendSessionHeartbeatResponse]
    ) -> None:
        request = await receive(stream)
        self._context.sessions.heartbeat(request.id, current_entity())
        await stream.send_message(pb.SendSessionHeartbeatResponse())

    # -- commands -----------------------------------------------------------------------------------------------

    async def StopAll(self, stream: Stream[pb.StopAllRequest, pb.StopAllResponse]) -> None:
        request = await receive(stream)
        extra = {item.name.name: struct_to_dict(item.params) for item in request.extra}
        failures = await stop_everything(self._context.graph, extra)
        if failures:
            raise GRPCError(Status.UNKNOWN, "these did not stop: " + "; ".join(failures))
        await stream.send_message(pb.StopAllResponse())

    async def RestartModule(self, stream: Stream[pb.RestartModuleRequest, pb.RestartModuleResponse]) -> None:
        request = await receive(stream)
        try:
            self._context.modules.restart(request.module_name, request.module_id)
        except NoSuchModule as error:
            name = request.module_name or request.module_id
            raise GRPCError(Status.NOT_FOUND, f"module {name!r} is not configured on this machine") from error
        await stream.send_message(pb.RestartModuleResponse())

    async def Shutdown(self, stream: Stream[pb.ShutdownRequest, pb.ShutdownResponse]) -> None:
        await receive(stream)
        await stream.send_message(pb.ShutdownResponse())
        # The answer leaves before the listeners close.
        asyncio.get_running_loop().call_later(0.1, self._context.shutdown)

    async def UploadDataFromPath(
        self, stream: Stream[pb.UploadDataFromPathRequest, pb.UploadDataFromPathResponse]
    ) -> None:
        request = await receive(stream)
        uploader = self._context.uploader
        if uploader is None:
            raise GRPCError(Status.FAILED_PRECONDITION, "this machine has no app that files could be uploaded to")
        if not request.path:
            raise GRPCError(Status.INVALID_ARGUMENT, "path is empty: name a file or a folder of this machine")
        try:
            report = await uploader.upload(Path(request.path).expanduser(), request.upload_metadata)
        except FileNotFoundError as error:
            raise GRPCError(Status.NOT_FOUND, f"{request.path} is not on this machine") from error
        except OSError as error:
            raise GRPCError(Status.PERMISSION_DENIED, f"{request.path} cannot be read: {error.strerror}") from error
        await stream.send_message(
            pb.UploadDataFromPathResponse(
                files_uploaded=report.files_uploaded,
                files_failed=report.files_failed,
                bytes_uploaded=report.bytes_uploaded,
                bytes_total=report.bytes_total,
                ids=report.ids,
            )
        )

    async def Log(self, stream: Stream[pb.LogRequest, pb.LogResponse]) -> None:
        request = await receive(stream)
        if len(request.logs) != 1:
            raise GRPCError(Status.INVALID_ARGUMENT, f"expected exactly one log entry, got {len(request.logs)}")
        entry = request.logs[0]
        caller = current_entity()
        of_module = caller.startswith(MODULE_CALLER)
        place = f"module.{caller.removeprefix(MODULE_CALLER)}" if of_module else "client"
        logger = logging.getLogger(f"gleaner.{place}.{entry.logger_name or 'unnamed'}")
        logger.log(_LEVELS.get(entry.level.lower(), logging.INFO), "%s", entry.message)
        await stream.send_message(pb.LogResponse())

    def _cloud_metadata(self) -> pb.GetCloudMetadataResponse | None:
        cloud = self._context.host.config.cloud
        if cloud is None:
            return None
        return pb.GetCloudMetadataResponse(
            primary_org_id=cloud.organization_id,
            location_id=cloud.location_id,
            machine_id=cloud.machine_id,
            machine_part_id=cloud.id,
        )


def _names(node: Node) -> list[ResourceName]:
    """A movement sensor is a sensor too, so one resource may answer to several names."""
    found = [node.key.to_proto()]
    for api in resource_names_for_resource(node.instance) if node.instance is not None else ():
        name = ResourceKey(f"{api.namespace}:{api.type}:{api.subtype}", node.key.name).to_proto()
        if name not in found:
            found.append(name)
    return found


def _timestamp(when: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(when)
    return stamp
