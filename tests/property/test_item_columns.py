"""What is answered from the columns in memory is what the database answers, whatever was done to the items before."""

from __future__ import annotations

import contextlib
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "store"))
from store_fixtures import (
    FOREIGN_PLACE,
    LAB_OWNER,
    OTHER_PLACE,
    OWNER,
    PLACE,
    Store,
    open_store,
    picture,
    readings,
    text_file,
)

from gleaner.app.errors import InvalidInput
from gleaner.app.services.items_read import ItemReader
from gleaner.app.services.items_values import ItemFilter, Selection
from gleaner.app.services.picture_hashes import PictureHashes
from gleaner.app.store import tables as t
from gleaner.app.store.cleaning import KEEP_DELETED_S, Cleaner
from gleaner.app.store.records import Box

TAGS = ("red", "green", "blue sky", "100%")
PLACES = (PLACE, OTHER_PLACE, FOREIGN_PLACE)

some_tags = st.lists(st.sampled_from(TAGS), max_size=3, unique=True).map(tuple)
number = st.integers(0, 40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("picture"), number, st.sampled_from(PLACES), some_tags),
        st.tuples(st.just("file"), number),
        st.tuples(st.just("readings"), number),
        st.tuples(st.just("tag"), st.sets(number, max_size=4), some_tags, some_tags),
        st.tuples(st.just("box"), number, st.sampled_from(TAGS)),
        st.tuples(st.just("delete"), st.sets(number, max_size=3)),
        st.tuples(st.just("undelete")),
        st.tuples(st.just("clean")),
        st.tuples(st.just("dataset"), st.sets(number, max_size=4)),
        st.tuples(st.just("drop dataset")),
        st.tuples(st.just("hash"), number, st.integers(0, 3)),
        st.tuples(st.just("look")),
    ),
    max_size=15,
)
second = st.integers(0, 40).map(lambda n: (1_700_000_000 + n) * 10**9)
filters = st.builds(
    ItemFilter,
    location_ids=st.sampled_from([(), ("location-1",), ("location-1", "location-2")]),
    machine_names=st.sampled_from([(), ("rover",)]),
    component_names=st.sampled_from([(), ("cam",), ("cam2", "cam")]),
    kinds=st.sampled_from([(), ("image",), ("file",)]),
    tags=some_tags,
    tagged=st.sampled_from([None, None, True, False]),
    labels=st.lists(st.sampled_from(TAGS), max_size=1).map(tuple),
    boxed=st.sampled_from([None, None, True, False]),
    start_ns=st.none() | second,
    end_ns=st.none() | second,
    near=st.sampled_from([None, None, None, 1, 3, 1000]),
    once=st.booleans(),
    search=st.sampled_from(["", "", "RED", "note-1", "%", "rover sky", "cam", "nothing like it"]),
)


class Hands:
    """Does the steps, as people and machines do them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hashes = PictureHashes(store.database)
        self._datasets: list[str] = []
        self._undo: list[str] = []

    def do(self, step: tuple[object, ...]) -> None:
        match step:
            case "picture", int(number), place, tags:
                component = "cam2" if number % 3 == 0 else "cam"
                self._store.add(picture(number, place=place, tags=tags, component=component))  # type: ignore[arg-type]
            case "file", int(number):
                self._store.add(text_file(f"note-{number}.txt", b"text %d" % number, revive=number % 2 == 0))
            case "readings", int(number):
                self._store.add(readings(number, 3))
            case "tag", set(numbers), tuple(add), tuple(remove):
                self._store.items.change_tags(OWNER, self._some(numbers), add, remove)
            case "box", int(number), str(label):
                for row in self._some({number}).rows:
                    self._store.items.add_box(OWNER, row, Box(label, 0.1, 0.1, 0.5, 0.5))
            case "hash", int(number), int(kind):
                looks = None if kind == 3 else (0, 0b111, 2**64 - 1)[kind] ^ number
                self._hashes.save(dict.fromkeys(self._some({number}).rows or (), looks))
            case "delete", set(numbers) if self._some(numbers).rows:
                self._undo.append(self._store.items.delete(OWNER, self._some(numbers)).undo)
            case ("undelete",) if self._undo:
                self._store.items.undelete(OWNER, self._undo.pop())
            case ("clean",):
                self._undo.clear()
                self._store.clock.advance(KEEP_DELETED_S + 1)
                Cleaner(self._store.database, self._store.packs, self._store.clock).clean()
            case "dataset", set(numbers):
                made = self._store.datasets.create(OWNER, "org-1", f"set {len(self._datasets)}")
                self._datasets.append(made.id)
                self._store.datasets.add_items(OWNER, made.id, self._some(numbers))
            case ("drop dataset",) if self._datasets:
                self._store.datasets.delete(OWNER, self._datasets.pop(0))

    def _some(self, numbers: object) -> Selection:
        assert isinstance(numbers, set)
        rows = sorted(ItemReader(self._store.database, self._store.packs).rows(OWNER, ItemFilter()))
        return Selection(rows=tuple(sorted({rows[number % len(rows)] for number in numbers})) if rows else ())


def rows_of(index: bytes) -> list[int]:
    return sorted(row for (row,) in struct.iter_unpack("<I", index))


@contextlib.contextmanager
def watched_store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        store.ingest.start()
        store.items.columns.start()
        store.items.columns.stop()  # loaded
        try:
            yield store
        finally:
            store.ingest.stop()
            store.database.close()


@settings(
    max_examples=20,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(steps, st.lists(filters, min_size=4, max_size=4))
def test_columns_and_database_give_the_same_answers(doings: list[tuple[object, ...]], wanted: list[ItemFilter]) -> None:
    with watched_store() as watched:
        hands, database = Hands(watched), ItemReader(watched.database, watched.packs)
        for number in range(6):
            hands.do(("picture", number, PLACES[number % 3], TAGS[: number % 4]))
            hands.do(("hash", number, number % 4))
        assert database.columns.view() is None and watched.items.columns.view() is not None
        for step in doings:
            if step == ("look",):
                watched.items.columns.view()
            else:
                with contextlib.suppress(InvalidInput):  # nothing to choose from
                    hands.do(step)
        for one in (*wanted, ItemFilter()):
            for caller in (OWNER, LAB_OWNER):
                listed, expected = watched.items.index(caller, one), database.index(caller, one)
                # The database does not put the nearest first.
                assert listed == expected or (one.near is not None and rows_of(listed) == rows_of(expected))
                assert watched.items.count(caller, one) == database.count(caller, one)
                assert watched.items.facets(caller, one) == database.facets(caller, one)


def test_a_change_is_seen_by_whoever_looks_after_it() -> None:
    with watched_store() as store:
        store.add(picture(1), picture(2))
        [newer, older] = store.items.rows(OWNER, ItemFilter())[::-1]
        assert store.items.change_tags(OWNER, Selection(rows=(older,)), ("red",), ()) == 1
        assert store.items.count(OWNER, ItemFilter(tags=("red",)))[0] == 1
        store.items.delete(OWNER, Selection(rows=(newer,)))
        assert store.items.count(OWNER, ItemFilter())[0] == 1
        with contextlib.suppress(ZeroDivisionError), store.database.write() as db:
            db.execute(t.item_tag.delete())
            _ = 1 / 0  # rolled back
        assert store.items.facets(OWNER, ItemFilter()).tags[0].count == 1
