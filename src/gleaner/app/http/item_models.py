"""Items, selections and filters as they cross HTTP; the web page's types are generated from these."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Literal, cast

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic's: `typing` has what it needs from Python 3.12 on

from gleaner.app.errors import InvalidInput
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.services.fleet_values import iso
from gleaner.app.services.items_values import FacetValue, Item, ItemBox, ItemFilter, Origin, Selection

Kind = Literal["image", "point_cloud", "file", "reading"]
Tagged = Literal["tagged", "untagged"]
Boxed = Literal["boxed", "unboxed"]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FilterModel(Body):
    """The filter of a selection; the same names as in a query, as lists where they may repeat."""

    organization_id: str = ""
    location_id: list[str] = []
    machine_id: list[str] = []
    part_id: list[str] = []
    component_name: list[str] = []
    component_type: list[str] = []
    method: list[str] = []
    mime_type: list[str] = []
    tag: list[str] = []
    tagged: Tagged | None = None
    label: list[str] = []
    boxed: Boxed | None = None
    dataset_id: list[str] = []
    start: str | None = None
    end: str | None = None
    kind: Kind | None = None
    search: str = ""
    near: int | None = Field(None, description="A picture's row: only what looks like it, the nearest first.")
    similar: int | None = Field(
        None, description="A picture's row: only what shows something similar, the most similar first. In a query only."
    )
    once: bool = Field(False, description="Of pictures of one camera that look the same only the newest.")

    def to_filter(self) -> ItemFilter:
        return ItemFilter(
            organization_ids=(self.organization_id,) if self.organization_id else (),
            location_ids=tuple(self.location_id),
            machine_ids=tuple(self.machine_id),
            part_ids=tuple(self.part_id),
            component_names=tuple(self.component_name),
            component_types=tuple(self.component_type),
            methods=tuple(self.method),
            mime_types=tuple(self.mime_type),
            kinds=(self.kind,) if self.kind else (),
            tags=tuple(self.tag),
            tagged=None if self.tagged is None else self.tagged == "tagged",
            labels=tuple(self.label),
            boxed=None if self.boxed is None else self.boxed == "boxed",
            dataset_ids=tuple(self.dataset_id),
            start_ns=time_ns(self.start, "start"),
            end_ns=time_ns(self.end, "end"),
            search=self.search,
            near=self.near,
            once=self.once,
        )


def query_filter(query: Annotated[FilterModel, Query()], context: ContextDep, caller: CallerDep) -> ItemFilter:
    if query.similar is None:
        return query.to_filter()
    return replace(query.to_filter(), only=tuple(context.similar.rows(caller, query.similar)))


FilterDep = Annotated[ItemFilter, Depends(query_filter)]


class Chosen(Body):
    """Items by row or by filter; exactly one of the two."""

    rows: list[int] | None = None
    filter: FilterModel | None = None

    def selection(self) -> Selection:
        if (self.rows is None) == (self.filter is None):
            raise InvalidInput("The request chooses no items", "Send either rows or a filter.")
        if self.rows is not None:
            return Selection(rows=tuple(self.rows))
        assert self.filter is not None
        if self.filter.similar is not None:
            raise InvalidInput("Similar pictures cannot be chosen by a filter", "Send their rows.")
        return Selection(filter=self.filter.to_filter())


# Of items there are many in an answer: dictionaries are made in a fifth of the time that models take.


class Named(TypedDict):
    id: str
    name: str


class BoxModel(TypedDict):
    """Edges are normalized: 0–1, x to the right, y down."""

    id: str
    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    confidence: float | None


class ClassificationModel(TypedDict):
    label: str
    confidence: float | None


class _Place(TypedDict):
    """What all items of an origin share."""

    kind: Kind
    mime_type: str
    organization_id: str
    location: Named
    machine: Named
    part: Named
    component_name: str
    component_type: str
    method: str


class ItemModel(_Place):
    row: int
    id: Annotated[str, Field(description="Viam's binary_data_id.")]
    file_name: str
    file_ext: str
    size_bytes: int
    width: int
    height: int
    captured_at: str
    received_at: str
    synced_at: str
    tags: list[str]
    boxes: list[BoxModel]
    classifications: list[ClassificationModel]
    datasets: list[Named]


def box_model(one: ItemBox) -> BoxModel:
    box = one.box
    return {
        "id": one.id,
        "label": box.label,
        "x_min": box.x_min,
        "y_min": box.y_min,
        "x_max": box.x_max,
        "y_max": box.y_max,
        "confidence": box.confidence,
    }


def item_models(items: Iterable[Item]) -> list[ItemModel]:
    places: dict[int, _Place] = {}
    found = []
    for item in items:
        place = places.get(item.origin.id)
        if place is None:
            place = places[item.origin.id] = _place(item.origin)
        found.append(_item_model(item, place))
    return found


def _place(origin: Origin) -> _Place:
    return {
        "kind": cast(Kind, origin.kind),
        "mime_type": origin.mime_type,
        "organization_id": origin.organization_id,
        "location": {"id": origin.location_id, "name": origin.location_name},
        "machine": {"id": origin.machine_id, "name": origin.machine_name},
        "part": {"id": origin.part_id, "name": origin.part_name},
        "component_name": origin.component_name,
        "component_type": origin.component_type,
        "method": origin.method,
    }


def _item_model(item: Item, place: _Place) -> ItemModel:
    return {
        **place,
        "row": item.row,
        "id": item.binary_data_id,
        "file_name": item.file_name,
        "file_ext": item.file_ext,
        "size_bytes": item.size_bytes,
        "width": item.width,
        "height": item.height,
        "captured_at": iso(item.captured_ns) or "",
        "received_at": iso(item.received_ns) or "",
        "synced_at": iso(item.synced_ns) or "",
        "tags": list(item.tags),
        "boxes": [box_model(one) for one in item.boxes],
        "classifications": [{"label": one.label, "confidence": one.confidence} for one in item.classifications],
        "datasets": [{"id": id_, "name": name} for id_, name in item.datasets],
    }


class FacetModel(BaseModel):
    value: str
    label: str
    count: int


class FacetsModel(BaseModel):
    """Each list ignores the filter's own field, so that it shows what else could be chosen."""

    total: int
    total_bytes: int
    untagged: int
    unboxed: int
    kinds: list[FacetModel]
    machines: list[FacetModel]
    locations: list[FacetModel]
    components: list[FacetModel]
    methods: list[FacetModel]
    mime_types: list[FacetModel]
    tags: list[FacetModel]
    labels: list[FacetModel]
    datasets: list[FacetModel]


def facet_models(values: tuple[FacetValue, ...] | list[FacetValue]) -> list[FacetModel]:
    return [FacetModel(**one.__dict__) for one in values]


class Changed(BaseModel):
    changed: int


def time_ns(text: str | None, name: str) -> int | None:
    """Nanoseconds of an ISO 8601 time; UTC if it names no zone. Raises InvalidInput."""
    if not text:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as err:
        raise InvalidInput(f"{name} is {text!r}, which is no time", "Write it like 2026-01-31T12:00:00Z.") from err
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (since.days * 86400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
