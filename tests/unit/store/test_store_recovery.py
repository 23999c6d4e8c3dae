from __future__ import annotations

import sqlalchemy as sa
from store_fixtures import NOW_NS, OWNER, Store, picture, readings

from gleaner.app.database import Database
from gleaner.app.services.items_read import ItemReader
from gleaner.app.services.items_values import ItemFilter, Selection
from gleaner.app.store import tables as t
from gleaner.app.store.cleaning import KEEP_DELETED_S, Cleaner
from gleaner.app.store.packs import PackRecord, PackStore
from gleaner.app.store.recovery import adopt_orphans, rebuild


def write_orphan(store: Store, *numbers: int) -> None:
    """A pack as a crash between pack and metadata leaves it."""
    uploads = [picture(n, tags=("kept",)) for n in numbers]
    store.packs.write([PackRecord(u.info.stamped(NOW_NS).header(), u.payload) for u in uploads], NOW_NS)


def test_orphan_pack_is_adopted_with_everything_it_says(store: Store) -> None:
    write_orphan(store, 1, 2)
    assert adopt_orphans(store.packs, store.database).records == 2
    page = store.items.page(OWNER, ItemFilter())
    assert [item.tags for item in page.items] == [("kept",), ("kept",)]
    assert store.items.content(OWNER, page.items[0].row).all() == b"\xff\xd8\xff picture 2"
    assert adopt_orphans(store.packs, store.database).packs == 0
    assert store.add(picture(1))[0].is_duplicate


def test_orphan_that_holds_nothing_new_is_removed(store: Store) -> None:
    store.add(picture(1))
    write_orphan(store, 1)
    recovered = adopt_orphans(store.packs, store.database)
    assert (recovered.records, recovered.removed) == (0, 1)
    assert len(store.pack_names()) == 1
    assert store.items.count(OWNER, ItemFilter())[0] == 1


def test_torn_orphan_gives_its_whole_records(store: Store) -> None:
    write_orphan(store, 1, 2)
    [name] = store.pack_names()
    path = store.folder / "packs" / name
    path.write_bytes(path.read_bytes()[:-5])
    assert adopt_orphans(store.packs, store.database).records == 1


def test_index_is_rebuilt_from_packs_with_the_same_ids(store: Store) -> None:
    receipts = store.add(*(picture(n, tags=("red",)) for n in range(30)), readings(0, 5))
    database = Database.sqlite(store.folder / "new.db", store.keys.database)
    database.create_tables()
    packs = PackStore(store.packs.objects, database, store.keys)
    told: list[float] = []
    assert rebuild(packs, database, told.append).records == 31
    assert told[-1] == 1.0
    items = ItemReader(database, packs).page(OWNER, ItemFilter(tags=("red",)), limit=100).items
    assert {item.binary_data_id for item in items} == {one.binary_data_id for one in receipts[:30]}
    database.close()


def test_deleted_bytes_are_freed_after_a_day_and_their_neighbours_stay(store: Store) -> None:
    write_orphan(store, 1, 2, 3)  # three in one pack
    adopt_orphans(store.packs, store.database)
    rows = store.items.rows(OWNER, ItemFilter())
    cleaner = Cleaner(store.database, store.packs, store.clock)
    store.items.delete(OWNER, Selection(rows=(rows[0],)))
    assert cleaner.clean().items == 0
    [before] = store.pack_names()

    store.clock.advance(KEEP_DELETED_S + 1)
    cleaned = cleaner.clean()
    assert (cleaned.items, cleaned.packs_rewritten) == (1, 1)
    [after] = store.pack_names()
    assert after != before
    contents = {store.items.content(OWNER, row).all() for row in rows[1:]}
    assert len(contents) == 2
    # The freed one is remembered: the machine's next sending is a duplicate.
    assert all(receipt.is_duplicate for receipt in store.add(picture(1), picture(2), picture(3)))

    store.items.delete(OWNER, Selection(filter=ItemFilter()))
    store.clock.advance(KEEP_DELETED_S + 1)
    assert cleaner.clean().packs_removed == 1
    assert store.pack_names() == []
    with store.database.read() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(t.pack)) == 0


def test_rewriting_that_a_crash_cut_off_leaves_nothing_behind(store: Store) -> None:
    write_orphan(store, 1, 2)
    adopt_orphans(store.packs, store.database)
    rows = store.items.rows(OWNER, ItemFilter())
    store.items.delete(OWNER, Selection(rows=(rows[0],)))
    store.clock.advance(KEEP_DELETED_S + 1)
    deleted: list[str] = []
    store.packs.delete = deleted.append  # type: ignore[method-assign]
    Cleaner(store.database, store.packs, store.clock).clean()  # killed before it removed the old pack
    del store.packs.delete  # type: ignore[method-assign]
    assert len(store.pack_names()) == 2
    adopt_orphans(store.packs, store.database)
    assert len(store.pack_names()) == 1 and deleted[0] not in store.pack_names()
    assert store.items.content(OWNER, rows[1]).all()
