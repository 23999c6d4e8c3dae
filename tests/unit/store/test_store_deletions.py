"""What was deleted stays deleted when the index is made again from the packs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_fixtures import NOW_NS, OWNER, Store, also_in_a_bucket, picture, readings

from gleaner.app.database import Database
from gleaner.app.services.items_read import ItemReader
from gleaner.app.services.items_values import ItemFilter, Selection
from gleaner.app.services.readings import ReadingService
from gleaner.app.store import deletions, fsck
from gleaner.app.store import tables as t
from gleaner.app.store.cleaning import Cleaner
from gleaner.app.store.packs import PackStore
from gleaner.app.store.recovery import adopt_orphans, rebuild
from gleaner.app.store.rewriting import RETIRED_S

DAY_NS = 24 * 3600 * 1_000_000_000


class Time:
    """Of the wall and of the stopwatch at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def pass_(self, seconds: float) -> None:
        self.seconds += seconds
        self.store.clock.now_ns += int(seconds * 1e9)


def rebuilt(store: Store, name: str = "new.db") -> tuple[Database, PackStore]:
    database = Database.sqlite(store.folder / name, store.keys.database)
    database.create_tables()
    packs = PackStore(store.packs.objects, database, store.keys)
    rebuild(packs, database, lambda _done: None)
    return database, packs


def alive(store: Store, name: str = "new.db") -> set[str]:
    """Ids of the items that a rebuild brings back."""
    database, packs = rebuilt(store, name)
    try:
        return {item.binary_data_id for item in ItemReader(database, packs).page(OWNER, ItemFilter(), limit=100).items}
    finally:
        database.close()


@also_in_a_bucket
def test_deleted_items_stay_deleted_after_a_rebuild(store: Store) -> None:
    receipts = store.add(*(picture(n) for n in range(6)))
    store.items.delete(OWNER, Selection(rows=(receipts[0].row, receipts[1].row)))
    store.items.delete(OWNER, Selection(rows=(receipts[2].row,)))
    assert alive(store) == {one.binary_data_id for one in receipts[3:]}


def test_what_was_brought_back_is_there_after_a_rebuild(store: Store) -> None:
    receipts = store.add(*(picture(n) for n in range(3)))
    gone = store.items.delete(OWNER, Selection(rows=(receipts[0].row, receipts[1].row)))
    store.items.undelete(OWNER, gone.undo)
    store.clock.now_ns += 5
    store.items.delete(OWNER, Selection(rows=(receipts[1].row,)))
    assert alive(store) == {receipts[0].binary_data_id, receipts[2].binary_data_id}


def test_what_was_uploaded_again_is_there_after_a_rebuild(store: Store) -> None:
    [receipt] = store.add(picture(1))
    store.items.delete(OWNER, Selection(rows=(receipt.row,)))
    store.clock.now_ns += 1_000_000
    store.add(replace(picture(1), revive=True))
    assert alive(store) == {receipt.binary_data_id}


def test_deleted_readings_stay_deleted_after_a_rebuild(store: Store) -> None:
    store.add(readings(0, 5))
    store.clock.now_ns += 1_000
    assert store.readings.delete(OWNER, ItemFilter(), 0, store.clock()) == 5
    database, packs = rebuilt(store)
    assert ReadingService(database, packs).count(OWNER, ItemFilter()) == 0
    database.close()


def test_a_note_that_was_never_committed_is_carried_out_at_start(store: Store) -> None:
    """The app ended between the note and the transaction: nobody was told that it was done, and it is what they wanted."""
    receipts = store.add(picture(1), picture(2))
    with store.database.read() as db:
        ids = deletions.file_ids_of(db, t.item, [receipts[0].row])
    with pytest.raises(RuntimeError), store.database.write() as db:
        deletions.note(store.packs, db, ids, NOW_NS + 1_000_000)
        raise RuntimeError
    adopt_orphans(store.packs, store.database)
    assert {item.row for item in store.items.page(OWNER, ItemFilter()).items} == {receipts[1].row}


def test_notes_go_when_nothing_holds_the_bytes_any_more(store: Store) -> None:
    time = Time(store)
    receipts = store.add(*(picture(n) for n in range(3)))
    store.items.delete(OWNER, Selection(rows=(receipts[0].row,)))
    cleaner = Cleaner(store.database, store.packs, store.clock, time.now)
    expected = {one.binary_data_id for one in receipts[1:]}

    def notes() -> int:
        with store.database.read() as db:
            return len(db.execute(t.deletion.select()).all())

    time.pass_(25 * 3600)
    assert cleaner.clean().items == 1
    assert notes() == 1, "the pack that retired still holds it"
    assert alive(store, "first.db") == expected
    time.pass_(RETIRED_S + 1)
    cleaner.clean()
    assert notes() == 0
    assert alive(store, "second.db") == expected
    time.pass_(RETIRED_S + 1)
    cleaner.clean()
    time.pass_(RETIRED_S + 1)
    cleaner.clean()
    assert len(store.pack_names()) == 1, "the note's own bytes are freed, too"
    assert alive(store, "third.db") == expected


def test_notes_move_with_merged_packs(store: Store) -> None:
    time = Time(store)
    rows = [store.add(picture(n))[0] for n in range(40)]
    for one in rows[:10]:
        store.clock.now_ns += 1
        store.items.delete(OWNER, Selection(rows=(one.row,)))
    time.pass_(3600)
    cleaner = Cleaner(store.database, store.packs, store.clock, time.now)
    merged = cleaner.clean().packs_merged
    assert merged >= 40
    time.pass_(RETIRED_S + 1)
    cleaner.clean()
    assert len(store.pack_names()) < 10
    expected = {one.binary_data_id for one in rows[10:]}
    assert alive(store) == expected
    assert fsck.check(store.packs, store.database, deep=True).findings == []
    # A rebuilt index carries the notes on: the next one knows them too.
    database, packs = rebuilt(store, "again.db")
    with database.read() as db:
        assert len(db.execute(t.deletion.select()).all()) == 10
    assert fsck.check(packs, database, deep=True).findings == []
    database.close()


def test_a_full_disk_does_not_keep_anybody_from_deleting(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    [receipt] = store.add(picture(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(store.packs.objects), "put", full)
    gone = store.items.delete(OWNER, Selection(rows=(receipt.row,)))
    assert store.items.count(OWNER, ItemFilter())[0] == 0
    assert "a rebuild will not know" in caplog.text and "No space left" in caplog.text
    assert store.items.undelete(OWNER, gone.undo) == 1
