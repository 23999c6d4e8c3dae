"""What the item services take and return."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gleaner.app.store.records import Box, Classification


@dataclass(frozen=True)
class ItemFilter:
    """Which items. Values of one field are alternatives, fields combine with AND, an empty field asks for nothing.

    `start_ns` is inclusive, `end_ns` exclusive, both by capture time. `component_types` match the whole triplet or its
    last part. `tagged` asks for any tag (True) or none (False), `boxed` for any box
    or none. `search` looks at file, tag, component and machine names.
    """

    organization_ids: tuple[str, ...] = ()
    location_ids: tuple[str, ...] = ()
    machine_ids: tuple[str, ...] = ()
    machine_names: tuple[str, ...] = ()
    part_ids: tuple[str, ...] = ()
    part_names: tuple[str, ...] = ()
    component_names: tuple[str, ...] = ()
    component_types: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    resources: tuple[tuple[str, str], ...] = ()
    """(component name, method)."""
    mime_types: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    tagged: bool | None = None
    labels: tuple[str, ...] = ()
    boxed: bool | None = None
    dataset_ids: tuple[str, ...] = ()
    start_ns: int | None = None
    end_ns: int | None = None
    search: str = ""
    near: int | None = None
    """A picture's row: only pictures that look like it, itself among them."""
    only: tuple[int, ...] | None = None
    """Of these rows; where newest first is asked for, their order counts instead."""
    once: bool = False
    """Of pictures from one place (`Origin`) that look the same only one: the newest row among the chosen."""


@dataclass(frozen=True)
class Selection:
    """Items chosen one by one or by a filter; exactly one of the two is set."""

    rows: tuple[int, ...] | None = None
    filter: ItemFilter | None = None

    def __post_init__(self) -> None:
        if (self.rows is None) == (self.filter is None):
            raise ValueError("a selection has either rows or a filter")


@dataclass(frozen=True)
class Origin:
    """Where and how items were captured; the names are the fleet's at the last upload from there."""

    id: int
    organization_id: str
    location_id: str
    machine_id: str
    part_id: str
    component_type: str
    component_name: str
    method: str
    mime_type: str
    kind: str
    location_name: str
    machine_name: str
    part_name: str


@dataclass(frozen=True)
class ItemBox:
    id: str
    box: Box


@dataclass(frozen=True)
class Item:
    """One picture, point cloud or file. Times in nanoseconds since the epoch."""

    row: int
    file_id: str
    origin: Origin
    file_name: str
    file_ext: str
    size_bytes: int
    width: int
    height: int
    captured_ns: int
    received_ns: int
    synced_ns: int
    method_parameters: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    boxes: tuple[ItemBox, ...] = ()
    classifications: tuple[Classification, ...] = ()
    datasets: tuple[tuple[str, str], ...] = ()
    """(id, name) of each dataset it is in."""

    @property
    def binary_data_id(self) -> str:
        """Viam's handle: `<organization>/<location>/<file id>`."""
        return f"{self.origin.organization_id}/{self.origin.location_id}/{self.file_id}"


@dataclass(frozen=True)
class Page:
    """`last` asks for the next page; it stays the same once there is no more."""

    items: list[Item]
    last: str


@dataclass(frozen=True)
class Content:
    """An item's bytes; `read(start, length)` streams a range in pieces of about 1 MiB."""

    item: Item
    read: Callable[[int, int], Iterator[bytes]]

    def all(self) -> bytes:
        return b"".join(self.read(0, self.item.size_bytes))


@dataclass(frozen=True)
class Deletion:
    """`undo` brings the items back until their bytes are freed after 24 hours."""

    deleted: int
    undo: str


@dataclass(frozen=True)
class FacetValue:
    value: str
    label: str
    count: int


@dataclass(frozen=True)
class Facets:
    """Counts under a filter. Each list ignores the filter's own field, so that it shows what else could be chosen."""

    total: int
    total_bytes: int
    untagged: int
    unboxed: int
    kinds: list[FacetValue]
    machines: list[FacetValue]
    locations: list[FacetValue]
    components: list[FacetValue]
    methods: list[FacetValue]
    mime_types: list[FacetValue]
    tags: list[FacetValue]
    labels: list[FacetValue]
    datasets: list[FacetValue]


@dataclass(frozen=True)
class Suggested:
    """Which of a model's boxes: of these labels (all if empty), with a confidence of at least `at_least` and below `below`."""

    labels: tuple[str, ...] = ()
    at_least: float = 0.0
    below: float | None = None


class Settle(StrEnum):
    """What becomes of a model's boxes; `COUNT` only tells how many there are."""

    ACCEPT = "accept"
    DISMISS = "dismiss"
    COUNT = "count"


@dataclass(frozen=True)
class Settled:
    boxes: int
    pictures: int
