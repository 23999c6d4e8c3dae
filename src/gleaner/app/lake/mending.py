"""A lake file that is gone or damaged is forgotten, so that its batches wait again: the next compaction makes it anew.

The batches in their packs are the truth, which is why they stay beside the lake. Damage is found by who reads a file (a
query, a merge) and by the compactor's rounds, which open every file once in a while.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from gleaner.app.database import Database
from gleaner.app.lake import files
from gleaner.app.lake.files import LakeFile
from gleaner.app.store import tables as t
from gleaner.app.store.packs import PackStore

_ROUND_NS = 86_400 * 10**9
_DAMAGE = frozenset((errno.EIO, errno.ENOENT))
"""Cut short, or gone. Anything else may be the disk's or the network's bad minute, and says nothing of the file."""

log = logging.getLogger(__name__)


def mend(database: Database, packs: PackStore, suspected: Iterable[int]) -> list[int]:
    """Forgets those of the lake files that really do not open; their numbers."""
    with database.read() as db:
        there = files.find(db, t.lake_file.c.id.in_(t.rows_in(list(suspected), db.dialect.name)))
    found = []
    for one in there:
        if not opens(packs, one) and _forget(database, one):
            log.error("A file of %d readings (lake file %d) is damaged; it is made again", one.count, one.id)
            found.append(one.id)
    return found


def opens(packs: PackStore, file: LakeFile) -> bool:
    """Whether every byte is there and unchanged. Raises OSError when that cannot be known now."""
    try:
        return sum(map(len, packs.chunks(file.pack_id, file.position))) == file.position.size
    except InvalidTag:
        return False
    except OSError as err:
        if err.errno in _DAMAGE or isinstance(err, FileNotFoundError):
            return False
        raise


def _forget(database: Database, file: LakeFile) -> bool:
    """False if its bytes have moved meanwhile: then it was the old place that did not open."""
    lake, batch = t.lake_file.c, t.readings_batch.c
    with database.write() as db:
        gone = db.execute(t.lake_file.delete().where(lake.id == file.id, lake.pack_id == file.pack_id)).rowcount
        if gone:
            db.execute(t.readings_batch.update().where(batch.lake_id == file.id).values(lake_id=None))
    return bool(gone)


class Rounds:
    """Opens one lake file after the other, each once a day."""

    def __init__(self, database: Database, packs: PackStore, clock_ns: Callable[[], int]) -> None:
        self._database = database
        self._packs = packs
        self._clock_ns = clock_ns
        self._last = 0
        self._next_ns = 0

    def look_at_next(self) -> list[int]:
        """What was damaged."""
        if self._clock_ns() < self._next_ns:
            return []
        with self._database.read() as db:
            number = db.scalar(sa.select(sa.func.min(t.lake_file.c.id)).where(t.lake_file.c.id > self._last))
        if number is None:
            self._last, self._next_ns = 0, self._clock_ns() + _ROUND_NS
            return []
        found = mend(self._database, self._packs, [number])
        self._last = number  # after it: what could not be known now is looked at again
        return found
