"""Training jobs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.services.jobs import DEFAULT_S, TrainingRequest

router = APIRouter(prefix="/api/training_jobs")


class NewJob(BaseModel):
    dataset_id: str
    model_name: str
    model_type: str = "single_label_classification"
    labels: list[str]
    time_budget_s: float = DEFAULT_S


@router.get("")
def list_jobs(organization_id: str, context: ContextDep, caller: CallerDep) -> list[dict[str, Any]]:
    return [job.as_json() for job in context.jobs.listed(caller, organization_id)]


@router.post("")
def submit(body: NewJob, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    request = TrainingRequest(
        body.dataset_id, body.model_name, body.model_type, body.labels, time_budget_s=body.time_budget_s
    )
    return context.jobs.submit(caller, request).as_json()


@router.get("/{job_id}")
def get_job(job_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    return context.jobs.get(caller, job_id).as_json()


@router.delete("/{job_id}")
def delete_job(job_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    context.jobs.delete(caller, job_id)
    return {}


@router.post("/{job_id}/cancel")
def cancel(job_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    return context.jobs.cancel(caller, job_id).as_json()


@router.get("/{job_id}/logs")
def logs(job_id: str, context: ContextDep, caller: CallerDep, after: int = 0) -> dict[str, Any]:
    return {"logs": [line.as_json() for line in context.jobs.logs(caller, job_id, after)]}
