"""The lake as Parquet in a folder, read by the programs of docs/scale.md."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.dataset
from store_fixtures import OTHER_PLACE, Store, readings

from gleaner.app.lake.compaction import Compactor
from gleaner.app.lake.published import publish
from gleaner.app.store import tables as t


def test_readings_are_the_same_for_duckdb_and_pyarrow(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    store.add(readings(1, 100), readings(1, 50, place=OTHER_PLACE, component="../up"))
    Compactor(store.database, store.packs, store.clock).compact(everything=True)
    done = publish(store.packs, store.database, folder)
    assert (done.files, done.written, done.rows) == (2, 2, 150)
    with duckdb.connect() as duck:
        found = duck.execute(
            f"SELECT part_id, count(*), sum(\"data.readings.value\") FROM read_parquet('{folder}/**/*.parquet', "
            "union_by_name = true) GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert found == [("part-1", 100, 5050.0), ("part-2", 50, 1275.0)]
    table = pyarrow.dataset.dataset(folder, format="parquet").to_table(columns=["part_id", "data"])
    assert table.num_rows == 150
    assert all(path.is_relative_to(folder) for path in tmp_path.glob("**/*.parquet"))


def test_a_later_run_writes_what_is_new_and_leaves_out_what_was_deleted(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    compactor = Compactor(store.database, store.packs, store.clock)
    store.add(readings(1, 100), readings(200, 10))
    compactor.compact(everything=True)
    publish(store.packs, store.database, folder)
    assert publish(store.packs, store.database, folder).written == 0
    store.add(readings(300, 5))
    compactor.compact(everything=True)
    with store.database.write() as db:
        first = db.execute(t.readings_batch.select().order_by(t.readings_batch.c.id)).first()
        assert first is not None
        db.execute(t.readings_batch.update().where(t.readings_batch.c.id == first.id).values(deleted_ns=store.clock()))
    done = publish(store.packs, store.database, folder)
    assert (done.written, done.removed) == (2, 1)
    assert pyarrow.dataset.dataset(folder, format="parquet").count_rows() == 115 - first.count
