"""What pictures look like: the hash on real photos, groups of the same, and the filters over them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import sqlalchemy as sa
from store_fixtures import FOREIGN_PLACE, LAB_OWNER, OTHER_PLACE, OWNER, Store, picture

from gleaner.app.services.items_values import ItemFilter, Selection
from gleaner.app.services.picture_hash import ALIKE, NEAR, picture_hash, signed
from gleaner.app.services.picture_hashes import PictureHashes
from gleaner.app.services.thumbnails import Thumbnails
from gleaner.app.store import tables as t

Pixels = npt.NDArray[np.uint8]


def bits_between(one: int, other: int) -> int:
    return (one ^ other).bit_count()


@pytest.fixture(scope="module")
def signs(photos: Path) -> list[Pixels]:
    """Of hand signs: each digit by another person, all before much the same wall."""
    found = []
    for number in range(10):
        chosen = sorted((photos / "signs" / str(number)).iterdir())[number * 3]
        found.append(np.asarray(cv2.imread(str(chosen)), np.uint8))
    return found


def encoded_again(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", pixels, [1, 40])[1], cv2.IMREAD_COLOR), np.uint8)


def twice_as_wide(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.resize(pixels, None, fx=2, fy=2), np.uint8)


def brighter(pixels: Pixels) -> Pixels:
    return np.asarray(np.clip(pixels.astype(int) + 25, 0, 255), np.uint8)


@pytest.mark.parametrize("change", [encoded_again, twice_as_wide, brighter])
def test_a_changed_copy_is_near_its_photo(signs: list[Pixels], change: Callable[[Pixels], Pixels]) -> None:
    assert all(bits_between(picture_hash(change(one)), picture_hash(one)) <= NEAR for one in signs)


def test_different_photos_are_not_alike(signs: list[Pixels]) -> None:
    between = [bits_between(picture_hash(a), picture_hash(b)) for a, b in combinations(signs, 2)]
    assert min(between) > ALIKE and sorted(between)[len(between) // 20] > NEAR


def test_noise_on_a_bare_wall_decides_no_bit() -> None:
    noise = np.random.default_rng(1)
    walls = [np.clip(noise.normal(120, 3, (240, 320, 3)), 0, 255).astype(np.uint8) for _ in range(3)]
    assert len({picture_hash(wall) for wall in walls}) == 1


def rows(store: Store, wanted: ItemFilter) -> list[int]:
    """In their order."""
    return [row for (row,) in struct.iter_unpack("<I", store.items.index(OWNER, wanted))]


def hashes(store: Store) -> dict[int, tuple[int, int]]:
    with store.database.read() as db:
        return {one.row: (one.hash, one.alike) for one in db.execute(sa.select(t.item_hash))}


def jpeg(pixels: Pixels, quality: int = 95) -> bytes:
    return bytes(cv2.imencode(".jpg", pixels, [1, quality])[1])


def test_pictures_are_looked_at_behind_the_acknowledgement(store: Store, signs: list[Pixels]) -> None:
    thumbnails = Thumbnails(store.database, store.packs, store.items, store.clock)
    store.ingest.on_stored = thumbnails.stored
    first, broken, again, other = store.add(
        picture(1, content=jpeg(signs[0])),
        picture(2, content=b"\xff\xd8\xff nothing"),
        picture(3, content=jpeg(signs[0], 60)),
        picture(4, content=jpeg(signs[1])),
    )
    for one in (first, again, other):
        thumbnails.get(OWNER, one.row)
    thumbnails.start()
    thumbnails.stop()
    found = hashes(store)
    assert found[again.row][1] == found[first.row][1] == first.row
    assert found[other.row] == (signed(picture_hash(signs[1])), other.row) or found[other.row][1] == other.row
    assert broken.row not in found or found[broken.row][1] == 0


def test_older_pictures_are_looked_at_when_nothing_else_is_to_do(store: Store, signs: list[Pixels]) -> None:
    receipts = store.add(*(picture(n, content=jpeg(one)) for n, one in enumerate(signs[:3])))
    with_thumbnail = Thumbnails(store.database, store.packs, store.items, store.clock)
    with_thumbnail.get(OWNER, receipts[0].row)
    with_thumbnail.start()
    with_thumbnail.stop()  # its hash is saved with it
    with store.database.write() as db:
        db.execute(t.item_hash.delete())
    known = PictureHashes(store.database)
    assert [row for row, _ in known.unknown(2)] == [one.row for one in receipts[:0:-1]]
    assert [row for row, _ in known.unknown(2)] == [receipts[0].row]
    assert known.unknown(2) == []
    later = Thumbnails(store.database, store.packs, store.items, store.clock)
    while later.look_at_older():
        pass
    later.stop()
    later.start()
    later.stop()
    assert sorted(hashes(store)) == [one.row for one in receipts]


@pytest.fixture(params=["columns", "database"])
def looked_at(store: Store, request: pytest.FixtureRequest) -> Store:
    """Rows 1-6 of one camera: 1, 2 and 4 look the same, 3 and 5 a little less so, 6 was not looked at; 7 is another's."""
    receipts = store.add(*(picture(n) for n in range(1, 7)), picture(7, place=FOREIGN_PLACE))
    assert [one.row for one in receipts] == list(range(1, 8))
    looks = 0xF0F0_0000_1234_5678
    near = looks ^ 0b11111111
    PictureHashes(store.database).save(
        {1: looks, 2: looks ^ 1, 4: looks ^ 0b111, 3: near, 5: ~looks & (2**64 - 1), 7: looks}
    )
    if request.param == "columns" and store.database.engine.dialect.name == "sqlite":
        store.items.columns.start()
        store.items.columns.stop()
    return store


def test_what_looks_alike_is_listed_once(looked_at: Store) -> None:
    assert rows(looked_at, ItemFilter(once=True)) == [6, 5, 4, 3]
    assert looked_at.items.facets(OWNER, ItemFilter(once=True)).total == 4
    assert looked_at.items.rows(OWNER, ItemFilter(once=True, end_ns=1_700_000_003 * 10**9)) == [2]


def test_the_next_one_stands_for_the_others_when_the_newest_is_deleted(looked_at: Store) -> None:
    looked_at.items.delete(OWNER, Selection(rows=(4,)))
    assert rows(looked_at, ItemFilter(once=True)) == [6, 5, 3, 2]


def test_only_what_is_shown_is_changed_by_a_filter(looked_at: Store) -> None:
    assert looked_at.items.change_tags(OWNER, Selection(filter=ItemFilter(once=True)), ("kept",)) == 4
    assert sorted(rows(looked_at, ItemFilter(tags=("kept",)))) == [3, 4, 5, 6]


def test_near_pictures_of_one_are_found(looked_at: Store) -> None:
    assert sorted(rows(looked_at, ItemFilter(near=1))) == [1, 2, 3, 4]
    assert rows(looked_at, ItemFilter(near=5)) == [5]
    assert rows(looked_at, ItemFilter(near=6)) == [6]  # not looked at yet: itself
    if looked_at.items.columns.view() is not None:
        assert rows(looked_at, ItemFilter(near=1)) == [1, 2, 4, 3]


def test_nobody_learns_what_pictures_of_others_look_like(looked_at: Store) -> None:
    assert rows(looked_at, ItemFilter(near=7)) == []
    assert looked_at.items.count(LAB_OWNER, ItemFilter(near=1))[0] == 4
    [hall] = looked_at.add(picture(20, place=OTHER_PLACE))
    assert looked_at.items.count(LAB_OWNER, ItemFilter(near=hall.row))[0] == 0


def test_a_picture_sent_again_keeps_what_it_looks_like(looked_at: Store) -> None:
    before = hashes(looked_at)
    PictureHashes(looked_at.database).save({1: 5, 99: 7})
    assert hashes(looked_at) == before
