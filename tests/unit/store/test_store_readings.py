from __future__ import annotations

from store_fixtures import LAB_OWNER, OTHER_PLACE, OWNER, Store, readings

from gleaner.app.services.items_values import ItemFilter

START = 1_700_000_000 * 10**9
SECOND = 10**9


def test_series_tell_their_span_and_latest_value(store: Store) -> None:
    store.add(readings(0, 10), readings(20, 5), readings(5, 1, place=OTHER_PLACE, component="imu"))
    series = store.readings.series(OWNER, ItemFilter())
    assert [one.origin.component_name for one in series] == ["sensor", "imu"]
    first = series[0]
    assert (first.count, first.first_ns, first.last_ns) == (15, START, START + 24 * SECOND)
    assert first.latest == {"readings": {"value": 24.0}}
    assert len(store.readings.series(LAB_OWNER, ItemFilter())) == 1


def test_rows_are_the_newest_of_all_batches(store: Store) -> None:
    # Batches that overlap, as two files of a sensor with a jumping clock do.
    store.add(readings(0, 10), readings(5, 10), readings(100, 3))
    rows = store.readings.rows(OWNER, ItemFilter(), 8)
    seconds = [(one.requested_ns - START) // SECOND for one in rows]
    assert seconds == [102, 101, 100, 14, 13, 12, 11, 10]


def test_time_range_cuts_inside_a_batch(store: Store) -> None:
    store.add(readings(0, 10))
    wanted = ItemFilter(start_ns=START + 3 * SECOND, end_ns=START + 6 * SECOND)
    assert [one.data["readings"]["value"] for one in store.readings.rows(OWNER, wanted, 100)] == [5.0, 4.0, 3.0]
    assert [one.data["readings"]["value"] for one in store.readings.export(OWNER, wanted)] == [3.0, 4.0, 5.0]


def test_the_number_beside_the_filters_follows_the_time_range(store: Store) -> None:
    store.add(readings(0, 10), readings(100, 3))
    late = ItemFilter(start_ns=START + 50 * SECOND)
    assert [one.count for one in store.items.facets(OWNER, late).kinds if one.value == "reading"] == [3]
    assert [one.count for one in store.readings.series(OWNER, late)] == [3]
    assert store.items.facets(OWNER, ItemFilter(end_ns=START)).kinds == []


def test_readings_are_no_items(store: Store) -> None:
    store.add(readings(0, 10))
    assert store.items.count(OWNER, ItemFilter())[0] == 0
    assert store.items.count(OWNER, ItemFilter(kinds=("reading",)))[0] == 0
