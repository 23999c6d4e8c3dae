from __future__ import annotations

from store_fixtures import NOW_NS, OWNER, Store, also_in_a_bucket, picture, readings

from gleaner.app.database import Database
from gleaner.app.services.items_read import ItemReader
from gleaner.app.services.items_values import ItemFilter
from gleaner.app.store.packs import PackRecord, PackStore
from gleaner.app.store.recovery import adopt_orphans, rebuild


def write_orphan(store: Store, *numbers: int) -> None:
    """A pack as a crash between pack and metadata leaves it."""
    uploads = [picture(n, tags=("kept",)) for n in numbers]
    store.packs.write([PackRecord(u.info.having(synced_ns=NOW_NS).header(), u.payload) for u in uploads], NOW_NS)


@also_in_a_bucket
def test_orphan_pack_is_adopted_with_everything_it_says(store: Store) -> None:
    write_orphan(store, 1, 2)
    assert adopt_orphans(store.packs, store.database).records == 2
    page = store.items.page(OWNER, ItemFilter())
    assert [item.tags for item in page.items] == [("kept",), ("kept",)]
    assert store.items.content(OWNER, page.items[0].row).all() == b"\xff\xd8\xff picture 2"
    assert adopt_orphans(store.packs, store.database).packs == 0
    assert store.add(picture(1))[0].is_duplicate


@also_in_a_bucket
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


@also_in_a_bucket
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
