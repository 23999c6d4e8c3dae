"""Deleted bytes are freed and small packs merged; whatever happens on the way, what lives stays readable."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from store_fixtures import NOW_NS, OWNER, Store, also_in_a_bucket, picture, readings

from gleaner.app.services.items_values import ItemFilter, Selection
from gleaner.app.store import merging
from gleaner.app.store import tables as t
from gleaner.app.store.cleaning import KEEP_DELETED_S, Cleaner
from gleaner.app.store.merging import FAN_IN, MIB, TARGET_BYTES, PackSize, plan_merges
from gleaner.app.store.packs import PackRecord
from gleaner.app.store.recovery import adopt_orphans
from gleaner.app.store.rewriting import RETIRED_S


class Stopwatch:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def three_in_one_pack(store: Store) -> list[int]:
    uploads = [picture(n) for n in (1, 2, 3)]
    store.packs.write([PackRecord(u.info.having(synced_ns=NOW_NS).header(), u.payload) for u in uploads], NOW_NS)
    adopt_orphans(store.packs, store.database)
    return store.items.rows(OWNER, ItemFilter())


def delete_for_good(store: Store, *rows: int) -> None:
    store.items.delete(OWNER, Selection(rows=rows))
    store.clock.advance(KEEP_DELETED_S + 1)


def contents(store: Store) -> set[bytes]:
    return {store.items.content(OWNER, row).all() for row in store.items.rows(OWNER, ItemFilter())}


def many_packs(store: Store, count: int = FAN_IN) -> set[bytes]:
    for number in range(count):
        store.add(picture(number))
    store.add(readings(0, 3))
    return {b"\xff\xd8\xff picture %d" % number for number in range(count)}


@also_in_a_bucket
def test_deleted_bytes_are_freed_after_a_day_and_their_neighbours_stay(store: Store) -> None:
    rows, now = three_in_one_pack(store), Stopwatch()
    cleaner = Cleaner(store.database, store.packs, store.clock, now)
    store.items.delete(OWNER, Selection(rows=(rows[0],)))
    assert cleaner.clean().items == 0
    [before] = store.upload_packs()

    store.clock.advance(KEEP_DELETED_S + 1)
    cleaned = cleaner.clean()
    assert (cleaned.items, cleaned.packs_rewritten) == (1, 1)
    now.seconds += RETIRED_S
    cleaner.clean()
    [after] = store.upload_packs()
    assert after != before
    assert len(contents(store)) == 2
    # The freed one is remembered: the machine's next sending is a duplicate.
    assert all(receipt.is_duplicate for receipt in store.add(picture(1), picture(2), picture(3)))

    delete_for_good(store, *rows[1:])
    assert cleaner.clean().packs_removed == 2  # the pictures', and the note that the first was deleted
    for _ in range(3):  # the pictures' pack, then the notes of their deletion, then nothing
        now.seconds += RETIRED_S
        cleaner.clean()
    assert store.pack_names() == []
    with store.database.read() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(t.pack)) == 0


@also_in_a_bucket
def test_who_has_looked_up_a_record_reads_it_after_its_pack_was_written_anew(store: Store) -> None:
    rows, now = three_in_one_pack(store), Stopwatch()
    cleaner = Cleaner(store.database, store.packs, store.clock, now)
    pack_id, position = store.items.position(rows[1])
    delete_for_good(store, rows[0])
    assert cleaner.clean().packs_rewritten == 1
    assert store.items.position(rows[1])[0] != pack_id
    now.seconds += RETIRED_S - 1
    cleaner.clean()
    assert store.packs.read(pack_id, position).startswith(b"\xff\xd8\xff picture")


@also_in_a_bucket
def test_packs_that_retired_before_a_crash_are_removed_by_the_next_process(store: Store) -> None:
    rows, now = three_in_one_pack(store), Stopwatch()
    delete_for_good(store, rows[0])
    Cleaner(store.database, store.packs, store.clock).clean()  # and then it is killed
    assert len(store.upload_packs()) == 2
    adopt_orphans(store.packs, store.database)
    cleaner = Cleaner(store.database, store.packs, store.clock, now)
    cleaner.clean()
    now.seconds += RETIRED_S
    cleaner.clean()
    assert len(store.upload_packs()) == 1
    assert len(contents(store)) == 2


@also_in_a_bucket
def test_small_packs_become_one_and_every_record_stays(store: Store) -> None:
    expected, now = many_packs(store), Stopwatch()
    cleaner = Cleaner(store.database, store.packs, store.clock, now)
    assert cleaner.clean().packs_merged == FAN_IN + 1
    assert contents(store) == expected
    now.seconds += RETIRED_S
    assert cleaner.clean().packs_merged == 0
    assert len(store.pack_names()) == 1
    assert contents(store) == expected
    assert all(receipt.is_duplicate for receipt in store.add(readings(0, 3), *(picture(n) for n in range(FAN_IN))))


def test_merging_waits_while_uploads_are_busy(store: Store) -> None:
    many_packs(store)
    assert Cleaner(store.database, store.packs, store.clock, is_busy=lambda: True).clean().packs_merged == 0


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", range(6))
def test_a_crash_at_any_step_of_merging_loses_and_doubles_nothing(store: Store, step: int) -> None:
    expected, now, steps = many_packs(store), Stopwatch(), itertools.count()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == step:
                raise Killed
            return function(*args, **kwargs)

        return call

    packs, database = store.packs, store.database
    packs.write, packs.delete, database.write = (  # type: ignore[method-assign]
        counted(packs.write),
        counted(packs.delete),
        counted(database.write),
    )
    cleaner = Cleaner(database, packs, store.clock, now)
    killed = False
    try:
        cleaner.clean()
        now.seconds += RETIRED_S
        cleaner.clean()
    except Killed:
        killed = True
    del packs.write, packs.delete, database.write  # type: ignore[method-assign]
    assert killed
    adopt_orphans(packs, database)
    assert contents(store) == expected
    cleaner = Cleaner(database, packs, store.clock, now)
    for _ in range(3):
        cleaner.clean()
        now.seconds += RETIRED_S
    assert len(store.pack_names()) == 1
    assert contents(store) == expected


def test_a_damaged_pack_is_named_and_left_as_it_is(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    rows = three_in_one_pack(store)
    [name] = store.upload_packs()
    path = store.folder / "packs" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    delete_for_good(store, rows[0])
    now = Stopwatch()
    cleaner = Cleaner(store.database, store.packs, store.clock, now)
    with caplog.at_level(logging.ERROR):
        cleaner.clean()
        cleaner.clean()
    assert [name in record.message for record in caplog.records] == [True]
    now.seconds += 10 * RETIRED_S
    cleaner.clean()
    assert store.upload_packs() == [name]
    path.write_bytes(whole)  # put back from a backup
    assert len(contents(store)) == 2
    assert Cleaner(store.database, store.packs, store.clock).clean().packs_rewritten == 1


def test_changed_bytes_are_not_carried_into_a_new_pack(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    rows = three_in_one_pack(store)
    [name] = store.upload_packs()
    path = store.folder / "packs" / name
    changed = bytearray(path.read_bytes())
    changed[-3] ^= 1
    path.write_bytes(changed)
    last = max(rows, key=lambda row: store.items.position(row)[1].body_offset)
    delete_for_good(store, next(row for row in rows if row != last))
    with caplog.at_level(logging.ERROR):
        Cleaner(store.database, store.packs, store.clock).clean()
    assert name in caplog.text
    assert store.upload_packs() == [name]
    assert not list((store.folder / "packs" / "tmp").iterdir())


sizes = st.lists(st.integers(1, 3 * TARGET_BYTES // 2), max_size=120)


@given(sizes, st.booleans())
def test_plans_never_mix_kinds_or_repeat_packs_and_end(small: list[int], are_thumbnails: bool) -> None:
    packs = [PackSize(n, n, size, are_thumbnails and n % 2 == 0) for n, size in enumerate(small)]
    fresh = itertools.count(len(packs))
    for _ in range(len(packs) + 1):
        groups = plan_merges(packs)
        if not groups:
            break
        by_id = {pack.id: pack for pack in packs}
        merged = [pack_id for group in groups for pack_id in group]
        assert len(merged) == len(set(merged))
        for group in groups:
            members = [by_id.pop(pack_id) for pack_id in group]
            assert len(members) > 1 and len({pack.is_thumbnails for pack in members}) == 1
            total = sum(pack.size for pack in members)
            assert total < 2 * TARGET_BYTES
            created = min(pack.created_ns for pack in members)
            new = next(fresh)
            by_id[new] = PackSize(new, created, total, members[0].is_thumbnails)
        packs = list(by_id.values())
    assert not plan_merges(packs)
    tiers = len(merging._TIERS)
    assert sum(pack.size < TARGET_BYTES for pack in packs) < 2 * tiers * FAN_IN


def test_packs_that_fill_a_whole_one_are_merged_however_few() -> None:
    packs = [PackSize(n, n, 60 * MIB, False) for n in range(3)]
    assert plan_merges(packs) == [(0, 1, 2)]
    assert plan_merges(packs[:2]) == []
