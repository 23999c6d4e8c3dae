"""Training jobs, models and deployments as they cross HTTP; the web pages' types are generated from these."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from gleaner.app.http.answers import Answer
from gleaner.app.http.item_models import Body, Named
from gleaner.app.services.jobs import DEFAULT_S, TrainingRequest
from gleaner.app.services.jobs_store import Job

ModelType = Literal["single_label_classification", "multi_label_classification", "object_detection"]
JobStatus = Literal["pending", "in_progress", "completed", "failed", "canceled", "canceling"]
DeploymentState = Literal["saving", "downloading", "loading", "running", "failed", "offline"]


class NewJob(Body):
    dataset_id: str
    model_name: str
    model_type: ModelType = "single_label_classification"
    labels: list[str]
    time_budget_s: float = Field(default=DEFAULT_S, description="Seconds; the best model by then is the result.")

    def to_request(self, organization_id: str) -> TrainingRequest:
        return TrainingRequest(
            self.dataset_id,
            self.model_name,
            self.model_type,
            self.labels,
            organization_id=organization_id,
            time_budget_s=self.time_budget_s,
        )


class MetricsModel(BaseModel):
    """One point of the curves; losses are binary cross-entropy per label. Kept with the job as the run told it."""

    t_s: float
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None


class ProgressModel(BaseModel):
    fraction: float
    phase: str
    eta_s: float | None


class TrainedOn(Answer):
    """The frozen version of a dataset that a model was trained on."""

    id: str
    name: str
    version: int
    item_count: int


class JobError(Answer):
    message: str
    hint: str


class JobModel(Answer):
    id: str
    status: JobStatus
    model_name: str
    model_version: str
    model_type: ModelType
    labels: list[str]
    dataset: TrainedOn
    organization_id: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    time_budget_s: float
    progress: ProgressModel
    metrics: list[MetricsModel]
    warnings: list[str]
    error: JobError | None

    @classmethod
    def of(cls, job: Job) -> JobModel:
        return cls.model_validate(job.as_json())


class JobLineModel(Answer):
    id: int
    time: str
    level: str
    message: str


class JobLogs(Answer):
    logs: list[JobLineModel]


class DeploymentModel(Answer):
    part: Named
    machine: Named
    version: str = Field(description="The concrete one, also if the newest was asked for.")
    wanted_version: str = Field(description="May be `latest`.")
    state: DeploymentState
    error: str
    mlmodel: str
    vision: str
    transform: str
    camera: str


class NewDeployment(Body):
    organization_id: str = ""
    part_id: str
    version: str = "latest"
    camera_name: str = Field(default="", description="Needed only if the machine has several cameras.")


class ModelVersionModel(Answer):
    version: str
    created_at: str
    accuracy: float | None = Field(description="On the test pictures; null if it was not measured.")
    suggested_threshold: float | None
    size_bytes: int
    job_id: str | None = Field(description="null for a model that was uploaded.")
    dataset: TrainedOn | None


class MlModelModel(Answer):
    id: str
    name: str
    model_type: str = Field(description="As in a training job; another word or empty if it was uploaded.")
    labels: list[str]
    versions: list[ModelVersionModel]
    deployments: list[DeploymentModel]

    @classmethod
    def of(cls, model: dict[str, Any]) -> MlModelModel:
        return cls.model_validate(model)


class DeletedVersions(Answer):
    deleted: int
