"""The metadata database: encrypted SQLite by default, PostgreSQL by URL.

Invariants: one writer at a time (`write` takes a lock, then BEGIN IMMEDIATE; on PostgreSQL an advisory lock, which all
processes on the database share, so that what a transaction has read stays so until it commits); readers never wait for it. Tables are declared beside the services that own them, on `metadata`. A commit is durable when `write` returns.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()

#: The newest revision in `migrations/versions`; a test keeps it so. A new database is made in this shape at once.
SCHEMA_VERSION = "0017"
_version = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))

# Of decrypted pages, for each connection. The one that writes looks up random keys in large indexes; readers are many, and
# what a gallery asks again and again is answered from columns in memory. These caches were what grew while pictures came in.
_WRITER_KIB, _READER_KIB = 4 << 10, 1 << 10

#: New items are not among them: their rows are behind all others.
_WATCHED = (
    ("item", "UPDATE"),
    *(
        (table, action)
        for table in ("item_tag", "item_box", "dataset_item", "item_hash")
        for action in ("INSERT", "UPDATE", "DELETE")
    ),
)


#: Any number will do that nobody else uses in this database.
_WRITERS = 0x676C65616E6572
#: A process that is stopped or cut off in the middle of a transaction must not hold up the others for ever.
_PATIENCE = ("SET idle_in_transaction_session_timeout = '60s'", "SET lock_timeout = '30s'")


class NewerSchema(Exception):
    """The data was made by a newer Gleaner; the message says what to do. The app refuses to start."""


class DatabaseProblem(Exception):
    """The database given by URL cannot be used; the message says what to do. The app refuses to start."""


class Database:
    """Connections for services. `read()` and `write()` are context managers that yield a SQLAlchemy connection."""

    def __init__(self, engine: sa.Engine, writing: sa.Engine | None = None) -> None:
        """`writing`: with the connection of `write`, where that is another than one of `engine`'s."""
        self.engine = engine
        self._writing = writing or engine
        self._writer = threading.Lock()
        self._watchers: list[Callable[[set[int]], None]] = []
        self._changed: set[int] = set()

    @classmethod
    def sqlite(cls, path: Path, key: bytes) -> Database:
        """Opens or makes an encrypted file. `key` is 32 raw bytes; a wrong one fails on the first statement."""
        from sqlcipher3 import dbapi2 as sqlcipher

        def engine(cache_kib: int, most: int) -> sa.Engine:
            def connect() -> object:
                connection = sqlcipher.connect(str(path), check_same_thread=False, isolation_level=None, timeout=30)
                connection.execute(f"PRAGMA key=\"x'{key.hex()}'\"")
                for pragma in (
                    "journal_mode=WAL",
                    "synchronous=FULL",
                    "foreign_keys=ON",
                    f"cache_size=-{cache_kib}",
                    "temp_store=MEMORY",
                ):
                    connection.execute(f"PRAGMA {pragma}")
                return connection

            # The plain sqlite dialect over the sqlcipher module: the pysqlcipher dialect insists on a passphrase of its own.
            made = sa.create_engine(
                "sqlite://",
                module=sqlcipher,
                creator=connect,
                poolclass=sa.pool.QueuePool,
                pool_size=min(most, 16),
                max_overflow=max(most - 16, 0),
                pool_use_lifo=True,  # the one used last first: those that never have their turn keep no pages
            )
            sa.event.listen(made, "begin", _begin)
            return made

        return cls(engine(_READER_KIB, 48), engine(_WRITER_KIB, 1))

    @classmethod
    def from_url(cls, url: str) -> Database:
        """Raises DatabaseProblem when the URL is none, its driver is missing or nothing answers there."""
        try:
            engine = sa.create_engine(url, pool_pre_ping=True)
            if engine.dialect.name == "postgresql":
                sa.event.listen(engine, "connect", _be_patient)
            engine.connect().close()
        except (sa.exc.ArgumentError, ModuleNotFoundError) as err:
            raise DatabaseProblem(
                f"The database URL cannot be used: {err}. Write it like postgresql+psycopg://user@host/name "
                "and install its driver (pip install 'gleaner[postgres]')."
            ) from err
        except sa.exc.OperationalError as err:
            raise DatabaseProblem(
                f"The database {engine.url} cannot be reached: {str(err.orig).strip()}. Start it, or correct --database-url."
            ) from err
        return cls(engine)

    @property
    def description(self) -> str:
        """Which database it is, without a password."""
        if self.engine.dialect.name == "sqlite":
            return "encrypted SQLite"
        return str(self.engine.url.set(query={}))

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
    def look(self) -> Iterator[sa.Connection]:
        """For one statement through the driver: `read` without the transaction around it, which takes longer than some."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        begin = {"gleaner_begin": "BEGIN IMMEDIATE"}
        with (
            self._writer,
            self._writing.connect().execution_options(**begin) as connection,
        ):
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")
                yield connection
            # After the commit: who is told and looks sees the change.
            if changed := self._changed:
                self._changed = set()
                for watcher in self._watchers:
                    watcher(changed)

    def watch(self, watcher: Callable[[set[int]], None]) -> bool:
        """Calls the watcher after each commit that changed items that were there, or what belongs to them, with their rows.

        After the tables were made. False: this database has other writers, too, whose changes are not seen here.
        """
        if self.engine.dialect.name != "sqlite":
            return False
        self._watchers.append(watcher)
        if len(self._watchers) == 1:
            sa.event.listen(self._writing, "connect", self._watch_connection)
            self._writing.dispose()  # connections made from here on have the triggers
        return True

    def _watch_connection(self, connection: Any, record: object) -> None:
        # In the connection, not in the file: nothing of it outlives this process.
        connection.create_function("gleaner_changed", 1, self._changed_row)
        for number, (table, action) in enumerate(_WATCHED):
            which = "OLD" if action == "DELETE" else "NEW"
            connection.execute(
                f"CREATE TEMP TRIGGER gleaner_changed_{number} AFTER {action} ON main.{table} "
                f"BEGIN SELECT gleaner_changed({which}.row); END"
            )

    def _changed_row(self, row: int) -> None:
        self._changed.add(row)

    def copy_to(self, path: Path) -> None:
        """One moment of the database in a new file, with the same key; beside readers and writers.

        Raises DatabaseProblem, and OSError when the disk is full or fails.
        """
        if self.engine.dialect.name != "sqlite":
            raise DatabaseProblem(
                "This app keeps its metadata in PostgreSQL, which has its own backups. Use pg_dump for the database, "
                "and copy data_dir after it."
            )
        raw = self.engine.raw_connection()
        try:
            raw.cursor().execute("VACUUM INTO ?", (str(path),))
        except self.engine.dialect.loaded_dbapi.OperationalError as err:
            is_full = "full" in str(err)
            raise OSError(
                errno.ENOSPC if is_full else errno.EIO, f"the metadata cannot be copied: {err}", path
            ) from err
        finally:
            raw.close()

    def close(self) -> None:
        self.engine.dispose()
        self._writing.dispose()


def _be_patient(connection: Any, record: object) -> None:
    with connection.cursor() as cursor:
        for statement in _PATIENCE:
            cursor.execute(statement)
    connection.commit()


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
