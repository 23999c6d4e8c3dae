"""Training jobs, models and deployments as they cross HTTP; the web pages' types are generated from these."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from gleaner.app.http.answers import Answer
from gleaner.app.http.item_models import Body, Named
from gleaner.app.services.jobs_request import CUSTOM_DEFAULT_S, DEFAULT_S, CustomRequest, TrainingRequest
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
    backbone: str = Field(
        default="",
        description="What a classifier starts from: hf:owner/name, hf:/folder or timm:name; empty for Gleaner's own weights.",
    )
    accept_license: bool = Field(default=False, description="Whatever the licence of that backbone is.")

    def to_request(self, organization_id: str) -> TrainingRequest:
        return TrainingRequest(
            self.dataset_id,
            self.model_name,
            self.model_type,
            self.labels,
            organization_id=organization_id,
            time_budget_s=self.time_budget_s,
            backbone=self.backbone,
            accept_license=self.accept_license,
        )


class NewCustomJob(Body):
    dataset_id: str
    script: str = Field(description="Name of a training script of the organization.")
    script_version: str = "latest"
    model_name: str
    arguments: dict[str, str] = Field(default_factory=dict, description="The script's own: --name=value.")
    time_budget_s: float = Field(default=CUSTOM_DEFAULT_S, description="Seconds; then the script is ended.")

    def to_request(self, organization_id: str) -> CustomRequest:
        return CustomRequest(
            self.dataset_id,
            organization_id,
            self.script,
            self.model_name,
            script_version=self.script_version,
            arguments=self.arguments,
            time_budget_s=self.time_budget_s,
        )


class TrainingScript(Answer):
    name: str
    versions: list[str] = Field(description="Newest first.")
    updated_at: str


class JobScript(Answer):
    name: str
    version: str
    arguments: dict[str, str]


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
    model_type: ModelType | Literal["custom"]
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
    script: JobScript | None = Field(description="The training script, where it is not Gleaner that trains.")
    backbone: str = Field(default="", description="What a classifier starts from; empty for Gleaner's own weights.")

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
    latency_ms: float | None = Field(
        description="One inference on that machine, measured before the version took over."
    )
    mlmodel: str
    vision: str
    transform: str
    camera: str


class NewDeployment(Body):
    organization_id: str = ""
    part_id: str
    version: str = "latest"
    even_if_worse: bool = Field(default=False, description="Also a version that is held back.")
    camera_name: str = Field(default="", description="Needed only if the machine has several cameras.")


class ComparedModel(Answer):
    """With the version that machines had when this one was trained, on test pictures that neither learned from."""

    version: str
    pictures: int
    right_before: int
    right_now: int
    measure: Literal["map50", "macro_f1", "accuracy"] = Field(
        description="What the verdict goes by: a detector's mAP50, a classifier's mean F1 of its labels, or whole pictures."
    )
    before: float | None = Field(description="The measure of the version before; null in reports of earlier versions.")
    now: float | None
    verdict: Literal["better", "alike", "worse", "unknown"]


class ModelVersionModel(Answer):
    version: str
    created_at: str
    accuracy: float | None = Field(
        description="On the test pictures (a detector's is mAP50); null if it was not measured."
    )
    suggested_threshold: float | None
    size_bytes: int
    compared: ComparedModel | None
    held: bool = Field(
        description="It did worse: machines that follow the newest version do not get it until released."
    )
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
