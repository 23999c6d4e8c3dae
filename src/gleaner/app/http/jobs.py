"""Training jobs."""

from __future__ import annotations

from fastapi import APIRouter

from gleaner.app.http.answers import Done
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.models_learning import JobLineModel, JobLogs, JobModel, NewJob

router = APIRouter(prefix="/api/training_jobs")


@router.get("")
def list_jobs(organization_id: str, context: ContextDep, caller: CallerDep) -> list[JobModel]:
    return [JobModel.of(job) for job in context.jobs.listed(caller, organization_id)]


@router.post("")
def submit(body: NewJob, context: ContextDep, caller: CallerDep, organization_id: str = "") -> JobModel:
    return JobModel.of(context.jobs.submit(caller, body.to_request(organization_id)))


@router.get("/{job_id}")
def get_job(job_id: str, context: ContextDep, caller: CallerDep) -> JobModel:
    return JobModel.of(context.jobs.get(caller, job_id))


@router.delete("/{job_id}")
def delete_job(job_id: str, context: ContextDep, caller: CallerDep) -> Done:
    context.jobs.delete(caller, job_id)
    return Done()


@router.post("/{job_id}/cancel")
def cancel(job_id: str, context: ContextDep, caller: CallerDep) -> JobModel:
    return JobModel.of(context.jobs.cancel(caller, job_id))


@router.get("/{job_id}/logs")
def logs(job_id: str, context: ContextDep, caller: CallerDep, after: int = 0) -> JobLogs:
    lines = context.jobs.logs(caller, job_id, after)
    return JobLogs(logs=[JobLineModel.model_validate(line.as_json()) for line in lines])
