"""Trained models: versions, reports, files, deployment."""

from __future__ import annotations

import mimetypes
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from gleaner.app.http import packages
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.packages import package_response

router = APIRouter()
_models = APIRouter(prefix="/api/ml_models")


class NewDeployment(BaseModel):
    organization_id: str = ""
    part_id: str
    version: str = "latest"
    camera_name: str = ""


@_models.get("")
def list_models(organization_id: str, context: ContextDep, caller: CallerDep) -> list[dict[str, Any]]:
    return context.ml_models.listed(caller, organization_id)


@_models.get("/{name}")
def get_model(name: str, organization_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    return context.ml_models.get(caller, organization_id, name)


@_models.delete("/{name}")
def delete_model(name: str, organization_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    return {"deleted": context.ml_models.delete(caller, organization_id, name)}


@_models.get("/{name}/versions/{version}/report")
def report(name: str, version: str, organization_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    return context.ml_models.report(caller, organization_id, name, version)


@_models.get("/{name}/versions/{version}/files/{path:path}", response_class=Response)
def model_file(
    name: str, version: str, path: str, organization_id: str, context: ContextDep, caller: CallerDep
) -> Response:
    package = context.packages.get(caller, organization_id, name, version)
    content = context.packages.member(package, path)
    # Only pictures are shown by the browser: anything else in a package may be what somebody uploaded.
    kind = mimetypes.guess_type(path)[0] or ""
    shown = kind if kind in ("image/jpeg", "image/png") else "application/octet-stream"
    return Response(content, media_type=shown, headers={"cache-control": "private, max-age=86400, immutable"})


@_models.get("/{name}/versions/{version}/download", response_class=Response)
def download(
    name: str, version: str, organization_id: str, request: Request, context: ContextDep, caller: CallerDep
) -> Response:
    package = context.packages.get(caller, organization_id, name, version)
    answer = package_response(context.packages, package, request)
    answer.headers["content-disposition"] = f'attachment; filename="{package.name}-{package.version}.tar.gz"'
    return answer


@_models.post("/{name}/deploy")
def deploy(name: str, body: NewDeployment, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    return context.deploy.deploy(caller, body.part_id, name, body.version, body.camera_name).as_json()


@_models.delete("/{name}/deployments/{part_id}")
def remove(name: str, part_id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    """Takes the model out of the machine's configuration again."""
    context.deploy.remove(caller, part_id, name)
    return {}


router.include_router(_models)
router.include_router(packages.router)
