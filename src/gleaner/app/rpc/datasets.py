"""`viam.app.dataset.v1.DatasetService`."""

from __future__ import annotations

from viam.gen.app.dataset.v1 import dataset_pb2 as pb
from viam.gen.app.dataset.v1.dataset_grpc import UnimplementedDatasetServiceBase

from gleaner.app.caller import Caller
from gleaner.app.errors import InvalidInput
from gleaner.app.rpc.adapter import Service, timestamp, unary
from gleaner.app.services.datasets_values import Dataset, DatasetType

_TYPES = {
    pb.DATASET_TYPE_BINARY_DATA: DatasetType.BINARY,
    pb.DATASET_TYPE_SEQUENCE_DATA: DatasetType.SEQUENCE,
}


class DatasetRpc(Service, UnimplementedDatasetServiceBase):
    @unary
    def CreateDataset(self, caller: Caller, request: pb.CreateDatasetRequest) -> pb.CreateDatasetResponse:
        made = self.context.datasets.create(caller, request.organization_id, request.name, _type(request.type))
        return pb.CreateDatasetResponse(id=made.id)

    @unary
    def RenameDataset(self, caller: Caller, request: pb.RenameDatasetRequest) -> pb.RenameDatasetResponse:
        self.context.datasets.rename(caller, request.id, request.name)
        return pb.RenameDatasetResponse()

    @unary
    def DeleteDataset(self, caller: Caller, request: pb.DeleteDatasetRequest) -> pb.DeleteDatasetResponse:
        self.context.datasets.delete(caller, request.id)
        return pb.DeleteDatasetResponse()

    @unary
    def ListDatasetsByOrganizationID(
        self, caller: Caller, request: pb.ListDatasetsByOrganizationIDRequest
    ) -> pb.ListDatasetsByOrganizationIDResponse:
        found = self.context.datasets.of_organization(caller, request.organization_id)
        if request.HasField("type"):
            found = [one for one in found if one.type is _type(request.type)]
        return pb.ListDatasetsByOrganizationIDResponse(datasets=[_dataset(one) for one in found])

    @unary
    def ListDatasetsByIDs(self, caller: Caller, request: pb.ListDatasetsByIDsRequest) -> pb.ListDatasetsByIDsResponse:
        found = self.context.datasets.by_ids(caller, list(request.ids))
        return pb.ListDatasetsByIDsResponse(datasets=[_dataset(one) for one in found])

    @unary
    def MergeDatasets(self, caller: Caller, request: pb.MergeDatasetsRequest) -> pb.MergeDatasetsResponse:
        made = self.context.datasets.merge(caller, list(request.dataset_ids), request.organization_id, request.name)
        return pb.MergeDatasetsResponse(dataset_id=made.id)

    @unary
    def StartSequenceDatasetExport(
        self, caller: Caller, request: pb.StartSequenceDatasetExportRequest
    ) -> pb.StartSequenceDatasetExportResponse:
        job_id = self.context.signed_links.sequence_job(caller, request.dataset_id)
        return pb.StartSequenceDatasetExportResponse(job_id=job_id)

    @unary
    def GetSequenceDatasetExport(
        self, caller: Caller, request: pb.GetSequenceDatasetExportRequest
    ) -> pb.GetSequenceDatasetExportResponse:
        asked_ns, link = self.context.signed_links.of_sequence_job(caller, request.job_id)
        return pb.GetSequenceDatasetExportResponse(
            job_id=request.job_id,
            status=pb.SEQUENCE_DATASET_EXPORT_STATUS_COMPLETED,
            download_url=f"{self.context.addresses.web}{link.path}",
            expires_at=timestamp(link.expires_ns),
            created_at=timestamp(asked_ns),
            completed_at=timestamp(asked_ns),
        )


def _dataset(one: Dataset) -> pb.Dataset:
    return pb.Dataset(
        id=one.id,
        name=one.name,
        organization_id=one.organization_id,
        time_created=timestamp(one.created_ns),
        type=next(number for number, type_ in _TYPES.items() if type_ is one.type),
    )


def _type(number: pb.DatasetType.ValueType) -> DatasetType:
    if number not in _TYPES:
        raise InvalidInput(f"{number} is no type of dataset", "Use DATASET_TYPE_BINARY_DATA or …_SEQUENCE_DATA.")
    return _TYPES[number]
