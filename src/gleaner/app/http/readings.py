"""Sensor readings over REST."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.item_models import FilterDep, Named, time_ns
from gleaner.app.services.fleet_values import iso
from gleaner.app.services.items_values import ItemFilter
from gleaner.app.services.readings import MOST_ROWS

router = APIRouter(prefix="/api/readings", tags=["readings"])


class SeriesModel(BaseModel):
    part: Named
    machine: Named
    component_name: str
    component_type: str
    method: str
    count: int
    first: str
    last: str
    latest: dict[str, Any]


class ReadingModel(BaseModel):
    time: str
    readings: dict[str, Any]


class ReadingRows(BaseModel):
    rows: list[ReadingModel]


@router.get("/series")
def series(context: ContextDep, caller: CallerDep, wanted: FilterDep) -> list[SeriesModel]:
    return [
        SeriesModel(
            part=Named(id=one.origin.part_id, name=one.origin.part_name),
            machine=Named(id=one.origin.machine_id, name=one.origin.machine_name),
            component_name=one.origin.component_name,
            component_type=one.origin.component_type,
            method=one.origin.method,
            count=one.count,
            first=iso(one.first_ns) or "",
            last=iso(one.last_ns) or "",
            latest=_shown(one.latest),
        )
        for one in context.readings.series(caller, wanted)
    ]


@router.get("")
def rows(
    context: ContextDep,
    caller: CallerDep,
    part_id: str,
    component_name: str,
    method: str,
    start: str | None = None,
    end: str | None = None,
    limit: int = Query(default=100, ge=1, le=MOST_ROWS),
) -> ReadingRows:
    wanted = ItemFilter(
        part_ids=(part_id,),
        component_names=(component_name,),
        methods=(method,),
        start_ns=time_ns(start, "start"),
        end_ns=time_ns(end, "end"),
    )
    found = context.readings.rows(caller, wanted, limit)
    return ReadingRows(
        rows=[ReadingModel(time=iso(one.requested_ns) or "", readings=_shown(one.data)) for one in found]
    )


def _shown(data: dict[str, Any]) -> dict[str, Any]:
    """A sensor's values without Viam's wrapper; JSON has no word for NaN and infinity, so they become null."""
    inner = data.get("readings") if len(data) == 1 else None
    return _finite(inner if isinstance(inner, dict) else data)  # type: ignore[no-any-return]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
