"""`viam.service.datamanager.v1.DataManagerService` over the machine's data manager.

viam-sdk has no base class for it: the resource offers `async sync()`, and, if it can,
`async upload_binary_data_to_datasets(data, tags, dataset_ids, mime_type)` with a MIME type such as `image/jpeg`.
"""

from __future__ import annotations

from typing import Any

from grpclib import GRPCError, Status
from grpclib.server import Stream
from viam.gen.service.datamanager.v1.data_manager_grpc import UnimplementedDataManagerServiceBase
from viam.proto.app.datasync import MimeType
from viam.proto.common import DoCommandRequest, DoCommandResponse, GetStatusRequest, GetStatusResponse
from viam.proto.service.datamanager import (
    SyncRequest,
    SyncResponse,
    UploadBinaryDataToDatasetsRequest,
    UploadBinaryDataToDatasetsResponse,
)
from viam.utils import dict_to_struct, struct_to_dict

from gleaner.machine.rpc.resources import GraphResources
from gleaner.machine.rpc.streams import receive

DATA_MANAGER_API = "rdk:service:data_manager"
DATA_MANAGER_SERVICE = "viam.service.datamanager.v1.DataManagerService"

_MIME_TYPES = {
    MimeType.MIME_TYPE_IMAGE_JPEG: "image/jpeg",
    MimeType.MIME_TYPE_IMAGE_PNG: "image/png",
    MimeType.MIME_TYPE_APPLICATION_PCD: "pointcloud/pcd",
}


class DataManagerRPCService(UnimplementedDataManagerServiceBase):
    def __init__(self, resources: GraphResources) -> None:
        self._resources = resources

    def _manager(self, name: str) -> Any:
        return self._resources.by_api(DATA_MANAGER_API, name or "builtin")

    async def Sync(self, stream: Stream[SyncRequest, SyncResponse]) -> None:
        request = await receive(stream)
        await self._manager(request.name).sync()
        await stream.send_message(SyncResponse())

    async def UploadBinaryDataToDatasets(
        self, stream: Stream[UploadBinaryDataToDatasetsRequest, UploadBinaryDataToDatasetsResponse]
    ) -> None:
        request = await receive(stream)
        mime_type = _MIME_TYPES.get(request.mime_type, "application/octet-stream")
        upload = getattr(self._manager(request.name), "upload_binary_data_to_datasets", None)
        if upload is None:
            raise GRPCError(Status.UNIMPLEMENTED, f"data manager {request.name!r} cannot upload single files")
        await upload(request.binary_data, list(request.tags), list(request.dataset_ids), mime_type)
        await stream.send_message(UploadBinaryDataToDatasetsResponse())

    async def DoCommand(self, stream: Stream[DoCommandRequest, DoCommandResponse]) -> None:
        request = await receive(stream)
        result = await self._manager(request.name).do_command(struct_to_dict(request.command))
        await stream.send_message(DoCommandResponse(result=dict_to_struct(result)))

    async def GetStatus(self, stream: Stream[GetStatusRequest, GetStatusResponse]) -> None:
        request = await receive(stream)
        result = await self._manager(request.name).get_status()
        await stream.send_message(GetStatusResponse(result=dict_to_struct(result)))
