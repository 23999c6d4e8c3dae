"""The whole answer to a question as a file, written while it is found: the page shows its first rows only."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from enum import StrEnum
from typing import Any

import bson
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from gleaner.app.caller import Caller
from gleaner.app.context import AppContext
from gleaner.app.errors import AppError, InvalidInput
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.queries import NOT_IN_SQL, Question, plain, unless_gone
from gleaner.app.lake.running import Found
from gleaner.app.lake.workers import Pages
from gleaner.app.services.query_text import stages_of_text

router = APIRouter(prefix="/api", tags=["queries"])
log = logging.getLogger("gleaner.app.http")


class RowsFormat(StrEnum):
    CSV = "csv"
    JSON_LINES = "jsonl"


_MEDIA = {RowsFormat.CSV: "text/csv; charset=utf-8", RowsFormat.JSON_LINES: "application/x-ndjson"}


@router.post(
    "/queries/file",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}, "application/x-ndjson": {}}, "description": "All rows"}},
)
async def file_of(
    context: ContextDep, caller: CallerDep, body: Question, format: RowsFormat, request: Request
) -> Response:
    """Every row, in ten times the time that a question has. CSV only of SQL: documents of a pipeline may each have other keys. An
    answer that breaks off (time, memory) closes the connection before its end."""
    stop = threading.Event()
    pages = await context.call(_pages, context, caller, body, format, stop)
    try:
        first = await unless_gone(request, stop, context.call(next, pages, None))
    except BaseException:
        stop.set()
        raise
    written = _csv if format is RowsFormat.CSV else _json_lines
    headers = {"content-disposition": f'attachment; filename="rows.{format}"', "cache-control": "private, no-store"}
    return StreamingResponse(_streamed(context, first, pages, written, stop), 200, headers, _MEDIA[format])


def _pages(context: AppContext, caller: Caller, body: Question, format: RowsFormat, stop: threading.Event) -> Pages:
    ask, organization_id = context.queries.pages, body.organization_id
    if body.language == "sql":
        if body.pipeline_id:
            raise NOT_IN_SQL
        return ask(caller, organization_id, stop, text=body.text)
    if format is RowsFormat.CSV:
        raise InvalidInput("Documents of a pipeline are no table", "Download JSON lines, or ask in SQL.")
    if not body.pipeline_id:
        return ask(caller, organization_id, stop, pipeline=stages_of_text(body.text))
    sink = context.pipelines.get(caller, body.pipeline_id)
    stages = stages_of_text(body.text or "[]")
    return ask(caller, sink.organization_id, stop, pipeline=stages, sink_of=sink.id)


async def _streamed(
    context: AppContext,
    first: Found | None,
    pages: Pages,
    written: Callable[[Found], str],
    stop: threading.Event,
) -> AsyncIterator[bytes]:
    page = first
    try:
        while page is not None:
            yield (await context.call(written, page)).encode()
            page = await context.call(next, pages, None)
    except AppError as err:
        log.warning("The download of an answer breaks off: %s. %s", err.message, err.hint)
        raise
    finally:
        stop.set()  # who is reading has gone, or all is read
        await asyncio.shield(context.call(_close, pages))


def _close(pages: Pages) -> None:
    with contextlib.suppress(ValueError):  # a thread is still in it, and ends it as soon as it looks at `stop`
        pages.close()


def _csv(page: Found) -> str:
    """RFC 4180; null is empty, lists and objects are JSON."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\r\n")
    if page.columns:
        table.writerow(page.columns)
    table.writerows([_cell(value) for value in row.values()] for row in _rows(page))
    return text.getvalue()


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value


def _json_lines(page: Found) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in _rows(page))


def _rows(page: Found) -> Iterator[dict[str, Any]]:
    for one in page.rows:
        yield {name: plain(value) for name, value in bson.decode(one).items()}
