"""Keeps the packs tidy behind the uploads: frees the bytes of deleted items 24 hours after their deletion, merges small packs.

A freed item keeps its row, without bytes, tags, boxes and datasets, so that the machine's next sending of the same capture
is still a duplicate. How packs are written anew, and what a crash leaves, is `store/rewriting.py`; which are merged,
`store/merging.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import sqlalchemy as sa

from gleaner.app.database import Database
from gleaner.app.leases import alone
from gleaner.app.repeating import GivingWay, Repeating
from gleaner.app.store import deletions
from gleaner.app.store import tables as t
from gleaner.app.store.merging import PackSize, plan_merges
from gleaner.app.store.packs import PackStore
from gleaner.app.store.rewriting import HOLDERS, DamagedPack, Rewriter

LEASE = "cleaning"
KEEP_DELETED_S = 24 * 3600
_EVERY_S = 15 * 60.0
# In which an app that stores a hundred pictures a second makes some ten thousand packs.
_GIVES_WAY_S = 3600.0
_ITEM = t.item.c

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cleaned:
    items: int
    packs_removed: int
    packs_rewritten: int
    packs_merged: int


class Cleaner:
    """start() → running → stop(): looks for freed bytes every quarter of an hour, beginning at start."""

    def __init__(
        self,
        database: Database,
        packs: PackStore,
        clock_ns: Callable[[], int] = time.time_ns,
        now: Callable[[], float] = time.monotonic,
        is_busy: Callable[[], bool] = lambda: False,
        expire: Callable[[], object] = lambda: None,
        holding: Callable[[str], AbstractContextManager[bool]] = alone,
    ) -> None:
        """`expire` deletes what is to be kept no longer, before each pass. `is_busy`: uploads want the disk and the processor;
        merging then waits for a later pass, an hour at most. `holding`: of several processes on one store, one tidies at a time.
        """
        self._holding = holding
        self._database = database
        self._packs = packs
        self._clock_ns = clock_ns
        self._expire = expire
        self._merging = GivingWay(is_busy, _GIVES_WAY_S, now)
        self._rewriter = Rewriter(database, packs, clock_ns, now)
        self._damaged: set[int] = set()
        self._repeating = Repeating("cleaner", self._take_turn, _EVERY_S, at_start=True, what="Tidying the packs")

    def start(self) -> None:
        self._repeating.start()

    def stop(self) -> None:
        self._repeating.stop()

    def clean(self) -> Cleaned:
        """One pass."""
        self._rewriter.remove_retired()
        items, touched = self._forget(self._clock_ns() - KEEP_DELETED_S * 1_000_000_000)
        removed = rewritten = 0
        for pack_id in touched:
            if self._repeating.is_stopping:
                break
            if is_left := self._rewrite([pack_id]):
                rewritten += 1
            elif is_left is False:
                removed += 1
        if items:
            log.info("Freed %d deleted items: %d packs removed, %d written anew", items, removed, rewritten)
        if not self._damaged:
            with self._database.write() as db:
                deletions.forget(db, self._clock_ns() - KEEP_DELETED_S * 1_000_000_000)
        return Cleaned(items, removed, rewritten, self._merge())

    def _merge(self) -> int:
        merged = 0
        for group in plan_merges(self._sizes()):
            if self._repeating.is_stopping or self._merging.should_wait():
                break
            if self._rewrite(group):
                merged += len(group)
        else:
            self._merging.done()
        if merged:
            log.info("Merged %d small packs", merged)
        return merged

    def _rewrite(self, pack_ids: Sequence[int]) -> bool | None:
        """As `Rewriter.rewrite`; None if one of them is damaged, which is said once and left alone from then on."""
        if self._damaged.intersection(pack_ids):
            return None
        try:
            return self._rewriter.rewrite(pack_ids)
        except DamagedPack as err:
            log.error("%s", err)
            self._damaged.add(err.pack_id)
            return None

    def _sizes(self) -> list[PackSize]:
        sizes = dict(self._packs.objects.sizes())
        with self._database.read() as db:
            shows = sa.exists().where(t.thumbnail.c.pack_id == t.pack.c.id)
            columns = sa.select(t.pack.c.id, t.pack.c.name, t.pack.c.created_ns, shows).where(t.pack.c.records > 0)
            return [
                PackSize(i, created, sizes[name], thumbs)
                for i, name, created, thumbs in db.execute(columns)
                if name in sizes and i not in self._damaged
            ]

    def _take_turn(self) -> None:
        with self._holding(LEASE) as is_ours:
            if is_ours:
                self._expire()
                self.clean()

    def _forget(self, before_ns: int) -> tuple[int, list[int]]:
        """Takes the bytes' address off items deleted before then; the answer names every pack with freed bytes."""
        with self._database.write() as db:
            old = sa.and_(_ITEM.deleted_ns < before_ns, _ITEM.deleted_ns.is_not(None), _ITEM.pack_id.is_not(None))
            gone = list(db.scalars(sa.select(_ITEM.row).where(old)))
            if gone:
                rows = t.rows_in(gone, db.dialect.name)
                for table in (t.item_tag, t.item_box, t.dataset_item, t.item_hash, t.item_embedding, t.thumbnail):
                    db.execute(table.delete().where(table.c.row.in_(rows)))
                db.execute(t.item.update().where(_ITEM.row.in_(rows)).values(pack_id=None, tag_count=0))
            batch = t.readings_batch.c
            outdated = sa.and_(batch.deleted_ns < before_ns, batch.deleted_ns.is_not(None), batch.pack_id.is_not(None))
            db.execute(t.readings_batch.update().where(outdated).values(pack_id=None, latest="{}"))
            # Also packs whose rewriting a crash cut off: what they hold and what is counted differ.
            living = sum(
                (
                    sa.select(sa.func.count()).where(table.c.pack_id == t.pack.c.id).scalar_subquery()
                    for table in HOLDERS
                ),
                start=sa.literal(0),
            )
            touched = list(db.scalars(sa.select(t.pack.c.id).where(t.pack.c.records != living)))
        return len(gone), touched
