"""Items over REST: the gallery's rows and counts, details, pictures, tags, boxes, deletion."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import asdict

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from gleaner.app.http.answers import Done, in_json
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.item_models import (
    Body,
    BoxModel,
    Changed,
    Chosen,
    FacetsModel,
    FilterDep,
    ItemModel,
    box_model,
    item_models,
)
from gleaner.app.http.thumbs import FOREVER, thumb_answer
from gleaner.app.services.items_values import Content, Item, Settle, Suggested
from gleaner.app.store.records import Box

_BEGINNING, _PIECE = 16 << 10, 256 << 10

router = APIRouter(prefix="/api/items", tags=["items"])

# Types a browser may show in place; everything else is downloaded, so that no uploaded page or SVG runs as ours.
_SHOWN = ("image/jpeg", "image/png", "image/gif", "image/webp", "image/bmp", "video/mp4", "audio/wav", "audio/mpeg")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Rows(Body):
    rows: list[int]


class Found(BaseModel):
    items: list[ItemModel]


class TagChange(Chosen):
    add: list[str] = Field(default_factory=list)
    remove: list[str] = Field(default_factory=list)


class SuggestedBoxes(Chosen):
    """Which of a model's boxes in the chosen items: by label (all if none is named) and confidence."""

    action: Settle
    labels: list[str] = Field(default_factory=list)
    at_least: float = Field(0.0, ge=0, le=1, description="Only boxes at least this sure.")
    below: float | None = Field(None, ge=0, le=1, description="Only boxes less sure than this.")


class SettledModel(BaseModel):
    boxes: int
    pictures: int


class Deleted(BaseModel):
    deleted: int
    undo: str


class Undo(Body):
    undo: str


class NewBox(Body):
    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    confidence: float | None = None


class BoxChange(Body):
    label: str | None = None
    x_min: float | None = None
    y_min: float | None = None
    x_max: float | None = None
    y_max: float | None = None
    confidence: float | None = None


@router.get(
    "/index",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "u32 LE rows, newest first"}},
)
def index(context: ContextDep, caller: CallerDep, wanted: FilterDep) -> Response:
    rows = context.items.index(caller, wanted)
    headers = {"content-length": str(len(rows))}
    return StreamingResponse(_in_turns(rows), media_type="application/octet-stream", headers=headers)


@router.get("/facets", response_model=FacetsModel)
def facets(context: ContextDep, caller: CallerDep, wanted: FilterDep) -> Response:
    return in_json(FacetsModel(**asdict(context.items.facets(caller, wanted))))


@router.post("/lookup", response_model=Found)
def lookup(context: ContextDep, caller: CallerDep, body: Rows) -> Response:
    found = Found.model_construct(items=item_models(context.items.lookup(caller, body.rows)))
    return in_json(found)


@router.get("/{row}/thumb", response_class=Response)
async def thumb(context: ContextDep, row: int, request: Request) -> Response:
    """A JPEG of at most 320 pixels; a neutral drawing for what cannot be shown."""
    return await thumb_answer(context, request, row)


@router.get("/{row}/content", response_class=StreamingResponse)
def content(context: ContextDep, caller: CallerDep, row: int, request: Request) -> Response:
    """The bytes as they were uploaded; ranges are honoured."""
    return content_answer(context.items.content(caller, row), request)


def content_answer(found: Content, request: Request) -> Response:
    """An item's bytes, or the part of them that was asked for."""
    size = found.item.size_bytes
    headers = FOREVER | _download_headers(found.item) | {"accept-ranges": "bytes", "etag": f'"{found.item.file_id}"'}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    part = _range(request.headers.get("range", ""), size)
    if part is None:
        return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
    start, length = part
    headers["content-length"] = str(length)
    if not _asks_for_range(request):
        return StreamingResponse(found.read(0, size), 200, headers)
    headers["content-range"] = f"bytes {start}-{start + length - 1}/{size}"
    return StreamingResponse(found.read(start, length), 206, headers)


@router.post("/tags")
def change_tags(context: ContextDep, caller: CallerDep, body: TagChange) -> Changed:
    return Changed(changed=context.items.change_tags(caller, body.selection(), body.add, body.remove))


@router.post("/delete")
def delete(context: ContextDep, caller: CallerDep, body: Chosen) -> Deleted:
    """Hidden at once; the bytes are freed after 24 hours, until then `undo` brings them back."""
    return Deleted(**asdict(context.items.delete(caller, body.selection())))


@router.post("/undelete")
def undelete(context: ContextDep, caller: CallerDep, body: Undo) -> Changed:
    return Changed(changed=context.items.undelete(caller, body.undo))


@router.post("/suggested-boxes")
def settle_boxes(context: ContextDep, caller: CallerDep, body: SuggestedBoxes) -> SettledModel:
    """Accepts or dismisses boxes that a model drew and nobody has accepted yet."""
    which = Suggested(tuple(body.labels), body.at_least, body.below)
    done = context.items.settle_boxes(caller, body.selection(), which, body.action)
    return SettledModel(boxes=done.boxes, pictures=done.pictures)


@router.post("/{row}/boxes")
def add_box(context: ContextDep, caller: CallerDep, row: int, body: NewBox) -> BoxModel:
    return box_model(context.items.add_box(caller, row, Box(**body.model_dump())))


@router.put("/{row}/boxes/{box_id}")
def put_box(context: ContextDep, caller: CallerDep, row: int, box_id: str, body: NewBox) -> BoxModel:
    """Makes the box what is sent, whether it is there or not: sent twice it is the same, so a page may send it again."""
    return box_model(context.items.put_box(caller, row, box_id, Box(**body.model_dump())))


@router.patch("/{row}/boxes/{box_id}")
def update_box(context: ContextDep, caller: CallerDep, row: int, box_id: str, body: BoxChange) -> BoxModel:
    return box_model(context.items.update_box(caller, row, box_id, **body.model_dump(exclude_unset=True)))


@router.delete("/{row}/boxes/{box_id}")
def remove_box(context: ContextDep, caller: CallerDep, row: int, box_id: str) -> Done:
    context.items.remove_box(caller, row, box_id)
    return Done()


def _download_headers(item: Item) -> dict[str, str]:
    mime = item.origin.mime_type
    name = item.file_name or f"{item.file_id}{item.file_ext}"
    plain = re.sub(r'[^\x20-\x7e]|["\\]', "_", name)
    shown = mime in _SHOWN
    return {
        "content-type": mime if shown else "application/octet-stream",
        "content-disposition": f'{"inline" if shown else "attachment"}; filename="{plain}"',
        "content-security-policy": "default-src 'none'; sandbox",
    }


def _asks_for_range(request: Request) -> bool:
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    return match is not None and match.groups() != ("", "")


def _range(header: str, size: int) -> tuple[int, int] | None:
    """(start, length) of one byte range, the whole if none that this server knows is asked for; None if outside."""
    match = _RANGE.fullmatch(header.strip())
    if not match or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        return (size - length, length) if length else None
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    return (start, end - start + 1) if start < size and start <= end else None


async def _in_turns(whole: bytes) -> AsyncIterator[bytes]:
    """A beginning that fills a screen, then pieces: between them others are answered, the page's next question first of all."""
    yield whole[:_BEGINNING]
    for start in range(_BEGINNING, len(whole), _PIECE):
        yield whole[start : start + _PIECE]
