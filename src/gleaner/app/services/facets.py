"""How many items there are of each kind, machine, tag, …: the numbers beside the filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from gleaner.app.services.items_filter import batches_between, conditions, matching
from gleaner.app.services.items_values import Facets, FacetValue, ItemFilter, Origin
from gleaner.app.store import sniff
from gleaner.app.store import tables as t

_MOST_VALUES = 1000


@dataclass(frozen=True)
class Totals:
    count: int
    size: int
    untagged: int


def count(db: sa.Connection, origins: list[Origin], wanted: ItemFilter) -> Facets:
    """`origins` are those the caller may see."""
    chosen = matching(origins, wanted)
    datasets = _counts(
        db, t.dataset_item, t.dataset_item.c.dataset_id, conditions(db, wanted, chosen, origins, without="datasets")
    )
    return assemble(
        origins,
        wanted,
        _per_origin(db, origins, wanted),
        readings(db, origins, wanted),
        _unboxed(db, chosen, origins, wanted),
        _joined(db, chosen, origins, wanted, "tags", t.item_tag, t.item_tag.c.tag),
        _joined(db, chosen, origins, wanted, "labels", t.item_box, t.item_box.c.label),
        named_datasets(db, datasets),
    )


def assemble(
    origins: list[Origin],
    wanted: ItemFilter,
    per_origin: dict[int, Totals],
    readings: list[FacetValue],
    unboxed: int,
    tags: list[FacetValue],
    labels: list[FacetValue],
    datasets: list[FacetValue],
) -> Facets:
    """What depends on the origin alone is added up from `per_origin`: the items that fit all other fields."""
    totals = [per_origin[one.id] for one in matching(origins, wanted) if one.id in per_origin]

    def facet(name: str, value: Callable[[Origin], str], label: Callable[[Origin], str]) -> list[FacetValue]:
        counts: Counter[str] = Counter()
        labels: dict[str, str] = {}
        for one in matching(origins, wanted, without=name):
            if one.id in per_origin and value(one):
                counts[value(one)] += per_origin[one.id].count
                labels[value(one)] = label(one)
        return _sorted(FacetValue(v, labels[v], n) for v, n in counts.items())

    return Facets(
        total=sum(one.count for one in totals),
        total_bytes=sum(one.size for one in totals),
        untagged=sum(one.untagged for one in totals),
        unboxed=unboxed,
        kinds=facet("kinds", lambda o: o.kind, lambda o: o.kind) + readings,
        machines=facet("machines", lambda o: o.machine_id, lambda o: o.machine_name),
        locations=facet("locations", lambda o: o.location_id, lambda o: o.location_name),
        components=facet("components", lambda o: o.component_name, lambda o: o.component_name),
        methods=facet("methods", lambda o: o.method, lambda o: o.method),
        mime_types=facet("mime_types", lambda o: o.mime_type, lambda o: o.mime_type),
        tags=tags,
        labels=labels,
        datasets=datasets,
    )


def listed(counts: Mapping[str, tuple[str, int]]) -> list[FacetValue]:
    """The most frequent values; `counts` is value → (label, number)."""
    most = sorted(counts.items(), key=lambda one: -one[1][1])[:_MOST_VALUES]
    return _sorted(FacetValue(value, label, number) for value, (label, number) in most)


def named_datasets(db: sa.Connection, counts: Mapping[str, int]) -> list[FacetValue]:
    """The most frequent datasets under their names; `counts` is dataset id → number."""
    most = dict(Counter(counts).most_common(_MOST_VALUES))
    names = db.execute(sa.select(t.dataset.c.id, t.dataset.c.name).where(t.dataset.c.id.in_(most)))
    return _sorted(FacetValue(value, label, most[value]) for value, label in names)


def _per_origin(db: sa.Connection, origins: list[Origin], wanted: ItemFilter) -> dict[int, Totals]:
    """One pass over an index answers every facet that depends on the origin alone."""
    item = t.item.c
    untagged = sa.func.sum(sa.case((item.tag_count == 0, 1), else_=0))
    query = sa.select(item.origin_id, sa.func.count(), sa.func.sum(item.size_bytes), untagged)
    rows = db.execute(query.where(*conditions(db, wanted, origins, origins)).group_by(item.origin_id))
    return {origin_id: Totals(n, int(size), int(bare)) for origin_id, n, size, bare in rows}


def _unboxed(db: sa.Connection, chosen: list[Origin], visible: list[Origin], wanted: ItemFilter) -> int:
    """Those without any box, whatever labels the filter asks for."""
    has_box = sa.exists().where(t.item_box.c.row == t.item.c.row)
    where = conditions(db, wanted, chosen, visible, without="labels")
    return int(db.scalar(sa.select(sa.func.count()).select_from(t.item).where(*where, ~has_box)) or 0)


def _joined(
    db: sa.Connection,
    chosen: list[Origin],
    visible: list[Origin],
    wanted: ItemFilter,
    name: str,
    table: sa.Table,
    column: sa.Column[str],
) -> list[FacetValue]:
    counts = _counts(db, table, column, conditions(db, wanted, chosen, visible, without=name))
    return listed({value: (value, n) for value, n in counts.items()})


def _counts(
    db: sa.Connection, table: sa.Table, column: sa.Column[str], where: list[sa.ColumnElement[bool]]
) -> Counter[str]:
    """How many items that fulfil `where` have each value of `column`."""
    is_unique = set(table.primary_key.columns) == {table.c.row, column}  # counting distinct rows costs twice as much
    number = sa.func.count() if is_unique else sa.func.count(sa.distinct(table.c.row))
    query = sa.select(column, number).group_by(column)
    if len(where) > 1:
        rows = sa.select(t.item.c.row).where(*where)
        return Counter({str(value): int(n) for value, n in db.execute(query.where(table.c.row.in_(rows)))})
    # Every living item: all minus the few deleted ones, which touches a hundredth of the rows.
    deleted = sa.select(t.item.c.row).where(t.item.c.deleted_ns.is_not(None))
    counts = Counter({str(value): int(n) for value, n in db.execute(query)})
    counts.subtract({str(value): int(n) for value, n in db.execute(query.where(table.c.row.in_(deleted)))})
    return +counts


def readings(db: sa.Connection, origins: list[Origin], wanted: ItemFilter) -> list[FacetValue]:
    """Readings are no items, but their number stands beside the other kinds."""
    ids = [one.id for one in matching(origins, wanted, without="kinds") if one.kind == sniff.READING]
    batch = t.readings_batch.c
    where = [batch.origin_id.in_(ids), batch.deleted_ns.is_(None), *batches_between(wanted)]
    number = db.scalar(sa.select(sa.func.sum(batch.count)).where(*where)) if ids else 0
    return [FacetValue(sniff.READING, sniff.READING, int(number))] if number else []


def _sorted(values: Iterable[FacetValue]) -> list[FacetValue]:
    return sorted(values, key=lambda one: (-one.count, one.label.lower()))
