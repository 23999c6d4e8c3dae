"""How many items there are of each kind, machine, tag, …: the numbers beside the filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from gleaner.app.services.items_filter import batches_between, conditions, matching
from gleaner.app.services.items_values import Facets, FacetValue, ItemFilter, Origin
from gleaner.app.store import sniff
from gleaner.app.store import tables as t

_MOST_VALUES = 1000


@dataclass(frozen=True)
class _Totals:
    count: int
    size: int
    untagged: int


def count(db: sa.Connection, origins: list[Origin], wanted: ItemFilter) -> Facets:
    """`origins` are those the caller may see."""
    per_origin = _per_origin(db, origins, wanted)
    chosen = matching(origins, wanted)
    totals = [per_origin[one.id] for one in chosen if one.id in per_origin]

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
        kinds=facet("kinds", lambda o: o.kind, lambda o: o.kind) + _readings(db, origins, wanted),
        machines=facet("machines", lambda o: o.machine_id, lambda o: o.machine_name),
        locations=facet("locations", lambda o: o.location_id, lambda o: o.location_name),
        components=facet("components", lambda o: o.component_name, lambda o: o.component_name),
        methods=facet("methods", lambda o: o.method, lambda o: o.method),
        mime_types=facet("mime_types", lambda o: o.mime_type, lambda o: o.mime_type),
        tags=_joined(db, chosen, wanted, "tags", t.item_tag, t.item_tag.c.tag),
        labels=_joined(db, chosen, wanted, "labels", t.item_box, t.item_box.c.label),
        datasets=_datasets(db, chosen, wanted),
    )


def _per_origin(db: sa.Connection, origins: list[Origin], wanted: ItemFilter) -> dict[int, _Totals]:
    """One pass over an index answers every facet that depends on the origin alone."""
    item = t.item.c
    untagged = sa.func.sum(sa.case((item.tag_count == 0, 1), else_=0))
    query = sa.select(item.origin_id, sa.func.count(), sa.func.sum(item.size_bytes), untagged)
    rows = db.execute(query.where(*conditions(db, wanted, origins)).group_by(item.origin_id))
    return {origin_id: _Totals(n, int(size), int(bare)) for origin_id, n, size, bare in rows}


def _joined(
    db: sa.Connection, chosen: list[Origin], wanted: ItemFilter, name: str, table: sa.Table, column: sa.Column[str]
) -> list[FacetValue]:
    counts = _counts(db, table, column, conditions(db, wanted, chosen, without=name))
    return _sorted(FacetValue(value, value, n) for value, n in counts.most_common(_MOST_VALUES))


def _datasets(db: sa.Connection, chosen: list[Origin], wanted: ItemFilter) -> list[FacetValue]:
    where = conditions(db, wanted, chosen, without="datasets")
    counts = _counts(db, t.dataset_item, t.dataset_item.c.dataset_id, where)
    listed = dict(counts.most_common(_MOST_VALUES))
    names = db.execute(sa.select(t.dataset.c.id, t.dataset.c.name).where(t.dataset.c.id.in_(listed)))
    return _sorted(FacetValue(value, label, listed[value]) for value, label in names)


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


def _readings(db: sa.Connection, origins: list[Origin], wanted: ItemFilter) -> list[FacetValue]:
    """Readings are no items, but their number stands beside the other kinds."""
    ids = [one.id for one in matching(origins, wanted, without="kinds") if one.kind == sniff.READING]
    batch = t.readings_batch.c
    where = [batch.origin_id.in_(ids), batch.deleted_ns.is_(None), *batches_between(wanted)]
    number = db.scalar(sa.select(sa.func.sum(batch.count)).where(*where)) if ids else 0
    return [FacetValue(sniff.READING, sniff.READING, int(number))] if number else []


def _sorted(values: Iterable[FacetValue]) -> list[FacetValue]:
    return sorted(values, key=lambda one: (-one.count, one.label.lower()))
