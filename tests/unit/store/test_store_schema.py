from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from store_fixtures import Store

from gleaner.app import migrations
from gleaner.app.database import SCHEMA_VERSION, Database, NewerSchema
from gleaner.app.keys import Keys
from gleaner.app.services import fleet_tables, jobs_store

TABLES = (fleet_tables, jobs_store)
"""They are made with a database only once their modules are loaded."""


def test_newest_migration_is_the_schema_of_new_databases() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_VERSION]


def test_opening_again_changes_nothing(store: Store) -> None:
    store.database.create_tables()
    with store.database.read() as db:
        assert db.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == SCHEMA_VERSION


def test_data_of_the_first_schema_is_brought_to_this_one(store: Store) -> None:
    with store.database.write() as db:
        for statement in (
            "DROP TABLE item_hash",
            "DROP TABLE item_embedding",
            "DROP TABLE saved_view",
            "DROP INDEX item_by_name",
            "DROP TABLE lake_file",
            "DROP INDEX readings_waiting",
            "DROP INDEX readings_by_lake",
            "ALTER TABLE readings_batch DROP COLUMN lake_id",
            "DROP TABLE dataset_sequence",
            "DROP TABLE sequence",
            "ALTER TABLE dataset DROP COLUMN type",
            "ALTER TABLE training_job DROP COLUMN script",
            "ALTER TABLE training_job DROP COLUMN backbone",
            "INSERT INTO dataset (id, organization_id, name, created_ns) VALUES ('a', 'o', 'n', 1)",
            "UPDATE alembic_version SET version_num = '0001'",
        ):
            db.exec_driver_sql(statement)
    store.database.create_tables()
    with store.database.read() as db:
        assert db.exec_driver_sql("SELECT type FROM dataset").scalar_one() == "binary"
        assert db.exec_driver_sql("SELECT count(*) FROM sequence").scalar_one() == 0
        assert db.exec_driver_sql("SELECT count(*) FROM item_hash").scalar_one() == 0
        assert db.exec_driver_sql("SELECT count(script) FROM training_job").scalar_one() == 0
        assert db.exec_driver_sql("SELECT count(backbone) FROM training_job").scalar_one() == 0
        assert db.exec_driver_sql("SELECT count(lake_id) FROM readings_batch").scalar_one() == 0
        assert db.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == SCHEMA_VERSION


def test_data_of_a_newer_version_is_refused(store: Store) -> None:
    with store.database.write() as db:
        db.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(NewerSchema, match="newer Gleaner"):
        store.database.create_tables()


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_metadata_is_encrypted(store: Store, tmp_path: Path) -> None:
    assert not (tmp_path / "metadata.db").read_bytes().startswith(b"SQLite")
    wrong = Database.sqlite(tmp_path / "metadata.db", bytes(32))
    with pytest.raises(sa.exc.DatabaseError), wrong.read() as db:
        db.exec_driver_sql("SELECT * FROM item")
    wrong.close()


def test_readers_do_not_wait_for_the_writer(tmp_path: Path) -> None:
    database = Database.sqlite(tmp_path / "m.db", Keys.open(tmp_path, {}).database)
    database.create_tables()
    with database.write() as writer:
        writer.exec_driver_sql("INSERT INTO dataset (id, organization_id, name, created_ns) VALUES ('a', 'o', 'n', 1)")
        with database.read() as reader:
            assert reader.exec_driver_sql("SELECT count(*) FROM dataset").scalar_one() == 0
    with database.read() as reader:
        assert reader.exec_driver_sql("SELECT count(*) FROM dataset").scalar_one() == 1
    database.close()
