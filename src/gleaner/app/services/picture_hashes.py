"""Keeps what pictures look like (`picture_hash`), and which of them look the same, so that a list can show one of many.

A picture joins the nearest one of its origin that already stands for others and looks the same, or stands for itself. No
chains: all of a group are within ALIKE bits of the one that stands for them. Writer: the thread that makes thumbnails. With
several apps over one database two may begin a group for the same thing; more is then shown, never less.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.services.picture_hash import ALIKE, distances, signed
from gleaner.app.store import sniff
from gleaner.app.store import tables as t

_HASH = t.item_hash.c


class PictureHashes:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._groups: defaultdict[int, _Group] | None = None
        self._below: int | None = None

    def save(self, found: dict[int, int | None]) -> None:
        """Row → hash, None for what cannot be decoded. What is deleted or known already is left out."""
        if not found:
            return
        groups = self._loaded()
        with self._database.write() as db:
            known = sa.select(t.item.c.row, t.item.c.origin_id).outerjoin(t.item_hash, _HASH.row == t.item.c.row)
            new = known.where(
                t.item.c.row.in_(t.rows_in(list(found), db.dialect.name)),
                t.item.c.deleted_ns.is_(None),
                _HASH.row.is_(None),
            )
            values = []
            for row, origin_id in db.execute(new.order_by(t.item.c.row)).all():
                bits = found[row]
                value = 0 if bits is None else signed(bits)
                alike = 0 if bits is None else groups[origin_id].join(row, value)
                values.append({"row": row, "hash": value, "alike": alike})
            if values:
                db.execute(t.insert_ignoring(t.item_hash, db.dialect.name), values)

    def unknown(self, limit: int) -> list[tuple[int, str]]:
        """(row, file id) of pictures without a hash, the newest first; each call goes on where the last one ended.

        Empty once all were named; the call after that begins again.
        """
        item = t.item.c
        query = (
            sa.select(item.row, item.file_id)
            .join(t.origin, t.origin.c.id == item.origin_id)
            .outerjoin(t.item_hash, _HASH.row == item.row)
            .where(t.origin.c.kind == sniff.IMAGE, item.deleted_ns.is_(None), item.pack_id.is_not(None))
            .where(_HASH.row.is_(None), *([item.row < self._below] if self._below is not None else []))
            .order_by(item.row.desc())
            .limit(limit)
        )
        with self._database.read() as db:
            found = [(int(row), str(file_id)) for row, file_id in db.execute(query)]
        self._below = found[-1][0] if found else None
        return found

    def _loaded(self) -> defaultdict[int, _Group]:
        if self._groups is None:
            self._groups = defaultdict(_Group)
            query = sa.select(_HASH.row, _HASH.hash, t.item.c.origin_id).join(t.item, t.item.c.row == _HASH.row)
            with self._database.read() as db:
                for row, value, origin_id in db.execute(query.where(_HASH.alike == _HASH.row)):
                    self._groups[origin_id].add(row, value)
        return self._groups


class _Group:
    """The pictures of one origin that stand for others, in arrays that double."""

    def __init__(self) -> None:
        self._rows = np.zeros(16, np.int64)
        self._hashes = np.zeros(16, np.int64)
        self._count = 0

    def join(self, row: int, value: int) -> int:
        """The row that stands for this picture from now on."""
        if self._count:
            how_far = distances(self._hashes[: self._count], value)
            nearest = int(np.argmin(how_far))
            if how_far[nearest] <= ALIKE:
                return int(self._rows[nearest])
        self.add(row, value)
        return row

    def add(self, row: int, value: int) -> None:
        if self._count == len(self._rows):
            self._rows = np.concatenate((self._rows, np.zeros_like(self._rows)))
            self._hashes = np.concatenate((self._hashes, np.zeros_like(self._hashes)))
        self._rows[self._count], self._hashes[self._count] = row, value
        self._count += 1
