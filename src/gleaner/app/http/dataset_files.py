"""Datasets as files of other programs: export as one archive, import of a zip. Both stream."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from gleaner.app.caller import Caller
from gleaner.app.context import AppContext
from gleaner.app.errors import Conflict, InvalidInput, Unavailable
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.services.datasets_import import Imported
from gleaner.app.store.payload import CHUNK_BYTES
from gleaner.app.store.spool import SpoolFile
from gleaner.app.store.spool_reader import reader
from gleaner.formats.archive import Archive
from gleaner.formats.registry import Format
from gleaner.formats.sources import ZipSource
from gleaner.formats.values import FormatProblem

router = APIRouter(prefix="/api/datasets", tags=["datasets"])

_MEDIA = {Archive.ZIP: "application/zip", Archive.TAR: "application/x-tar"}
_IN_SPOOL_FRAME = CHUNK_BYTES


class ImportProblem(BaseModel):
    """Left out; everything else is imported. `line` is 0 where there are no lines."""

    file: str
    line: int
    message: str
    hint: str


class ImportAnswer(BaseModel):
    format: Format
    added: int = Field(description="Pictures that are new in the app.")
    known: int = Field(description="Pictures that were here already; they got the tags and boxes they lacked.")
    problem_count: int
    problems: list[ImportProblem] = Field(description="The first 200.")


@router.get(
    "/{dataset_id}/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {}, "application/x-tar": {}}, "description": "The archive"}},
)
def export(
    context: ContextDep,
    caller: CallerDep,
    dataset_id: str,
    format: Format,
    archive: Archive = Archive.ZIP,
    version: Annotated[int, Query(ge=0, description="0: the dataset as it is now, frozen as a version.")] = 0,
    start: Annotated[int, Query(ge=0, description="Go on at this byte of a download that was cut.")] = 0,
    if_match: Annotated[str, Header()] = "",
) -> Response:
    """To go on after a cut: the same request with `version` and `start`, and the first answer's ETag as If-Match."""
    found = context.dataset_exports.prepare(caller, dataset_id, format, archive, version)
    if if_match and if_match.strip('"') != found.tag:
        raise Conflict(
            "The export is not the same any more: pictures of it were deleted or brought back", "Start it again."
        )
    plain = re.sub(r'[^\x20-\x7e]|["\\/]', "_", found.file_name)
    headers = {
        "etag": f'"{found.tag}"',
        "cache-control": "private, no-store",
        "content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(found.file_name, safe='')}",
        "gleaner-version": str(found.version.version),
        "gleaner-pictures": str(found.pictures),
    }
    return StreamingResponse(found.stream(start), 200, headers, _MEDIA[archive])


@router.post(
    "/{dataset_id}/import",
    openapi_extra={"requestBody": {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def import_(
    context: ContextDep, caller: CallerDep, dataset_id: str, request: Request, format: Format | None = None
) -> ImportAnswer:
    """The body is a zip in any of the formats; which one is found out unless it is said."""
    await context.call(context.datasets.get, caller, dataset_id)
    spooled = await context.call(context.spool.create)
    try:
        pending = bytearray()
        async for chunk in request.stream():
            pending += chunk
            if len(pending) >= _IN_SPOOL_FRAME:
                await context.call(spooled.append, bytes(pending))
                pending.clear()
        await context.call(spooled.append, bytes(pending))
        done = await context.call(_store, context, caller, dataset_id, spooled, format)
    except OSError as err:
        raise Unavailable(
            f"The app could not keep the zip: {err.strerror or err}",
            "Free space where the app keeps its data, then send it again: nothing is stored twice.",
        ) from err
    finally:
        await context.call(spooled.discard)
    return ImportAnswer(
        format=done.format,
        added=done.added,
        known=done.known,
        problem_count=done.problem_count,
        problems=[ImportProblem(file=p.file, line=p.line, message=p.what, hint=p.hint) for p in done.problems],
    )


def _store(
    context: AppContext, caller: Caller, dataset_id: str, spooled: SpoolFile, format_: Format | None
) -> Imported:
    if not spooled.size:
        raise InvalidInput("The request has no body", "Send the zip as the request's body.")
    with reader(spooled) as file:
        try:
            source = ZipSource(file)
        except FormatProblem as problem:
            raise InvalidInput(str(problem), "Send the data set's folder packed as .zip.") from problem
        try:
            return context.dataset_imports.store(caller, dataset_id, source, format_)
        finally:
            source.close()
