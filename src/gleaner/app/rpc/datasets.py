"""`viam.app.dataset.v1.DatasetService`."""

from __future__ import annotations

from viam.gen.app.dataset.v1 import dataset_pb2 as pb
from viam.gen.app.dataset.v1.dataset_grpc import UnimplementedDatasetServiceBase

from gleaner.app.caller import Caller
from gleaner.app.rpc.adapter import Service, timestamp, unary
from gleaner.app.services.datasets_values import Dataset


class DatasetRpc(Service, UnimplementedDatasetServiceBase):
    @unary
    def CreateDataset(self, caller: Caller, request: pb.CreateDatasetRequest) -> pb.CreateDatasetResponse:
        made = self.context.datasets.create(caller, request.organization_id, request.name)
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
        return pb.ListDatasetsByOrganizationIDResponse(datasets=[_dataset(one) for one in found])

    @unary
    def ListDatasetsByIDs(self, caller: Caller, request: pb.ListDatasetsByIDsRequest) -> pb.ListDatasetsByIDsResponse:
        found = self.context.datasets.by_ids(caller, list(request.ids))
        return pb.ListDatasetsByIDsResponse(datasets=[_dataset(one) for one in found])

    @unary
    def MergeDatasets(self, caller: Caller, request: pb.MergeDatasetsRequest) -> pb.MergeDatasetsResponse:
        made = self.context.datasets.merge(caller, list(request.dataset_ids), request.organization_id, request.name)
        return pb.MergeDatasetsResponse(dataset_id=made.id)


def _dataset(one: Dataset) -> pb.Dataset:
    return pb.Dataset(
        id=one.id, name=one.name, organization_id=one.organization_id, time_created=timestamp(one.created_ns)
    )
