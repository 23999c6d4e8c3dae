"""The metadata database: encrypted SQLite by default, PostgreSQL by URL.

Invariants: one writer at a time in this process (`write` takes a lock, then BEGIN IMMEDIATE); readers never wait for it
(WAL). Tables are declared beside the services that own them, on `metadata`. A commit is durable when `write` returns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

metadata = sa.MetaData()

#: The newest revision in `migrations/versions`; a test keeps it so. A new database is made in this shape at once.
SCHEMA_VERSION = "0001"
_version = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))


class NewerSchema(Exception):
    """The data was made by a newer Gleaner; the message says what to do. The app refuses to start."""


class DatabaseProblem(Exception):
    """The database given by URL cannot be used; the message says what to do. The app refuses to start."""


class Database:
    """Connections for services. `read()` and `write()` are context managers that yield a SQLAlchemy connection."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._writer = threading.Lock()

    @classmethod
    def sqlite(cls, path: Path, key: bytes) -> Database:
        """Opens or makes an encrypted file. `key` is 32 raw bytes; a wrong one fails on the first statement."""
        from sqlcipher3 import dbapi2 as sqlcipher

        def connect() -> object:
            connection = sqlcipher.connect(str(path), check_same_thread=False, isolation_level=None, timeout=30)
            connection.execute(f"PRAGMA key=\"x'{key.hex()}'\"")
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "foreign_keys=ON",
                "cache_size=-16384",
                "temp_store=MEMORY",
            ):
                connection.execute(f"PRAGMA {pragma}")
            return connection

        # The plain sqlite dialect over the sqlcipher module: the pysqlcipher dialect insists on a passphrase of its own.
        engine = sa.create_engine(
            "sqlite://", module=sqlcipher, creator=connect, poolclass=sa.pool.QueuePool, pool_size=16, max_overflow=32
        )
        sa.event.listen(engine, "begin", _begin)
        return cls(engine)

    @classmethod
    def from_url(cls, url: str) -> Database:
        """Raises DatabaseProblem when the URL is none, its driver is missing or nothing answers there."""
        try:
            engine = sa.create_engine(url, pool_pre_ping=True)
            engine.connect().close()
        except (sa.exc.ArgumentError, ModuleNotFoundError) as err:
            raise DatabaseProblem(
                f"The database URL cannot be used: {err}. Write it like postgresql+psycopg://user@host/name "
                "and install its driver (pip install psycopg)."
            ) from err
        except sa.exc.OperationalError as err:
            raise DatabaseProblem(
                f"The database {engine.url} cannot be reached: {str(err.orig).strip()}. Start it, or correct --database-url."
            ) from err
        return cls(engine)

    def create_tables(self) -> None:
        """Brings the schema to this version: makes it, or migrates an older one. Raises NewerSchema."""
        version = self._schema_version()
        if version not in (None, SCHEMA_VERSION):
            _migrate(self.engine, str(version))
        metadata.create_all(self.engine)
        if version is None:
            with self.engine.begin() as db:
                _version.create(db, checkfirst=True)
                db.execute(_version.insert().values(version_num=SCHEMA_VERSION))

    def _schema_version(self) -> str | None:
        if not sa.inspect(self.engine).has_table(_version.name):
            return None
        with self.engine.begin() as db:
            return db.scalar(sa.select(_version.c.version_num))

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        begin = {"gleaner_begin": "BEGIN IMMEDIATE"}
        with (
            self._writer,
            self.engine.connect().execution_options(**begin) as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("gleaner_begin", "BEGIN"))


def _migrate(engine: sa.Engine, version: str) -> None:
    # Loaded only when there is something to migrate: it would add a quarter of a second to every start.
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    try:
        command.upgrade(config, "head")
    except CommandError as err:
        raise NewerSchema(
            f"This data was made by a newer Gleaner (schema {version}, this one knows up to {SCHEMA_VERSION}). "
            "Install that version again, or start with another --data-dir."
        ) from err
