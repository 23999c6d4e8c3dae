"""`viam.app.mltraining.v1.MLTrainingService`."""

from __future__ import annotations

import platform

from google.rpc.status_pb2 import Status as RpcStatus  # type: ignore[import-untyped]
from viam.gen.app.mltraining.v1 import ml_training_pb2 as pb
from viam.gen.app.mltraining.v1.ml_training_grpc import UnimplementedMLTrainingServiceBase

from gleaner.app.caller import Caller
from gleaner.app.errors import InvalidInput
from gleaner.app.rpc.adapter import Service, timestamp, unary
from gleaner.app.rpc.app_registry import split_item_id
from gleaner.app.services.jobs_request import DEFAULT_S, CustomRequest, TrainingRequest
from gleaner.app.services.jobs_store import Job, Status

_TYPES = {
    pb.ModelType.MODEL_TYPE_SINGLE_LABEL_CLASSIFICATION: "single_label_classification",
    pb.ModelType.MODEL_TYPE_MULTI_LABEL_CLASSIFICATION: "multi_label_classification",
    pb.ModelType.MODEL_TYPE_OBJECT_DETECTION: "object_detection",
}
_TYPES_BACK = {name: number for number, name in _TYPES.items()}
_STATUSES = {status: pb.TrainingStatus.Value(f"TRAINING_STATUS_{status.name}") for status in Status}
_STATUSES_BACK = {number: status for status, number in _STATUSES.items()}
_INTERNAL = 13
_LOG_PAGE = 100
_PYTHON = pb.Container(
    key=f"python-{platform.python_version()}",
    framework="python",
    description="The Python that Gleaner runs with, in an environment of the script's own. There are no other containers.",
)


class TrainingRpc(Service, UnimplementedMLTrainingServiceBase):
    @unary
    def SubmitTrainingJob(self, caller: Caller, request: pb.SubmitTrainingJobRequest) -> pb.SubmitTrainingJobResponse:
        """The framework asked for is not looked at: models are ONNX, and the machine runs them."""
        if request.model_type not in _TYPES:
            raise InvalidInput("the model's type is missing", "Send one of the MODEL_TYPE values.")
        asked = TrainingRequest(
            dataset_id=request.dataset_id,
            model_name=request.model_name,
            model_type=_TYPES[request.model_type],
            labels=list(request.tags),
            organization_id=request.organization_id,
            model_version=request.model_version,
            time_budget_s=DEFAULT_S,
        )
        return pb.SubmitTrainingJobResponse(id=self.context.jobs.submit(caller, asked).id)

    @unary
    def SubmitCustomTrainingJob(
        self, caller: Caller, request: pb.SubmitCustomTrainingJobRequest
    ) -> pb.SubmitCustomTrainingJobResponse:
        organization_id, name = split_item_id(request.registry_item_id)
        asked = CustomRequest(
            dataset_id=request.dataset_id,
            organization_id=organization_id,
            script_name=name,
            script_version=request.registry_item_version,
            model_name=request.model_name,
            model_version=request.model_version,
            arguments=dict(request.arguments),
            container=request.container_id or request.container_version,
        )
        return pb.SubmitCustomTrainingJobResponse(id=self.context.jobs.submit_custom(caller, asked).id)

    @unary
    def ListSupportedContainers(
        self, caller: Caller, request: pb.ListSupportedContainersRequest
    ) -> pb.ListSupportedContainersResponse:
        return pb.ListSupportedContainersResponse(container_map={_PYTHON.key: _PYTHON})

    @unary
    def ListContainers(self, caller: Caller, request: pb.ListContainersRequest) -> pb.ListContainersResponse:
        return pb.ListContainersResponse(containers=[_PYTHON])

    @unary
    def GetTrainingJob(self, caller: Caller, request: pb.GetTrainingJobRequest) -> pb.GetTrainingJobResponse:
        return pb.GetTrainingJobResponse(metadata=_metadata(self.context.jobs.get(caller, request.id)))

    @unary
    def ListTrainingJobs(self, caller: Caller, request: pb.ListTrainingJobsRequest) -> pb.ListTrainingJobsResponse:
        jobs = self.context.jobs.listed(caller, request.organization_id, _STATUSES_BACK.get(request.status))
        return pb.ListTrainingJobsResponse(jobs=[_metadata(job) for job in jobs])

    @unary
    def CancelTrainingJob(self, caller: Caller, request: pb.CancelTrainingJobRequest) -> pb.CancelTrainingJobResponse:
        self.context.jobs.cancel(caller, request.id)
        return pb.CancelTrainingJobResponse()

    @unary
    def DeleteCompletedTrainingJob(
        self, caller: Caller, request: pb.DeleteCompletedTrainingJobRequest
    ) -> pb.DeleteCompletedTrainingJobResponse:
        self.context.jobs.delete(caller, request.id)
        return pb.DeleteCompletedTrainingJobResponse()

    @unary
    def GetTrainingJobLogs(
        self, caller: Caller, request: pb.GetTrainingJobLogsRequest
    ) -> pb.GetTrainingJobLogsResponse:
        token = request.page_token if request.HasField("page_token") else ""
        if token and not token.isdecimal():
            raise InvalidInput(f"{token!r} is no page marker", "Send next_page_token as the previous page gave it.")
        lines = self.context.jobs.logs(caller, request.id, int(token or 0), _LOG_PAGE)
        return pb.GetTrainingJobLogsResponse(
            logs=[
                pb.TrainingJobLogEntry(level=one.level, time=timestamp(one.time_ns), message=one.message)
                for one in lines
            ],
            next_page_token=str(lines[-1].id) if len(lines) == _LOG_PAGE else "",
        )


def _metadata(job: Job) -> pb.TrainingJobMetadata:
    error = RpcStatus(code=_INTERNAL, message=f"{job.error['message']} {job.error['hint']}") if job.error else None
    done, script = job.status is Status.COMPLETED, job.script
    return pb.TrainingJobMetadata(
        id=job.id,
        dataset_id=job.dataset_id,
        organization_id=job.organization_id,
        model_name=job.model_name,
        model_version=job.model_version,
        model_type=_TYPES_BACK.get(job.model_type, pb.ModelType.MODEL_TYPE_UNSPECIFIED),
        model_framework=pb.ModelFramework.MODEL_FRAMEWORK_UNSPECIFIED
        if script
        else pb.ModelFramework.MODEL_FRAMEWORK_ONNX,
        is_custom_job=bool(script),
        registry_item_id=f"{job.organization_id}:{script['name']}" if script else "",
        registry_item_version=script["version"] if script else "",
        arguments=script["arguments"] if script else None,
        status=_STATUSES[job.status],
        error_status=error,
        created_on=timestamp(job.created_ns),
        last_modified=timestamp(job.ended_ns or job.started_ns or job.created_ns),
        training_started=timestamp(job.started_ns),
        training_ended=timestamp(job.ended_ns),
        synced_model_id=f"{job.organization_id}/{job.model_name}" if done else "",
        tags=job.labels,
    )
