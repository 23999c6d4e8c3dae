"""`viam.app.datapipelines.v1.DataPipelinesService`."""

from __future__ import annotations

import viam.gen.app.data.v1.data_pb2  # noqa: F401 (the generated module names it without importing)
from viam.gen.app.datapipelines.v1 import data_pipelines_pb2 as pb
from viam.gen.app.datapipelines.v1.data_pipelines_grpc import UnimplementedDataPipelinesServiceBase

from gleaner.app.caller import Caller
from gleaner.app.rpc.adapter import Service, timestamp, unary
from gleaner.app.services.pipelines import NewPipeline, Pipeline, PipelineRun


class DataPipelinesRpc(Service, UnimplementedDataPipelinesServiceBase):
    @unary
    def CreateDataPipeline(
        self, caller: Caller, request: pb.CreateDataPipelineRequest
    ) -> pb.CreateDataPipelineResponse:
        new = NewPipeline(
            request.organization_id,
            request.name,
            list(request.mql_binary),
            request.schedule,
            request.enable_backfill,
            int(request.data_source_type),
        )
        made = self.context.pipelines.create(caller, new)
        self.context.pipeline_runner.soon()
        return pb.CreateDataPipelineResponse(id=made.id)

    @unary
    def GetDataPipeline(self, caller: Caller, request: pb.GetDataPipelineRequest) -> pb.GetDataPipelineResponse:
        return pb.GetDataPipelineResponse(data_pipeline=_pipeline(self.context.pipelines.get(caller, request.id)))

    @unary
    def ListDataPipelines(self, caller: Caller, request: pb.ListDataPipelinesRequest) -> pb.ListDataPipelinesResponse:
        found = self.context.pipelines.of_organization(caller, request.organization_id)
        return pb.ListDataPipelinesResponse(data_pipelines=[_pipeline(one) for one in found])

    @unary
    def RenameDataPipeline(
        self, caller: Caller, request: pb.RenameDataPipelineRequest
    ) -> pb.RenameDataPipelineResponse:
        self.context.pipelines.rename(caller, request.id, request.name)
        return pb.RenameDataPipelineResponse()

    @unary
    def DeleteDataPipeline(
        self, caller: Caller, request: pb.DeleteDataPipelineRequest
    ) -> pb.DeleteDataPipelineResponse:
        self.context.pipelines.delete(caller, request.id)
        return pb.DeleteDataPipelineResponse()

    @unary
    def EnableDataPipeline(
        self, caller: Caller, request: pb.EnableDataPipelineRequest
    ) -> pb.EnableDataPipelineResponse:
        self.context.pipelines.enable(caller, request.id)
        self.context.pipeline_runner.soon()
        return pb.EnableDataPipelineResponse()

    @unary
    def DisableDataPipeline(
        self, caller: Caller, request: pb.DisableDataPipelineRequest
    ) -> pb.DisableDataPipelineResponse:
        self.context.pipelines.disable(caller, request.id)
        return pb.DisableDataPipelineResponse()

    @unary
    def ListDataPipelineRuns(
        self, caller: Caller, request: pb.ListDataPipelineRunsRequest
    ) -> pb.ListDataPipelineRunsResponse:
        pipeline = self.context.pipelines.get(caller, request.id)
        found, token = self.context.pipelines.runs(caller, request.id, request.page_size, request.page_token)
        runs = [_run(one, pipeline.source) for one in found]
        return pb.ListDataPipelineRunsResponse(pipeline_id=request.id, runs=runs, next_page_token=token)


def _pipeline(one: Pipeline) -> pb.DataPipeline:
    return pb.DataPipeline(
        id=one.id,
        organization_id=one.organization_id,
        name=one.name,
        mql_binary=one.stages,
        schedule=one.schedule,
        enabled=one.enabled,
        created_on=timestamp(one.created_ns),
        updated_at=timestamp(one.updated_ns),
        data_source_type=one.source,
    )


def _run(one: PipelineRun, source: int) -> pb.DataPipelineRun:
    return pb.DataPipelineRun(
        id=one.id,
        start_time=timestamp(one.started_ns),
        end_time=None if one.ended_ns is None else timestamp(one.ended_ns),
        data_start_time=timestamp(one.data_start_ns),
        data_end_time=timestamp(one.data_end_ns),
        status=int(one.status),  # type: ignore[arg-type]
        error_message=one.error,
        data_source_type=source,
    )
