"""DuckDB in a cage: no files but the lake's, no extensions, no settings, bounded memory, threads and time.

Loaded on first use. Connections are made per query and live in memory only: nothing decrypted is ever spilled to disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gleaner.app.errors import Unavailable
from gleaner.app.lake.files import PROTOCOL, LakeFile, file_system
from gleaner.app.store.packs import PackStore

if TYPE_CHECKING:
    import duckdb


@contextmanager
def caged(
    packs: PackStore,
    files: Sequence[LakeFile] = (),
    *,
    memory_mb: int,
    threads: int = 1,
    written: Sequence[str] = (),
    on_damage: Callable[[LakeFile], object] = lambda file: None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that reads `lake://<id>` of `files` and writes only to the paths in `written`."""
    try:
        import duckdb
    except ModuleNotFoundError as err:
        raise Unavailable("Queries need duckdb, which is not installed", "pip install 'gleaner[app]'") from err
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": threads,
            "memory_limit": f"{memory_mb}MB",
            "temp_directory": "",
            "python_enable_replacements": "false",  # else SQL could name this process's variables
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )
    try:
        connection.register_filesystem(file_system(packs, files, on_damage))
        connection.execute("SET timezone = 'UTC'")
        connection.execute(f"SET allowed_directories = ['{PROTOCOL}://']")
        if written:
            connection.execute(f"SET allowed_paths = {list(written)!r}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    finally:
        connection.close()


@contextmanager
def limited(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[threading.Event]:
    """Interrupts what runs on the connection after so long; the event then is set."""
    is_over = threading.Event()

    def stop() -> None:
        is_over.set()
        connection.interrupt()

    timer = threading.Timer(seconds, stop)
    timer.name = "query time-out"
    timer.start()
    try:
        yield is_over
    finally:
        timer.cancel()
        timer.join()
