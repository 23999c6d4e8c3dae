"""The sequences of a dataset over REST: which there are, and all that was captured in them as a file."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from gleaner.app.context import AppContext
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.item_models import Named
from gleaner.app.services.fleet_values import iso
from gleaner.app.services.sequences_values import CapturedSequence

router = APIRouter(prefix="/api/datasets", tags=["datasets"])


class ResourceModel(BaseModel):
    name: str
    method: str


class SequenceModel(BaseModel):
    """Both times belong to it."""

    id: str
    machine: Named
    part_id: str
    start: str
    end: str
    resources: list[ResourceModel]
    tags: list[str]


class SequencesModel(BaseModel):
    sequences: list[SequenceModel]
    next_token: str


@router.get("/{dataset_id}/sequences")
def sequences(
    context: ContextDep,
    caller: CallerDep,
    dataset_id: str,
    size: Annotated[int, Query(ge=1, le=1000)] = 100,
    token: str = "",
) -> SequencesModel:
    """The newest first."""
    context.sequences.require_dataset(caller, dataset_id)
    page = context.sequences.page_of_dataset(caller, dataset_id, size, token)
    names: dict[str, str] = {}
    return SequencesModel(sequences=[_model(context, one, names) for one in page.sequences], next_token=page.next_token)


@router.get("/{dataset_id}/sequences/file", response_class=StreamingResponse)
def file(context: ContextDep, caller: CallerDep, dataset_id: str) -> StreamingResponse:
    """A zip of three Parquet files: `sequences`, `binary_data` (with the bytes) and `tabular_data`."""
    context.sequence_exports.check(caller, dataset_id)
    found = context.sequence_exports.prepare(caller, dataset_id)
    headers = {"content-disposition": f'attachment; filename="{found.file_name}"', "cache-control": "private, no-store"}
    return StreamingResponse(found.stream(), 200, headers, "application/zip")


def _model(context: AppContext, one: CapturedSequence, names: dict[str, str]) -> SequenceModel:
    if one.part_id not in names:
        place = context.fleet.place(one.part_id)
        names[one.part_id] = place.machine_name if place else "a machine that was deleted"
    covers = one.covers
    return SequenceModel(
        id=one.id,
        machine=Named(id=one.machine_id, name=names[one.part_id]),
        part_id=one.part_id,
        start=iso(covers.start_ns) or "",
        end=iso(covers.end_ns) or "",
        resources=[ResourceModel(name=name, method=method) for name, method in covers.resources],
        tags=list(covers.tags),
    )
