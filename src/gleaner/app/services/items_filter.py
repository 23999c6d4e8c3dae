"""Turns a filter and a caller into SQL: first on the small table of origins, then on one index of items."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields

import numpy as np
import sqlalchemy as sa

from gleaner.app.caller import Caller, Role
from gleaner.app.services.items_values import ItemFilter, Origin
from gleaner.app.services.picture_hash import are_near
from gleaner.app.store import tables as t

ORIGIN_COLUMNS = [t.origin.c[field.name] for field in fields(Origin)]

_ORIGINS_OF = sa.select(*ORIGIN_COLUMNS).where(
    t.origin.c.organization_id.in_(sa.bindparam("organizations", expanding=True))
)


def visible_origins(db: sa.Connection, caller: Caller, organization_ids: Iterable[str] = ()) -> list[Origin]:
    """Origins whose items the caller may see, of these organizations or all of the caller's."""
    own = caller.organization_ids()
    wanted = own & frozenset(organization_ids) if organization_ids else own
    if not wanted:
        return []
    rows = db.execute(_ORIGINS_OF, {"organizations": list(wanted)})
    found = (Origin(*row) for row in rows)
    return [one for one in found if caller.role_on(one.organization_id, one.location_id, one.machine_id) is not None]


def origins_of(db: sa.Connection, organization_id: str) -> list[Origin]:
    """All of an organization, for work of the app's own."""
    rows = db.execute(sa.select(*ORIGIN_COLUMNS).where(t.origin.c.organization_id == organization_id))
    return [Origin(*row) for row in rows]


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
    "resources": lambda f, o: not f.resources or (o.component_name, o.method) in f.resources,
    "mime_types": lambda f, o: not f.mime_types or o.mime_type in f.mime_types,
    "kinds": lambda f, o: not f.kinds or o.kind in f.kinds,
}


def matching(origins: Iterable[Origin], wanted: ItemFilter, *, without: str = "") -> list[Origin]:
    """Those that fit the filter's fields about origins, ignoring the one called `without`."""
    tests = [test for name, test in _MATCHES.items() if name != without]
    return [one for one in origins if all(test(wanted, one) for test in tests)]


def conditions(
    db: sa.Connection, wanted: ItemFilter, origins: list[Origin], visible: list[Origin], *, without: str = ""
) -> list[sa.ColumnElement[bool]]:
    """WHERE for living items of `origins` that fit the filter's other fields, except the one called `without`.

    `visible` are those the caller may see: the picture that others look like must be of them.
    """
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
    if wanted.boxed is not None and without != "labels":
        has_box = sa.exists().where(t.item_box.c.row == item.row)
        found.append(has_box if wanted.boxed else ~has_box)
    if wanted.dataset_ids and without != "datasets":
        members = sa.select(t.dataset_item.c.row).where(t.dataset_item.c.dataset_id.in_(wanted.dataset_ids))
        found.append(item.row.in_(members))
    if wanted.start_ns is not None:
        found.append(item.captured_ns >= wanted.start_ns)
    if wanted.end_ns is not None:
        found.append(item.captured_ns < wanted.end_ns)
    found += [_search(word, origins) for word in wanted.search.split()]
    if wanted.near is not None:
        found.append(item.row.in_(t.rows_in(near_rows(db, wanted.near, visible), db.dialect.name)))
    if wanted.only is not None:
        found.append(item.row.in_(t.rows_in(list(wanted.only), db.dialect.name)))
    if wanted.once:
        found = [item.deleted_ns.is_(None), item.row.in_(_once(found))]
    return found


def _once(where: list[sa.ColumnElement[bool]]) -> sa.Select[tuple[int]]:
    """The newest row of each group that looks the same; what was not looked at stands for itself."""
    item, hashed = t.item.c, t.item_hash.c
    group = sa.func.coalesce(sa.func.nullif(hashed.alike, 0), -item.row)
    source = t.item.outerjoin(t.item_hash, hashed.row == item.row)
    return sa.select(sa.func.max(item.row)).select_from(source).where(*where).group_by(group)


def near_rows(db: sa.Connection, row: int, origins: list[Origin]) -> list[int]:
    """Rows of all pictures that look like this one, which must be alive and of these origins."""
    item, hashed = t.item.c, t.item_hash.c
    ids = [one.id for one in origins]
    one = sa.select(hashed.hash).join(t.item, item.row == hashed.row).where(item.deleted_ns.is_(None))
    wanted = db.scalar(one.where(hashed.row == row, hashed.alike != 0, item.origin_id.in_(ids)))
    if wanted is None:
        return [row]
    found = db.execute(sa.select(hashed.row, hashed.hash).where(hashed.alike != 0)).all()
    rows, hashes = np.array([(one.row, one.hash) for one in found], np.int64).reshape(-1, 2).T
    return [int(one) for one in rows[are_near(hashes, int(wanted))]]


def batches_between(wanted: ItemFilter) -> list[sa.ColumnElement[bool]]:
    """WHERE for batches that may hold readings of the filter's range."""
    batch = t.readings_batch.c
    found: list[sa.ColumnElement[bool]] = []
    if wanted.start_ns is not None:
        found.append(batch.last_ns >= wanted.start_ns)
    if wanted.end_ns is not None:
        found.append(batch.first_ns < wanted.end_ns)
    return found


def named_by(word: str, origins: Iterable[Origin]) -> list[int]:
    """Ids of the origins whose component, machine or method has the word in its name."""
    return [
        one.id
        for one in origins
        if any(word.lower() in name.lower() for name in (one.component_name, one.machine_name, one.method))
    ]


def _search(word: str, origins: list[Origin]) -> sa.ColumnElement[bool]:
    return sa.or_(
        t.item.c.file_name.icontains(word, autoescape=True),
        t.item.c.file_id == word.rpartition("/")[2],
        t.item.c.row.in_(sa.select(t.item_tag.c.row).where(t.item_tag.c.tag.icontains(word, autoescape=True))),
        t.item.c.origin_id.in_(named_by(word, origins)),
    )
