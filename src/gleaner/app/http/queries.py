"""Questions in SQL and Mongo's language over REST, those that were saved, and those that are asked again by a schedule."""

from __future__ import annotations

import asyncio
import base64
import math
import threading
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import bson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from gleaner.app.caller import Caller
from gleaner.app.context import AppContext
from gleaner.app.errors import InvalidInput
from gleaner.app.http.answers import Answer, Done, in_json
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.item_models import Body
from gleaner.app.services.fleet_values import iso
from gleaner.app.services.pipelines import NewPipeline, Pipeline, PipelineRun
from gleaner.app.services.query_text import stages_of_text, text_of_stages
from gleaner.app.services.saved_queries import Draft, Language, SavedQuery

MOST_ROWS = 10_000
MOST_EXACT = 2**53 - 1  # what JavaScript's numbers hold exactly (ECMA-262, Number.MAX_SAFE_INTEGER)
_STANDARD = 1
_LOOK_S = 0.25
T = TypeVar("T")
router = APIRouter(prefix="/api", tags=["queries"])
NOT_IN_SQL = InvalidInput("What a data pipeline found is asked in MQL", "Write stages, or leave the pipeline out.")
_LANGUAGE = Field(description='`mql` is a JSON list of stages; a time is written {"$date": "2026-03-04T05:00:00Z"}.')
LanguageName = Literal["sql", "mql"]


class Question(Body):
    organization_id: str
    language: LanguageName = _LANGUAGE
    text: str
    pipeline_id: str = Field(default="", description="In `mql`: ask what this data pipeline found, not the readings.")


class QueryRows(BaseModel):
    """Times are ISO 8601, bytes base64, numbers that are none null, integers beyond 2^53 - 1 text."""

    columns: list[str] = Field(
        description="Those of the SELECT, or every name of the documents' first level in the order they first come."
    )
    rows: list[dict[str, Any]]
    count: int = Field(description=f"All that were found; at most {MOST_ROWS:,} of them are in `rows`.")
    seconds: float


class SavedQueryModel(Answer):
    id: str
    name: str
    language: LanguageName
    text: str
    updated_at: str

    @classmethod
    def of(cls, one: SavedQuery) -> SavedQueryModel:
        language: LanguageName = "sql" if one.asks.language is Language.SQL else "mql"
        return cls(id=one.id, name=one.name, language=language, text=one.text, updated_at=iso(one.updated_ns) or "")


class NewSavedQuery(Body):
    name: str
    language: LanguageName
    text: str


class SavedQueryChange(Body):
    """What is left out stays."""

    name: str = ""
    language: LanguageName = "sql"
    text: str = ""


class PipelineRunModel(Answer):
    id: str
    status: Literal["started", "completed", "failed"]
    started_at: str
    ended_at: str | None
    data_start: str
    data_end: str
    error: str

    @classmethod
    def of(cls, one: PipelineRun) -> PipelineRunModel:
        status: Any = one.status.name.lower()
        return cls(
            id=one.id,
            status=status,
            started_at=iso(one.started_ns) or "",
            ended_at=iso(one.ended_ns) if one.ended_ns else None,
            data_start=iso(one.data_start_ns) or "",
            data_end=iso(one.data_end_ns) or "",
            error=one.error,
        )


class PipelineModel(Answer):
    id: str
    name: str
    text: str
    schedule: str
    enabled: bool
    created_at: str
    last_run: PipelineRunModel | None

    @classmethod
    def of(cls, one: Pipeline, runs: Sequence[PipelineRun]) -> PipelineModel:
        return cls(
            id=one.id,
            name=one.name,
            text=text_of_stages(one.stages),
            schedule=one.schedule,
            enabled=one.enabled,
            created_at=iso(one.created_ns) or "",
            last_run=PipelineRunModel.of(runs[0]) if runs else None,
        )


class NewPipelineBody(Body):
    name: str
    text: str
    schedule: str = Field(description='Cron, five fields, UTC: "0 * * * *" is every hour.')
    backfill: bool = Field(default=False, description="Begin with the oldest readings.")


class PipelineChange(Body):
    """What is left out stays."""

    name: str | None = None
    enabled: bool | None = None


@router.post("/queries", response_model=QueryRows)
async def ask(context: ContextDep, caller: CallerDep, body: Question, request: Request) -> Response:
    """Who closes the connection stops the query."""
    stop = threading.Event()
    try:
        return in_json(await unless_gone(request, stop, context.call(_answered, context, caller, body, stop)))
    finally:
        stop.set()  # also when this task is cancelled, as an app that stops does


async def unless_gone(request: Request, stop: threading.Event, asking: Coroutine[Any, Any, T]) -> T:
    """Sets `stop` when the client closes the connection."""
    answering = asyncio.create_task(asking)
    while not (await asyncio.wait([answering], timeout=_LOOK_S))[0]:
        if await request.is_disconnected():
            stop.set()
    return await answering


def _answered(context: AppContext, caller: Caller, body: Question, stop: threading.Event) -> QueryRows:
    began_s = time.monotonic()
    columns: list[str] = []
    if body.language == "sql":
        if body.pipeline_id:
            raise NOT_IN_SQL
        answer = context.queries.sql(caller, body.organization_id, body.text, stop)
        columns, found = answer.columns, answer.rows
    elif body.pipeline_id:
        pipeline = context.pipelines.get(caller, body.pipeline_id)
        stages = stages_of_text(body.text or "[]")
        found = context.queries.mql_of_sink(caller, pipeline.organization_id, pipeline.id, stages, stop)
    else:
        found = context.queries.mql(caller, body.organization_id, stages_of_text(body.text), stop)
    rows = [{name: plain(value) for name, value in bson.decode(one).items()} for one in found[:MOST_ROWS]]
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    seconds = round(time.monotonic() - began_s, 3)
    return QueryRows(columns=columns, rows=rows, count=len(found), seconds=seconds)


@router.get("/organizations/{organization_id}/queries")
def list_saved(context: ContextDep, caller: CallerDep, organization_id: str) -> list[SavedQueryModel]:
    return [SavedQueryModel.of(one) for one in context.saved_queries.of_organization(caller, organization_id)]


@router.post("/organizations/{organization_id}/queries")
def save(context: ContextDep, caller: CallerDep, organization_id: str, body: NewSavedQuery) -> SavedQueryModel:
    asks = Draft.typed(Language(body.language), body.text)
    return SavedQueryModel.of(context.saved_queries.create(caller, organization_id, body.name, asks))


@router.patch("/queries/{query_id}")
def change_saved(context: ContextDep, caller: CallerDep, query_id: str, body: SavedQueryChange) -> SavedQueryModel:
    asks = Draft.typed(Language(body.language), body.text) if body.text else None
    return SavedQueryModel.of(context.saved_queries.change(caller, query_id, body.name, asks))


@router.delete("/queries/{query_id}")
def delete_saved(context: ContextDep, caller: CallerDep, query_id: str) -> Done:
    context.saved_queries.delete(caller, query_id)
    return Done()


@router.get("/organizations/{organization_id}/pipelines")
def list_pipelines(context: ContextDep, caller: CallerDep, organization_id: str) -> list[PipelineModel]:
    found = context.pipelines.of_organization(caller, organization_id)
    return [PipelineModel.of(one, context.pipelines.runs(caller, one.id, 1)[0]) for one in found]


@router.post("/organizations/{organization_id}/pipelines")
def create_pipeline(
    context: ContextDep, caller: CallerDep, organization_id: str, body: NewPipelineBody
) -> PipelineModel:
    stages = stages_of_text(body.text)
    new = NewPipeline(organization_id, body.name, stages, body.schedule, body.backfill, _STANDARD)
    made = context.pipelines.create(caller, new)
    context.pipeline_runner.soon()
    return PipelineModel.of(made, [])


@router.patch("/pipelines/{pipeline_id}")
def change_pipeline(context: ContextDep, caller: CallerDep, pipeline_id: str, body: PipelineChange) -> PipelineModel:
    if body.name is not None:
        context.pipelines.rename(caller, pipeline_id, body.name)
    if body.enabled is True:
        context.pipelines.enable(caller, pipeline_id)
        context.pipeline_runner.soon()
    elif body.enabled is False:
        context.pipelines.disable(caller, pipeline_id)
    runs, _ = context.pipelines.runs(caller, pipeline_id, 1)
    return PipelineModel.of(context.pipelines.get(caller, pipeline_id), runs)


@router.delete("/pipelines/{pipeline_id}")
def delete_pipeline(context: ContextDep, caller: CallerDep, pipeline_id: str) -> Done:
    """What it found goes, too."""
    context.pipelines.delete(caller, pipeline_id)
    return Done()


@router.get("/pipelines/{pipeline_id}/runs")
def list_runs(context: ContextDep, caller: CallerDep, pipeline_id: str) -> list[PipelineRunModel]:
    """The newest hundred."""
    return [PipelineRunModel.of(one) for one in context.pipelines.runs(caller, pipeline_id, 100)[0]]


def plain(value: Any) -> Any:
    """A value of a BSON document as JSON has it: see QueryRows."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, datetime):  # BSON's times are UTC and come without saying so
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and abs(value) > MOST_EXACT:
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
