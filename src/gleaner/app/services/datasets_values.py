"""What the dataset service returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gleaner.app.services.items_values import FacetValue


class DatasetType(StrEnum):
    """What its members are; never changes."""

    BINARY = "binary"
    SEQUENCE = "sequence"


@dataclass(frozen=True)
class DatasetVersion:
    """An immutable copy of a dataset's members and their annotations. `hash` covers both and the items' bytes."""

    id: str
    dataset_id: str
    dataset_name: str
    organization_id: str
    version: int
    created_ns: int
    item_count: int
    hash: str


@dataclass(frozen=True)
class BoxLabel:
    """How often a label was given: on how many pictures, to how many boxes, and how many of those only a model drew."""

    label: str
    pictures: int
    boxes: int
    suggested: int


@dataclass(frozen=True)
class Dataset:
    id: str
    organization_id: str
    name: str
    created_ns: int
    item_count: int = 0
    untagged: int = 0
    labels: tuple[FacetValue, ...] = ()
    """Tags of its items with their counts, most frequent first."""
    box_labels: tuple[BoxLabel, ...] = ()
    """Of its items' boxes, most frequent first."""
    unboxed: int = 0
    cover_rows: tuple[int, ...] = ()
    versions: tuple[DatasetVersion, ...] = ()
    type: DatasetType = DatasetType.BINARY
    sequence_count: int = 0
    """Of a dataset of sequences: its members; it has no items."""


@dataclass(frozen=True)
class Materialized:
    """`missing` counts items of the version whose bytes have been deleted since."""

    items: int
    missing: int
