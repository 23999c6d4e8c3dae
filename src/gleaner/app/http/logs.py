"""What machines log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.models_fleet import LogLineModel, LogPageModel

router = APIRouter()


@router.get("/parts/{part_id}/logs")
def part_logs(
    part_id: str,
    context: ContextDep,
    caller: CallerDep,
    level: Annotated[list[str] | None, Query()] = None,
    search: str = "",
    before: int | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> LogPageModel:
    page = context.logs.page(caller, part_id, levels=level or [], search=search, before=before, limit=limit)
    return LogPageModel(logs=[LogLineModel.model_validate(line.as_json()) for line in page.lines], next=page.next)
