"""Gives machines the app's own wheel. The token in the address stands for a login: pip sends nothing else."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from gleaner.app.errors import PermissionDenied
from gleaner.app.http.deps import ContextDep

router = APIRouter()


@router.get("/install/{token}/{file_name}", include_in_schema=False)
def wheel(token: str, file_name: str, context: ContextDep) -> Response:
    try:
        found = context.install.wheel(token, file_name)
    except PermissionDenied as err:
        return PlainTextResponse(f"Gleaner: {err.message}.\n{err.hint}\n", 403)
    return Response(found.data, media_type="application/octet-stream", headers={"cache-control": "no-store"})
