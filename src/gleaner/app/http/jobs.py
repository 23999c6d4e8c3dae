"""Training jobs."""

from __future__ import annotations

from fastapi import APIRouter, Request

from gleaner.app.http.answers import Done
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.models_learning import JobLineModel, JobLogs, JobModel, NewCustomJob, NewJob, TrainingScript
from gleaner.app.services.fleet_values import iso
from gleaner.app.services.packages import ML_TRAINING, NewPackage, Package

router = APIRouter(prefix="/api/training_jobs")
TAR_BODY = {"requestBody": {"content": {"application/gzip": {"schema": {"type": "string", "format": "binary"}}}}}


@router.get("")
def list_jobs(organization_id: str, context: ContextDep, caller: CallerDep) -> list[JobModel]:
    return [JobModel.of(job) for job in context.jobs.listed(caller, organization_id)]


@router.post("")
def submit(body: NewJob, context: ContextDep, caller: CallerDep, organization_id: str = "") -> JobModel:
    return JobModel.of(context.jobs.submit(caller, body.to_request(organization_id)))


@router.post("/custom")
def submit_custom(body: NewCustomJob, context: ContextDep, caller: CallerDep, organization_id: str) -> JobModel:
    """Runs a training script of the registry."""
    return JobModel.of(context.jobs.submit_custom(caller, body.to_request(organization_id)))


@router.get("/scripts")
def list_scripts(organization_id: str, context: ContextDep, caller: CallerDep) -> list[TrainingScript]:
    """Training scripts of the organization's registry."""
    scripts: dict[str, list[Package]] = {}
    for package in context.packages.listed(caller, organization_id, type=ML_TRAINING):
        scripts.setdefault(package.name, []).append(package)
    return [
        TrainingScript(
            name=name, versions=[one.version for one in versions], updated_at=iso(versions[0].created_ns) or ""
        )
        for name, versions in scripts.items()
    ]


@router.post("/scripts", openapi_extra=TAR_BODY)
async def upload_script(
    organization_id: str, name: str, version: str, request: Request, context: ContextDep, caller: CallerDep
) -> TrainingScript:
    """A new version of a training script; the body is its .tar.gz."""
    new = NewPackage(organization_id, name, version, ML_TRAINING)
    spool = await context.call(context.spool.create)
    try:
        async for chunk in request.stream():
            await context.call(spool.append, chunk)
        made = await context.call(context.packages.create, caller, new, spool.chunks())
    finally:
        await context.call(spool.discard)
    return TrainingScript(name=made.name, versions=[made.version], updated_at=iso(made.created_ns) or "")


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
