"""Turns a filter and a caller into SQL: first on the small table of origins, then on one index of items."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields

import sqlalchemy as sa

from gleaner.app.caller import Caller, Role
from gleaner.app.services.items_values import ItemFilter, Origin
from gleaner.app.store import tables as t

ORIGIN_COLUMNS = [t.origin.c[field.name] for field in fields(Origin)]


def visible_origins(db: sa.Connection, caller: Caller, organization_ids: Iterable[str] = ()) -> list[Origin]:
    """Origins whose items the caller may see, of these organizations or all of the caller's."""
    own = caller.organization_ids()
    wanted = own & frozenset(organization_ids) if organization_ids else own
    if not wanted:
        return []
    rows = db.execute(sa.select(*ORIGIN_COLUMNS).where(t.origin.c.organization_id.in_(wanted)))
    found = (Origin(*row) for row in rows)
    return [one for one in found if caller.role_on(one.organization_id, one.location_id, one.machine_id) is not None]


def require_owner(caller: Caller, origins: Iterable[Origin], what: str) -> None:
    """Raises PermissionDenied unless the caller owns every one of the places."""
    for place in {(one.organization_id, one.location_id, one.machine_id) for one in origins}:
        if caller.role_on(*place) is not Role.OWNER:
            caller.require(*place, owner=True, what=what)


_MATCHES: dict[str, Callable[[ItemFilter, Origin], bool]] = {
    "locations": lambda f, o: not f.location_ids or o.location_id in f.location_ids,
    "machines": lambda f, o: (
        (not f.machine_ids or o.machine_id in f.machine_ids)
        and (not f.machine_names or o.machine_name in f.machine_names)
    ),
    "parts": lambda f, o: (
        (not f.part_ids or o.part_id in f.part_ids) and (not f.part_names or o.part_name in f.part_names)
    ),
    "components": lambda f, o: not f.component_names or o.component_name in f.component_names,
    "component_types": lambda f, o: (
        not f.component_types
        or o.component_type in f.component_types
        or o.component_type.rpartition(":")[2] in f.component_types
    ),
    "methods": lambda f, o: not f.methods or o.method in f.methods,
    "mime_types": lambda f, o: not f.mime_types or o.mime_type in f.mime_types,
    "kinds": lambda f, o: not f.kinds or o.kind in f.kinds,
}


def matching(origins: Iterable[Origin], wanted: ItemFilter, *, without: str = "") -> list[Origin]:
    """Those that fit the filter's fields about origins, ignoring the one called `without`."""
    tests = [test for name, test in _MATCHES.items() if name != without]
    return [one for one in origins if all(test(wanted, one) for test in tests)]


def conditions(
    db: sa.Connection, wanted: ItemFilter, origins: list[Origin], *, without: str = ""
) -> list[sa.ColumnElement[bool]]:
    """WHERE for living items of `origins` that fit the filter's other fields, except the one called `without`."""
    item = t.item.c
    found: list[sa.ColumnElement[bool]] = [item.deleted_ns.is_(None)]
    total = db.scalar(sa.select(sa.func.count()).select_from(t.origin))
    if len(origins) != total:  # naming every origin would only keep the time index from being used
        found.append(item.origin_id.in_([one.id for one in origins]))
    if wanted.tags and without != "tags":
        found.append(item.row.in_(sa.select(t.item_tag.c.row).where(t.item_tag.c.tag.in_(wanted.tags))))
    if wanted.tagged is not None and without != "tags":
        found.append(item.tag_count > 0 if wanted.tagged else item.tag_count == 0)
    if wanted.labels and without != "labels":
        found.append(item.row.in_(sa.select(t.item_box.c.row).where(t.item_box.c.label.in_(wanted.labels))))
    if wanted.dataset_ids and without != "datasets":
        members = sa.select(t.dataset_item.c.row).where(t.dataset_item.c.dataset_id.in_(wanted.dataset_ids))
        found.append(item.row.in_(members))
    if wanted.start_ns is not None:
        found.append(item.captured_ns >= wanted.start_ns)
    if wanted.end_ns is not None:
        found.append(item.captured_ns < wanted.end_ns)
    found += [_search(word, origins) for word in wanted.search.split()]
    return found


def batches_between(wanted: ItemFilter) -> list[sa.ColumnElement[bool]]:
    """WHERE for batches that may hold readings of the filter's range."""
    batch = t.readings_batch.c
    found: list[sa.ColumnElement[bool]] = []
    if wanted.start_ns is not None:
        found.append(batch.last_ns >= wanted.start_ns)
    if wanted.end_ns is not None:
        found.append(batch.first_ns < wanted.end_ns)
    return found


def _search(word: str, origins: list[Origin]) -> sa.ColumnElement[bool]:
    named = [
        one.id
        for one in origins
        if any(word.lower() in name.lower() for name in (one.component_name, one.machine_name, one.method))
    ]
    return sa.or_(
        t.item.c.file_name.icontains(word, autoescape=True),
        t.item.c.file_id == word.rpartition("/")[2],
        t.item.c.row.in_(sa.select(t.item_tag.c.row).where(t.item_tag.c.tag.icontains(word, autoescape=True))),
        t.item.c.origin_id.in_(named),
    )
