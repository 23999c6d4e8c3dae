"""Trained models: versions, reports, files, deployment."""

from __future__ import annotations

import mimetypes
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gleaner.app.http import packages
from gleaner.app.http.answers import Done
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.models_learning import DeletedVersions, DeploymentModel, MlModelModel, NewDeployment
from gleaner.app.http.packages import ARCHIVE, package_response

router = APIRouter()
_models = APIRouter(prefix="/api/ml_models")
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}, "image/png": {}, "application/octet-stream": {}}}
}


@_models.get("")
def list_models(organization_id: str, context: ContextDep, caller: CallerDep) -> list[MlModelModel]:
    return [MlModelModel.of(model) for model in context.ml_models.listed(caller, organization_id)]


@_models.get("/{name}")
def get_model(name: str, organization_id: str, context: ContextDep, caller: CallerDep) -> MlModelModel:
    return MlModelModel.of(context.ml_models.get(caller, organization_id, name))


@_models.delete("/{name}")
def delete_model(name: str, organization_id: str, context: ContextDep, caller: CallerDep) -> DeletedVersions:
    return DeletedVersions(deleted=context.ml_models.delete(caller, organization_id, name))


@_models.get("/{name}/versions/{version}/report")
def report(name: str, version: str, organization_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    """report.json of docs/architecture.md, "Training run"; its `format` says which one."""
    return context.ml_models.report(caller, organization_id, name, version)


@_models.get("/{name}/versions/{version}/files/{path:path}", response_class=Response, responses=_FILE)
def model_file(
    name: str, version: str, path: str, organization_id: str, context: ContextDep, caller: CallerDep
) -> Response:
    package = context.packages.get(caller, organization_id, name, version)
    content = context.packages.member(package, path)
    # Only pictures are shown by the browser: anything else in a package may be what somebody uploaded.
    kind = mimetypes.guess_type(path)[0] or ""
    shown = kind if kind in ("image/jpeg", "image/png") else "application/octet-stream"
    return Response(content, media_type=shown, headers={"cache-control": "private, max-age=86400, immutable"})


@_models.get("/{name}/versions/{version}/download", response_class=Response, responses=ARCHIVE)
def download(
    name: str, version: str, organization_id: str, request: Request, context: ContextDep, caller: CallerDep
) -> Response:
    package = context.packages.get(caller, organization_id, name, version)
    answer = package_response(context.packages, package, request)
    answer.headers["content-disposition"] = f'attachment; filename="{package.name}-{package.version}.tar.gz"'
    return answer


@_models.post("/{name}/deploy")
def deploy(name: str, body: NewDeployment, context: ContextDep, caller: CallerDep) -> DeploymentModel:
    made = context.deploy.deploy(
        caller, body.part_id, name, body.version, body.camera_name, even_if_worse=body.even_if_worse
    )
    return DeploymentModel.model_validate(made.as_json())


@_models.post("/{name}/versions/{version}/release")
def release(name: str, version: str, organization_id: str, context: ContextDep, caller: CallerDep) -> Done:
    """Lets a version that was held back be the newest after all: machines that follow the newest get it."""
    context.packages.release(caller, organization_id, name, version)
    return Done()


@_models.delete("/{name}/deployments/{part_id}")
def remove(name: str, part_id: str, context: ContextDep, caller: CallerDep) -> Done:
    """Takes the model out of the machine's configuration again."""
    context.deploy.remove(caller, part_id, name)
    return Done()


router.include_router(_models)
router.include_router(packages.router)
