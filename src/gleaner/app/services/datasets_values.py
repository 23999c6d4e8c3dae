"""What the dataset service returns."""

from __future__ import annotations

from dataclasses import dataclass

from gleaner.app.services.items_values import FacetValue


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
class Dataset:
    id: str
    organization_id: str
    name: str
    created_ns: int
    item_count: int = 0
    untagged: int = 0
    labels: tuple[FacetValue, ...] = ()
    """Tags of its items with their counts, most frequent first."""
    cover_rows: tuple[int, ...] = ()
    versions: tuple[DatasetVersion, ...] = ()


@dataclass(frozen=True)
class Materialized:
    """`missing` counts items of the version whose bytes have been deleted since."""

    items: int
    missing: int
