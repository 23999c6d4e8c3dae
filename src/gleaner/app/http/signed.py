"""What a signed link leads to. The token in the address stands for a login."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from gleaner.app.http.deps import ContextDep
from gleaner.app.http.items import content_answer
from gleaner.app.services.sequences_export import Download

router = APIRouter(prefix="/api/signed", tags=["items"])


@router.get("/{token}", response_class=StreamingResponse)
def content(context: ContextDep, token: str, request: Request) -> Response:
    """An item's bytes as they were uploaded, ranges honoured (made by `CreateBinaryDataSignedURL`), or a zip of sequences."""
    found = context.signed_links.opened(token)
    if isinstance(found, Download):
        headers = {"content-disposition": f'attachment; filename="{found.file_name}"'}
        return StreamingResponse(found.stream(), media_type="application/zip", headers=headers)
    return content_answer(found, request)
