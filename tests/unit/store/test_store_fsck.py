from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from store_fixtures import NOW_NS, OWNER, Store, also_in_a_bucket, picture, readings

from gleaner.app.services.items_values import ItemFilter
from gleaner.app.store import tables as t
from gleaner.app.store.fsck import Report, check
from gleaner.app.store.pack_format import FoundRecord
from gleaner.app.store.packs import PackRecord, PackStore
from gleaner.app.store.payload import MemoryPayload
from gleaner.app.store.recovery import adopt_orphans, insert_thumbnails


def run(store: Store, *, deep: bool = True) -> Report:
    # As the command does: a process of its own, with nothing remembered.
    return check(PackStore(store.packs.objects, store.database, store.keys), store.database, deep=deep)


def one_pack(store: Store) -> tuple[Path, dict[str, int]]:
    """Its path, and where each item's bytes begin."""
    uploads = [picture(n) for n in (1, 2, 3)]
    store.packs.write([PackRecord(u.info.having(synced_ns=NOW_NS).header(), u.payload) for u in uploads], NOW_NS)
    adopt_orphans(store.packs, store.database)
    with store.database.read() as db:
        rows = db.execute(sa.select(t.item.c.file_id, t.item.c.body_offset).order_by(t.item.c.row))
        places = {str(file_id): int(offset) for file_id, offset in rows}
    return store.folder / "packs" / store.pack_names()[0], places


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@also_in_a_bucket
def test_a_healthy_store_has_no_findings_and_every_byte_is_opened(store: Store) -> None:
    store.add(picture(1), picture(2), readings(0, 10))
    report = run(store)
    assert report.is_healthy and not report.findings
    with store.database.read() as db:
        stored = sum(db.scalar(sa.select(sa.func.sum(table.c.size_bytes))) for table in (t.item, t.readings_batch))
    assert (report.records, report.bytes_opened) == (3, stored)
    assert run(store, deep=False).bytes_opened == 0


def test_one_changed_byte_is_found_and_only_its_item_named(store: Store) -> None:
    path, places = one_pack(store)
    second = list(places)[1]
    flip(path, places[second] + 3)
    assert run(store, deep=False).is_healthy
    [finding] = run(store).findings
    assert finding.ids == (second,)
    assert not run(store).is_healthy


def test_a_damaged_header_names_what_a_rebuild_would_miss_though_it_can_be_read(store: Store) -> None:
    path, places = one_pack(store)
    flip(path, min(places.values()) + 60)  # in the header of the second
    [finding] = run(store, deep=False).findings
    assert "rebuild" in finding.problem
    assert set(finding.ids) == set(list(places)[1:])


@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_pack_that_is_gone_or_cut_is_named_with_all_it_held(store: Store, damage: str) -> None:
    path, places = one_pack(store)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[: min(places.values()) + 2])
    [finding] = run(store, deep=False).findings
    assert set(finding.ids) == set(places)
    assert finding.where == store_name(path)


def store_name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@also_in_a_bucket
def test_lost_thumbnails_and_orphans_are_harmless(store: Store) -> None:
    [receipt] = store.add(picture(1))
    thumb = PackRecord({"record": "thumbnail", "of": receipt.binary_data_id.rsplit("/", 1)[-1]}, MemoryPayload(b"jpeg"))
    pack = store.packs.write([thumb], NOW_NS, durable=False)
    with store.database.write() as db:
        assert insert_thumbnails(db, pack, [FoundRecord(thumb.header, pack.positions[0])]) == 1
    store.packs.delete(pack.name)  # a power cut before the kernel wrote it
    store.packs.write([PackRecord(picture(9).info.having(synced_ns=NOW_NS).header(), picture(9).payload)], NOW_NS)
    report = run(store)
    assert report.is_healthy
    assert [finding.is_harmless for finding in report.findings] == [True, True]


def test_items_without_bytes_that_nobody_deleted_are_named(store: Store) -> None:
    store.add(picture(1))
    [row] = store.items.rows(OWNER, ItemFilter())
    with store.database.write() as db:
        db.execute(t.item.update().values(pack_id=None))
        file_id = db.scalar(sa.select(t.item.c.file_id).where(t.item.c.row == row))
        db.execute(t.pack.update().values(records=0))
    [finding] = run(store).findings
    assert finding.ids == (file_id,)
