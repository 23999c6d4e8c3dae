"""The data manager as a Viam service: its interface, its gRPC door, and a client for it.

viam-sdk has the protobuf messages of `viam.service.datamanager.v1` but no classes for them; these are ours. Importing
this module registers the API, so that viam-sdk's own server serves every DataManager it holds.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from grpclib import GRPCError, Status
from grpclib.client import Channel
from grpclib.server import Stream
from viam.gen.service.datamanager.v1.data_manager_grpc import DataManagerServiceBase, DataManagerServiceStub
from viam.gen.service.datamanager.v1.data_manager_pb2 import (
    SyncRequest,
    SyncResponse,
    UploadBinaryDataToDatasetsRequest,
    UploadBinaryDataToDatasetsResponse,
)
from viam.proto.app.datasync import MimeType
from viam.proto.common import DoCommandRequest, DoCommandResponse, GetStatusRequest, GetStatusResponse
from viam.resource.registry import Registry, ResourceRegistration
from viam.resource.rpc_service_base import ResourceRPCServiceBase
from viam.resource.types import API as ResourceAPI
from viam.services.service_base import ServiceBase
from viam.utils import dict_to_struct, struct_to_dict

EXTENSIONS: dict[int, str] = {
    MimeType.MIME_TYPE_IMAGE_JPEG: ".jpeg",
    MimeType.MIME_TYPE_IMAGE_PNG: ".png",
    MimeType.MIME_TYPE_APPLICATION_PCD: ".pcd",
    MimeType.MIME_TYPE_VIDEO_MP4: ".mp4",
}


class NotSynced(Exception):
    """A sync or an upload did not happen; the message says why and what to do."""


class DataManagerService(ServiceBase):
    """What `rdk:service:data_manager` offers."""

    API: ClassVar[ResourceAPI] = ResourceAPI("rdk", "service", "data_manager")

    @abc.abstractmethod
    async def sync(self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None) -> None:
        """Sends everything captured so far; returns when the app has it. Raises NotSynced."""

    @abc.abstractmethod
    async def upload_binary_data_to_datasets(
        self,
        binary_data: bytes,
        tags: Sequence[str],
        dataset_ids: Sequence[str],
        mime_type: int,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Puts one picture (or other file) into datasets; returns when the app has it. Raises NotSynced."""


class DataManagerRPCService(DataManagerServiceBase, ResourceRPCServiceBase[DataManagerService]):
    """The gRPC door."""

    RESOURCE_TYPE: Any = DataManagerService

    async def Sync(self, stream: Stream[SyncRequest, SyncResponse]) -> None:
        request = await _received(stream)
        service = self.get_resource(request.name)
        try:
            await service.sync(extra=struct_to_dict(request.extra), timeout=_time_left(stream))
        except NotSynced as error:
            raise GRPCError(Status.UNAVAILABLE, str(error)) from error
        await stream.send_message(SyncResponse())

    async def UploadBinaryDataToDatasets(
        self, stream: Stream[UploadBinaryDataToDatasetsRequest, UploadBinaryDataToDatasetsResponse]
    ) -> None:
        request = await _received(stream)
        service = self.get_resource(request.name)
        try:
            await service.upload_binary_data_to_datasets(
                request.binary_data,
                list(request.tags),
                list(request.dataset_ids),
                request.mime_type,
                extra=struct_to_dict(request.extra),
                timeout=_time_left(stream),
            )
        except NotSynced as error:
            raise GRPCError(Status.UNAVAILABLE, str(error)) from error
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        await stream.send_message(UploadBinaryDataToDatasetsResponse())

    async def DoCommand(self, stream: Stream[DoCommandRequest, DoCommandResponse]) -> None:
        request = await _received(stream)
        service = self.get_resource(request.name)
        try:
            result = await service.do_command(struct_to_dict(request.command), timeout=_time_left(stream))
        except NotImplementedError as error:
            raise GRPCError(Status.UNIMPLEMENTED, "the data manager has no commands: use Sync") from error
        await stream.send_message(DoCommandResponse(result=dict_to_struct(result)))

    async def GetStatus(self, stream: Stream[GetStatusRequest, GetStatusResponse]) -> None:
        request = await _received(stream)
        status = await self.get_resource(request.name).get_status(timeout=_time_left(stream))
        await stream.send_message(GetStatusResponse(result=dict_to_struct(status)))


class DataManagerClient(DataManagerService):
    """The same service on another machine."""

    def __init__(self, name: str, channel: Channel) -> None:
        super().__init__(name)
        self.channel = channel
        self.client = DataManagerServiceStub(channel)

    async def sync(self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None) -> None:
        await self.client.Sync(SyncRequest(name=self.name, extra=dict_to_struct(extra or {})), timeout=timeout)

    async def upload_binary_data_to_datasets(
        self,
        binary_data: bytes,
        tags: Sequence[str],
        dataset_ids: Sequence[str],
        mime_type: int,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        request = UploadBinaryDataToDatasetsRequest(
            name=self.name,
            binary_data=binary_data,
            tags=tags,
            dataset_ids=dataset_ids,
            mime_type=mime_type,
            extra=dict_to_struct(extra or {}),
        )
        await self.client.UploadBinaryDataToDatasets(request, timeout=timeout)


async def _received(stream: Stream[Any, Any]) -> Any:
    request = await stream.recv_message()
    if request is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "the request is empty")
    return request


def _time_left(stream: Stream[Any, Any]) -> float | None:
    return stream.deadline.time_remaining() if stream.deadline else None


_SERVICE: Any = DataManagerService  # abstract, as viam-sdk's own registrations are
Registry.register_api(ResourceRegistration(_SERVICE, DataManagerRPCService, DataManagerClient))
