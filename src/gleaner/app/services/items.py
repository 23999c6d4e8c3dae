"""Changing items: tags, boxes, deletion. Needs the owner's role wherever the items were captured."""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from gleaner.app.caller import Caller
from gleaner.app.database import Database
from gleaner.app.errors import Conflict, InvalidInput, NotFound
from gleaner.app.events import Event, EventBus
from gleaner.app.services.items_filter import conditions, matching, require_owner, visible_origins
from gleaner.app.services.items_read import ItemReader
from gleaner.app.services.items_values import (
    Deletion,
    ItemBox,
    ItemFilter,
    Origin,
    Selection,
    Settle,
    Settled,
    Suggested,
)
from gleaner.app.store import deletions
from gleaner.app.store import tables as t
from gleaner.app.store.packs import PackStore
from gleaner.app.store.records import Box, clean_tags

# The undo window; after it `store/cleaning.py` frees the bytes.
UNDO_S = 24 * 3600
_EVENT_ROWS = 100
_LONGEST_TAG = 200
_BOX_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_ITEM = t.item.c


class ItemService(ItemReader):
    """Everything about items. Reading is `ItemReader`'s."""

    def __init__(
        self, database: Database, packs: PackStore, events: EventBus, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        super().__init__(database, packs)
        self._events = events
        self._clock_ns = clock_ns

    def change_tags(
        self, caller: Caller, selection: Selection, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> int:
        """Adds and removes tags; the answer counts items that changed."""
        new, old = checked_tags(add), checked_tags(remove)
        if not new and not old:
            raise InvalidInput("No tags were given", "Name at least one tag to add or remove.")
        with self._database.write() as db:
            rows, origins = _select(db, caller, selection, "the tags of these items")
            chosen = t.rows_in(rows, db.dialect.name)
            changed = set[int]()
            tag = t.item_tag.c
            if new:
                known = db.execute(sa.select(tag.row, tag.tag).where(tag.row.in_(chosen), tag.tag.in_(new)))
                have = {(row, name) for row, name in known}
                missing = [(row, name) for row in rows for name in new if (row, name) not in have]
                if missing:
                    db.execute(t.item_tag.insert(), [{"row": row, "tag": name} for row, name in missing])
                changed.update(row for row, _ in missing)
            if old:
                gone = t.item_tag.delete().where(tag.row.in_(chosen), tag.tag.in_(old)).returning(tag.row)
                changed.update(db.scalars(gone))
            touched = t.rows_in(sorted(changed), db.dialect.name)
            number = sa.select(sa.func.count()).where(tag.row == _ITEM.row).scalar_subquery()
            db.execute(t.item.update().where(_ITEM.row.in_(touched)).values(tag_count=number))
        self._changed(origins, changed)
        return len(changed)

    def delete(self, caller: Caller, selection: Selection) -> Deletion:
        """Hides the items at once; their bytes are freed after 24 hours, until then `undelete` brings them back."""
        now = self._clock_ns()
        with self._database.write() as db:
            rows, origins = _select(db, caller, selection, "these items")
            # The time doubles as the undo handle, so it must be this deletion's own.
            newest = db.scalar(sa.select(sa.func.max(_ITEM.deleted_ns)).where(_ITEM.deleted_ns.is_not(None)))
            now = max(now, (newest or 0) + 1)
            chosen = t.rows_in(rows, db.dialect.name)
            deletions.note(self._packs, db, deletions.file_ids_of(db, t.item, rows), now)
            db.execute(t.item.update().where(_ITEM.row.in_(chosen)).values(deleted_ns=now))
        self._changed(origins, rows)
        return Deletion(len(rows), str(now))

    def undelete(self, caller: Caller, undo: str) -> int:
        """Brings back what one `delete` hid. Raises NotFound after 24 hours or a second time."""
        if not undo.isdecimal():
            raise InvalidInput(f"{undo!r} is no undo handle", "Send `undo` as the deletion gave it.")
        with self._database.write() as db:
            hidden = _ITEM.deleted_ns == int(undo), _ITEM.pack_id.is_not(None)
            found = db.execute(sa.select(_ITEM.row, _ITEM.origin_id).where(*hidden)).all()
            origins = {one.id: one for one in visible_origins(db, caller)}
            rows = [one.row for one in found if one.origin_id in origins]
            if not rows:
                raise NotFound(
                    "There is nothing to bring back", "Deleted items can be brought back for 24 hours, once."
                )
            touched = [origins[one.origin_id] for one in found if one.origin_id in origins]
            require_owner(caller, touched, "these items")
            chosen = t.rows_in(rows, db.dialect.name)
            now = max(self._clock_ns(), int(undo) + 1)
            deletions.note(self._packs, db, deletions.file_ids_of(db, t.item, rows), now, undone=True)
            db.execute(t.item.update().where(_ITEM.row.in_(chosen)).values(deleted_ns=None))
        self._changed(touched, rows)
        return len(rows)

    def add_box(self, caller: Caller, row: int, box: Box) -> ItemBox:
        made = ItemBox(str(uuid.uuid4()), checked_box(box))
        with self._database.write() as db:
            _, origins = _select(db, caller, Selection(rows=(row,)), "the boxes of this item")
            db.execute(t.item_box.insert().values(id=made.id, row=row, **made.box.__dict__))
        self._changed(origins, [row])
        return made

    def put_box(self, caller: Caller, row: int, box_id: str, box: Box) -> ItemBox:
        """Makes or replaces the box of this id. Raises Conflict if another item has a box of that id."""
        made = ItemBox(checked_box_id(box_id), checked_box(box))
        with self._database.write() as db:
            _, origins = _select(db, caller, Selection(rows=(row,)), "the boxes of this item")
            owner = db.scalar(sa.select(t.item_box.c.row).where(t.item_box.c.id == box_id))
            if owner is None:
                db.execute(t.item_box.insert().values(id=box_id, row=row, **made.box.__dict__))
            elif owner == row:
                db.execute(t.item_box.update().where(t.item_box.c.id == box_id).values(**made.box.__dict__))
            else:
                raise Conflict(f"Box {box_id} is not on item {row}", "Give a new box an id of its own, such as a UUID.")
        self._changed(origins, [row])
        return made

    def update_box(self, caller: Caller, row: int, box_id: str, **changes: Any) -> ItemBox:
        """Changes the named fields of a box."""
        same = t.item_box.c.id == box_id, t.item_box.c.row == row
        with self._database.write() as db:
            _, origins = _select(db, caller, Selection(rows=(row,)), "the boxes of this item")
            found = db.execute(sa.select(t.item_box).where(*same)).mappings().one_or_none()
            if found is None:
                raise NotFound(f"There is no box {box_id} on item {row}", "Reload the item.")
            before = Box(**{name: found[name] for name in Box.__dataclass_fields__})
            made = ItemBox(box_id, checked_box(replace(before, **changes)))
            db.execute(t.item_box.update().where(*same).values(**made.box.__dict__))
        self._changed(origins, [row])
        return made

    def remove_box(self, caller: Caller, row: int, box_id: str) -> None:
        with self._database.write() as db:
            _, origins = _select(db, caller, Selection(rows=(row,)), "the boxes of this item")
            gone = db.execute(t.item_box.delete().where(t.item_box.c.id == box_id, t.item_box.c.row == row))
            if gone.rowcount == 0:
                raise NotFound(f"There is no box {box_id} on item {row}", "Reload the item.")
        self._changed(origins, [row])

    def settle_boxes(self, caller: Caller, selection: Selection, which: Suggested, to: Settle) -> Settled:
        """A person vouches for these boxes of a model, or dismisses them. Boxes that people drew are left as they are."""
        box = t.item_box.c
        with self._database.write() as db:
            rows, origins = _select(db, caller, selection, "the boxes of these items")
            wanted = [box.row.in_(t.rows_in(rows, db.dialect.name)), box.confidence >= which.at_least]
            if which.below is not None:
                wanted.append(box.confidence < which.below)
            if which.labels:
                wanted.append(box.label.in_(which.labels))
            change = {
                Settle.COUNT: sa.select(box.row).where(*wanted),
                Settle.ACCEPT: t.item_box.update().values(confidence=None).where(*wanted).returning(box.row),
                Settle.DISMISS: t.item_box.delete().where(*wanted).returning(box.row),
            }
            found = list(db.scalars(change[to]))
        if to is not Settle.COUNT:
            self._changed(origins, set(found))
        return Settled(len(found), len(set(found)))

    def _changed(self, origins: Iterable[Origin], rows: Iterable[int]) -> None:
        publish_changed(self._events, {one.organization_id for one in origins}, rows)


def publish_changed(events: EventBus, organization_ids: Iterable[str], rows: Iterable[int]) -> None:
    listed = list(rows)
    for organization_id in organization_ids:
        data = {"rows": listed if len(listed) <= _EVENT_ROWS else None}
        events.publish(Event("items_changed", organization_id, data))


def selected(db: sa.Connection, caller: Caller, selection: Selection) -> tuple[list[int], list[Origin]]:
    """Rows the caller may see and the origins they come from. Raises NotFound if a chosen row is not among them."""
    if selection.rows is not None:
        if not selection.rows:
            raise InvalidInput("No items were chosen", "Choose at least one item.")
        wanted, filter_ = t.rows_in(list(selection.rows), db.dialect.name), ItemFilter()
    else:
        assert selection.filter is not None
        wanted, filter_ = None, selection.filter
    visible = visible_origins(db, caller, filter_.organization_ids)
    origins = matching(visible, filter_)
    query = sa.select(_ITEM.row, _ITEM.origin_id).where(*conditions(db, filter_, origins, visible))
    found = db.execute(query if wanted is None else query.where(_ITEM.row.in_(wanted))).all()
    if selection.rows is not None and len(found) != len(set(selection.rows)):
        missing = min(set(selection.rows) - {row for row, _ in found})
        raise NotFound(f"There is no item {missing}", "It may have been deleted; reload the page.")
    used = {origin_id for _, origin_id in found}
    return [row for row, _ in found], [one for one in origins if one.id in used]


def _select(db: sa.Connection, caller: Caller, selection: Selection, what: str) -> tuple[list[int], list[Origin]]:
    rows, origins = selected(db, caller, selection)
    require_owner(caller, origins, what)
    return rows, origins


def checked_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Cleaned. Raises InvalidInput."""
    cleaned = clean_tags(tags)
    for tag in cleaned:
        if len(tag) > _LONGEST_TAG or any(ord(c) < 32 for c in tag):
            raise InvalidInput(f"{tag[:40]!r} is no tag", f"Use up to {_LONGEST_TAG} letters, digits, _ and -.")
    return cleaned


def checked_box_id(box_id: str) -> str:
    """Raises InvalidInput. Ids that the app made are UUIDs; those of captured results are the uploader's."""
    if not _BOX_ID.fullmatch(box_id):
        raise InvalidInput(f"{box_id[:40]!r} is no id of a box", "Use a UUID, or up to 64 letters, digits, _ and -.")
    return box_id


def checked_box(box: Box) -> Box:
    """Raises InvalidInput for one that cannot be drawn."""
    edges = (box.x_min, box.y_min, box.x_max, box.y_max)
    if not box.label.strip():
        raise InvalidInput("The box has no label", "Say what is in it.")
    if not all(math.isfinite(edge) and 0 <= edge <= 1 for edge in edges):
        raise InvalidInput(f"The box {edges} leaves the picture", "Edges go from 0 to 1 in both directions.")
    if box.x_min >= box.x_max or box.y_min >= box.y_max:
        raise InvalidInput(f"The box {edges} has no area", "The first corner is the upper left one.")
    if box.confidence is not None and not 0 <= box.confidence <= 1:
        raise InvalidInput(f"The confidence {box.confidence} is not between 0 and 1", "Leave it out for a drawn box.")
    return replace(box, label=box.label.strip())
