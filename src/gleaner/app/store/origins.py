"""The rows of `origin` that records belong to: made when new, their names kept as the fleet has them.

Each upload names its origin, and there are few: a machine's camera sends thousands of pictures a minute from one. `Origins`
remembers what it has read, so that a group of uploads costs no look at the table. Rows of `origin` are never removed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import sqlalchemy as sa

from gleaner.app.store import tables as t
from gleaner.app.store.records import RecordInfo

Key = tuple[str, ...]
_REMEMBERED = 4096
_KEY_NAMES = frozenset(t.ORIGIN_KEY)
_SAME = sa.and_(*(t.origin.c[name] == sa.bindparam(name) for name in t.ORIGIN_KEY))
_FIND = sa.select(t.origin.c.id, *(t.origin.c[name] for name in t.ORIGIN_NAMES)).where(_SAME)


def key_of(info: RecordInfo) -> Key:
    place = info.place
    return (
        place.organization_id,
        place.location_id,
        place.machine_id,
        place.part_id,
        info.component_type,
        info.component_name,
        info.method,
        info.mime_type,
        info.kind,
    )


class Origins:
    """One thread at a time."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, tuple[int, Key]] = OrderedDict()

    def ids(self, db: sa.Connection, infos: Sequence[RecordInfo]) -> dict[Key, int]:
        """The origin of each record, made if new."""
        return {key: self._id(db, key, info) for key, info in {key_of(info): info for info in infos}.items()}

    def _id(self, db: sa.Connection, key: Key, info: RecordInfo) -> int:
        place = info.place
        names = (place.location_name, place.machine_name, place.part_name)
        known = self._known.get(key)
        if known is not None and known[1] == names:
            self._known.move_to_end(key)
            return known[0]
        values = dict(zip(t.ORIGIN_KEY, key, strict=True))
        row = db.execute(_FIND, values).one_or_none()
        named = dict(zip(t.ORIGIN_NAMES, names, strict=True))
        if row is None:
            # Another process may be making it, too. Not remembered before it is read again: this may be taken back.
            db.execute(t.insert_ignoring(t.origin, db.dialect.name).values(**values, **named))
            return int(db.execute(_FIND, values).one().id)
        if tuple(row[1:]) != names:
            self._known.pop(key, None)
            db.execute(t.origin.update().where(t.origin.c.id == row.id).values(**named))
            return int(row.id)
        self._known[key] = (int(row.id), names)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return int(row.id)
