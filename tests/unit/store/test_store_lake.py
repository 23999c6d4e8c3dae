"""Readings as Parquet: nothing lost, nothing twice, whatever sensors say and whenever it ends."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import bson
import duckdb
import pytest
import sqlalchemy as sa
from store_fixtures import FOREIGN_PLACE, NOW_NS, OWNER, PLACE, Store, also_in_a_bucket, readings
from viam.proto.app.datasync import DataType, SensorData, UploadMetadata

from gleaner.app.errors import InvalidInput
from gleaner.app.lake import files, sql
from gleaner.app.lake.compaction import DUE_ROWS, FAN_IN, Compactor
from gleaner.app.lake.mending import Rounds
from gleaner.app.lake.schema import Column, columns_of, merged
from gleaner.app.services.queries import QueryService
from gleaner.app.store import tables as t
from gleaner.app.store.cleaning import KEEP_DELETED_S, Cleaner
from gleaner.app.store.fsck import check
from gleaner.app.store.records import Upload
from gleaner.app.store.recovery import adopt_orphans, rebuild
from gleaner.app.store.uploads import from_sensor_contents


def said(first: int, *values: dict[str, Any], component: str = "sensor", tags: tuple[str, ...] = ()) -> Upload:
    contents = []
    for number, value in enumerate(values, first):
        one = SensorData()
        one.metadata.time_requested.seconds = 1_700_000_000 + number
        one.metadata.time_received.seconds = 1_700_000_000 + number
        one.struct.update({"readings": value})
        contents.append(one)
    metadata = UploadMetadata(
        component_type="rdk:component:sensor",
        component_name=component,
        method_name="Readings",
        type=DataType.DATA_TYPE_TABULAR_SENSOR,
        tags=tags,
    )
    return from_sensor_contents(metadata, contents, PLACE, NOW_NS)


def rows(store: Store, text: str) -> list[dict[str, Any]]:
    queries = QueryService(store.database, store.packs)
    try:
        return [bson.decode(one) for one in queries.sql(OWNER, "org-1", text).rows]
    finally:
        queries.stop()


def compactor(store: Store) -> Compactor:
    return Compactor(store.database, store.packs, store.clock)


def lake(store: Store) -> list[files.LakeFile]:
    with store.database.read() as db:
        return files.find(db)


TOTAL = "SELECT count(*) AS n, sum(data.readings.value) AS total FROM readings"


@also_in_a_bucket
def test_a_query_sees_the_same_before_between_and_after_compaction(store: Store) -> None:
    store.add(readings(0, 10))
    before = rows(store, TOTAL)
    compactor(store).compact(everything=True)
    assert rows(store, TOTAL) == before == [{"n": 10, "total": 45.0}]
    store.add(readings(10, 5), readings(0, 3, component="other"))
    assert rows(store, TOTAL) == [{"n": 18, "total": 108.0}]
    compactor(store).compact(everything=True)
    assert rows(store, TOTAL) == [{"n": 18, "total": 108.0}]
    assert len(lake(store)) == 3


def test_a_batch_that_is_sent_again_after_compaction_is_there_once(store: Store) -> None:
    store.add(readings(0, 10))
    compactor(store).compact(everything=True)
    store.add(readings(0, 10))
    compactor(store).compact(everything=True)
    assert rows(store, TOTAL)[0]["n"] == 10


def test_late_readings_come_in_their_place(store: Store) -> None:
    store.add(readings(100, 5))
    compactor(store).compact(everything=True)
    store.add(readings(0, 5))
    compactor(store).compact(everything=True)
    found = rows(store, "SELECT data.readings.value FROM readings ORDER BY time_requested")
    assert [one["value"] for one in found] == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]


def test_readings_of_changing_and_conflicting_types_lose_nothing(store: Store) -> None:
    values = [
        {"t": 1.5, "name": "a", "on": True},
        {"t": "broken", "name": None, "nested": {"lat": 1.0, "list": [1, {"x": "y"}]}},
        {"t": {"deep": 1}, "Name": "other case", "a.dot": 2, "": 3, "q\"'": 4},
        {"t": math.nan, "on": "yes", "nul": "a\0b", "emoji": "🤖 \\u00e9"},
        {},
    ]
    store.add(*(said(number, value) for number, value in enumerate(values)))

    def whole() -> list[Any]:
        found = [one["data"]["readings"] for one in rows(store, "SELECT data FROM readings ORDER BY time_requested")]
        assert math.isnan(found[3].pop("t"))
        return found

    expected = [values[0], values[1], values[2], {k: v for k, v in values[3].items() if k != "t"}, {}]
    assert whole() == expected
    for number in (5, 6):
        compactor(store).compact(everything=True)
        store.add(said(number, {"t": number}))
    found = rows(store, "SELECT * FROM readings WHERE time_requested < '2023-11-14T22:13:25Z' ORDER BY time_requested")
    assert [one["data"]["readings"] for one in found][:3] == values[:3]
    text = (
        "SELECT sum(data.readings.t) AS t, max(data.readings.nested.lat) AS lat FROM readings WHERE data.readings.t > 1"
    )
    assert rows(store, text)[0]["t"] != 0


def test_numbers_of_a_key_that_also_holds_text_can_be_calculated_and_the_text_is_shown(store: Store) -> None:
    store.add(said(0, {"t": 1.0}, {"t": 3.0}), said(2, {"t": "sensor lost"}))
    for _ in range(2):
        assert rows(store, "SELECT avg(data.readings.t) AS t FROM readings") == [{"t": 2.0}]
        shown = rows(store, "SELECT data.readings.t FROM readings ORDER BY time_requested")
        assert [one["t"] for one in shown] == [1.0, 3.0, "sensor lost"]
        compactor(store).compact(everything=True)


@also_in_a_bucket
def test_small_files_are_merged_and_hold_the_same(store: Store) -> None:
    for number in range(FAN_IN):
        store.add(readings(number * 10, 10) if number % 2 else said(number * 10, *({"value": str(number)},) * 10))
        compactor(store).compact(everything=True)
    expected = sum(sum(range(n * 10, n * 10 + 10)) for n in range(1, FAN_IN, 2))
    assert len(lake(store)) == 1
    assert lake(store)[0].count == FAN_IN * 10
    assert rows(store, TOTAL)[0]["n"] == FAN_IN * 10
    text = "SELECT sum(data.readings.value) AS s FROM readings WHERE json_type(data->'readings'->'value') <> 'VARCHAR'"
    assert rows(store, text) == [{"s": float(expected)}]
    Cleaner(store.database, store.packs, store.clock).clean()
    assert rows(store, TOTAL)[0]["n"] == FAN_IN * 10
    assert check(store.packs, store.database, deep=True).is_healthy


@also_in_a_bucket
def test_deleted_readings_are_gone_at_once_and_leave_the_files_a_day_later(store: Store) -> None:
    store.add(readings(0, 10), readings(10, 10))
    compactor(store).compact(everything=True)
    with store.database.write() as db:
        chosen = t.readings_batch.c.id == 1
        db.execute(t.readings_batch.update().where(chosen).values(deleted_ns=store.clock()))
    assert rows(store, TOTAL) == [{"n": 10, "total": 145.0}]
    compactor(store).compact()
    assert lake(store)[0].deleted == (1,)
    store.clock.advance(KEEP_DELETED_S + 1)
    compactor(store).compact()
    [left] = lake(store)
    assert (left.count, left.deleted) == (10, ())
    Cleaner(store.database, store.packs, store.clock).clean()
    with store.database.read() as db:
        assert db.scalar(sa.select(t.readings_batch.c.pack_id).where(t.readings_batch.c.id == 1)) is None
    assert rows(store, TOTAL) == [{"n": 10, "total": 145.0}]


def test_a_crash_before_the_transaction_leaves_the_readings_where_they_were(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(readings(0, 10))

    class Crash(BaseException):
        pass

    def crash() -> None:
        raise Crash

    with pytest.raises(Crash), monkeypatch.context() as patched:
        patched.setattr(store.database, "write", crash)
        compactor(store).compact(everything=True)
    assert rows(store, TOTAL) == [{"n": 10, "total": 45.0}]
    assert len(store.pack_names()) == 2
    adopt_orphans(store.packs, store.database)
    assert len(store.pack_names()) == 1
    compactor(store).compact(everything=True)
    assert rows(store, TOTAL) == [{"n": 10, "total": 45.0}]


def test_a_batch_that_cannot_be_read_holds_up_no_other(store: Store) -> None:
    store.add(readings(0, 10))
    store.add(readings(10, 10))
    with store.database.read() as db:
        name = db.scalar(sa.select(t.pack.c.name).where(t.pack.c.id == 1))
    path = store.folder / "packs" / str(name)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert compactor(store).compact(everything=True).files >= 1
    assert rows(store, TOTAL)[0]["n"] == 10


def test_series_become_due_by_their_size(store: Store) -> None:
    store.add(readings(0, DUE_ROWS), readings(0, 5, component="slow"))
    assert compactor(store).compact().readings == DUE_ROWS
    store.clock.advance(600)
    assert compactor(store).compact().readings == 5


def test_nothing_of_the_readings_is_on_the_disk_in_plain(store: Store, tmp_path: Path) -> None:
    store.add(said(0, {"secret": "sturgeon-47"}))
    compactor(store).compact(everything=True)
    assert not any(b"sturgeon" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_columns_are_the_keys_that_stay_scalars_of_one_kind() -> None:
    found = columns_of(
        [
            '{"a":"DOUBLE","b":"VARCHAR","c":"BOOLEAN","d":["DOUBLE"],"e":{"f":"UBIGINT"},"X":"DOUBLE","x":"DOUBLE"}',
            '{"a":"VARCHAR","b":"NULL","c":"VARCHAR","e":"NULL"}',
        ]
    )
    assert found == {
        ("a",): Column("DOUBLE", is_exact=False),
        ("b",): Column("VARCHAR"),
        ("e", "f"): Column("DOUBLE"),
    }
    assert merged([found, {("b",): Column("DOUBLE")}])["b",] == Column("DOUBLE", is_exact=False)


def seen(number: int, confidence: float, *, place: Any = PLACE) -> Upload:
    """A picture with one box and one class of this confidence."""
    sensor = SensorData(binary=b"\xff\xd8\xff picture %d" % number)
    sensor.metadata.time_requested.seconds = 1_700_000_000 + number
    sensor.metadata.time_received.seconds = 1_700_000_000 + number
    sensor.metadata.annotations.bboxes.add(
        label="star", x_min_normalized=0.1, y_min_normalized=0.2, x_max_normalized=0.3, y_max_normalized=0.4,
        confidence=confidence,
    )  # fmt: skip
    sensor.metadata.annotations.classifications.add(label="night", confidence=1 - confidence)
    metadata = UploadMetadata(
        component_type="rdk:service:vision",
        component_name="eye",
        method_name="CaptureAllFromCamera",
        type=DataType.DATA_TYPE_BINARY_SENSOR,
        mime_type="image/jpeg",
        tags=["b", "a"],
    )
    return from_sensor_contents(metadata, [sensor], place, NOW_NS)


def test_pictures_in_which_the_model_was_not_sure_are_found_by_sql(store: Store) -> None:
    receipts = store.add(seen(0, 0.9), seen(1, 0.5), seen(2, 0.3), seen(100, 0.2), seen(3, 0.1, place=FOREIGN_PLACE))
    store.add(readings(0, 3))
    unsure = rows(
        store,
        "SELECT binary_data_id, label, confidence, x_max FROM annotations WHERE kind = 'box' AND confidence < 0.6 "
        "AND time_requested BETWEEN TIMESTAMP '2023-11-14 22:13:00' AND TIMESTAMP '2023-11-14 22:14:00' ORDER BY confidence",
    )
    assert [one["binary_data_id"] for one in unsure] == [receipts[2].binary_data_id, receipts[1].binary_data_id]
    assert (unsure[0]["label"], round(unsure[0]["x_max"], 6)) == ("star", 0.3)
    joined = rows(
        store,
        "SELECT i.file_name, i.tags, r.data.readings.value FROM items i "
        "JOIN annotations a USING (binary_data_id) JOIN readings r ON r.time_requested = i.time_requested "
        "WHERE a.kind = 'classification' AND a.confidence > 0.6 AND i.time_requested < TIMESTAMP '2023-11-14 22:14:00'",
    )
    assert [(one["tags"], one["value"]) for one in joined] == [(["a", "b"], 2.0)]
    assert rows(store, "SELECT count(*) AS n FROM items WHERE part_id = 'part-3'") == [{"n": 0}]
    assert rows(store, "SELECT count(*) AS n FROM items") == [{"n": 4}]


def test_readings_come_back_when_the_index_is_made_again_from_packs(store: Store) -> None:
    store.add(readings(0, 10))
    compactor(store).compact(everything=True)
    store.add(readings(10, 5))
    with store.database.write() as db:
        for table in (t.readings_batch, t.lake_file, t.pack):
            db.execute(table.delete())
    assert rows(store, TOTAL)[0]["n"] == 0
    rebuild(store.packs, store.database, lambda done: None)
    assert rows(store, TOTAL) == [{"n": 15, "total": 105.0}]
    adopt_orphans(store.packs, store.database)
    assert check(store.packs, store.database, deep=True).is_healthy
    assert rows(store, TOTAL) == [{"n": 15, "total": 105.0}]


def test_a_key_that_nobody_has_is_null_in_calculations(store: Store) -> None:
    text = "SELECT avg(data.readings.nope) AS mean, sum(data.readings.nope * 2) AS double FROM readings"
    assert rows(store, text) == [{"mean": None, "double": None}]
    store.add(readings(0, 3))
    assert rows(store, text) == [{"mean": None, "double": None}]
    assert rows(store, "SELECT count(*) AS n FROM readings WHERE data.readings.nope > 3") == [{"n": 0}]


def damage(store: Store, how: str) -> None:
    """To the newest lake file, in the middle of what a query reads."""
    file = max(lake(store), key=lambda one: one.id)
    with store.database.read() as db:
        name = db.scalar(sa.select(t.pack.c.name).where(t.pack.c.id == file.pack_id))
    path = store.folder / "packs" / str(name)
    if how == "gone":
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: file.position.body_offset + file.position.size // 2]
    else:
        content[file.position.body_offset + file.position.size // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["gone", "cut", "changed"])
def test_a_damaged_lake_file_is_made_again_from_its_batches(store: Store, how: str) -> None:
    store.add(readings(0, 10))
    compactor(store).compact(everything=True)
    store.add(readings(10, 10))
    compactor(store).compact(everything=True)
    damage(store, how)
    (finding,) = check(store.packs, store.database, deep=True).findings
    assert finding.problem.startswith("lake files") and finding.records == 1
    assert rows(store, TOTAL) == [{"n": 20, "total": 190.0}]
    assert len(lake(store)) == 1
    compactor(store).compact(everything=True)
    assert len(lake(store)) == 2
    assert rows(store, TOTAL) == [{"n": 20, "total": 190.0}]


def seven_files(store: Store) -> None:
    for number in range(FAN_IN - 1):
        store.add(readings(number * 10, 10))
        compactor(store).compact(everything=True)


def test_a_damaged_lake_file_is_found_without_a_query(store: Store) -> None:
    seven_files(store)
    rounds = Rounds(store.database, store.packs, store.clock)
    assert [rounds.look_at_next() for _ in range(FAN_IN)] == [[]] * FAN_IN
    damage(store, "changed")
    assert rounds.look_at_next() == []  # not before tomorrow
    store.clock.advance(86_400)
    assert [len(rounds.look_at_next()) for _ in range(FAN_IN - 1)] == [0] * (FAN_IN - 2) + [1]
    assert len(lake(store)) == FAN_IN - 2


def test_a_damaged_lake_file_holds_up_no_merge(store: Store) -> None:
    seven_files(store)
    damage(store, "cut")
    store.add(readings(70, 10))
    assert compactor(store).compact(everything=True).merged == 0
    assert compactor(store).compact(everything=True).merged == FAN_IN
    assert rows(store, TOTAL) == [{"n": 80, "total": float(sum(range(80)))}]
    assert check(store.packs, store.database, deep=True).is_healthy


def test_a_mistake_in_sql_is_told_with_its_place() -> None:
    """In characters, though the text has some of two bytes before it."""
    text = "SELECT 'ää' AS x,\n  FROM\nreadings WHERE x =="
    with duckdb.connect() as connection, pytest.raises(InvalidInput, match=r'"==" \(line 3, column 18\)$'):
        sql.parse(connection, text, frozenset(("readings",)))
