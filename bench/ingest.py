"""Pictures stored per second, each acknowledged only after it is on disk, beside the usual ways to keep them.

    make -s bench ONLY=ingest            # ARGS="--pictures … --kilobytes … --senders … --together … --folder …"

Every sender sends `--together` pictures (a sync frame) and waits for their acknowledgements before it goes on.
- gleaner: the real ingest: encrypted packs, metadata with tags, group commit, exactly-once keys;
- sqlite: INSERT of the bytes, a transaction per picture, WAL, synchronous=FULL (not encrypted, no index but the key);
- sqlite_together: the same with one transaction for what a sender sends together;
- postgresql, postgresql_together: the same two by pgbench into a bytea column, fsync and synchronous_commit on.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from viam.proto.app.datasync import DataType, SensorData, UploadMetadata

from gleaner.app.database import Database
from gleaner.app.events import EventBus
from gleaner.app.keys import Keys
from gleaner.app.services.fleet_values import Place
from gleaner.app.store.ingest import Ingest
from gleaner.app.store.objects import LocalObjects
from gleaner.app.store.packs import PackStore
from gleaner.app.store.uploads import from_sensor_contents

PLACE = Place("part", "main", "machine", "rover", "location", "Lab", "organization")


def picture(number: int, noise: bytes, size: int) -> bytes:
    start = number * 7919 % (len(noise) - size)
    return b"\xff\xd8\xff\xe0" + number.to_bytes(8, "big") + noise[start : start + size - 12]


def timed(chosen: argparse.Namespace, store: Callable[[list[int]], None]) -> dict[str, float]:
    """Calls `store(numbers)` for all pictures from several threads; the waits are what a sender sees."""
    starts = iter(range(0, chosen.pictures, chosen.together))
    lock = threading.Lock()
    waits_s: list[float] = []

    def send() -> None:
        while True:
            with lock:
                start = next(starts, None)
            if start is None:
                return
            began = time.perf_counter()
            store(list(range(start, min(start + chosen.together, chosen.pictures))))
            waits_s.append(time.perf_counter() - began)

    threads = [threading.Thread(target=send) for _ in range(chosen.senders)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    return {
        "pictures_per_s": round(chosen.pictures / seconds, 1),
        "median_ms": round(statistics.median(waits_s) * 1000, 2),
        "p99_ms": round(statistics.quantiles(waits_s, n=100)[98] * 1000, 2),
    }


def gleaner(folder: Path, chosen: argparse.Namespace, noise: bytes) -> dict[str, float]:
    keys = Keys.open(folder, {})
    database = Database.sqlite(folder / "metadata.db", keys.database)
    database.create_tables()
    ingest = Ingest(PackStore(LocalObjects(folder / "packs"), database, keys), database, EventBus())
    ingest.start()
    metadata = UploadMetadata(
        component_type="rdk:component:camera",
        component_name="cam",
        method_name="ReadImage",
        type=DataType.DATA_TYPE_BINARY_SENSOR,
        tags=["bench"],
    )

    def store(numbers: list[int]) -> None:
        waiting = []
        for number in numbers:
            sensor = SensorData(binary=picture(number, noise, chosen.kilobytes * 1000))
            sensor.metadata.time_requested.seconds = 1_700_000_000 + number
            waiting.append(ingest.submit(from_sensor_contents(metadata, [sensor], PLACE, time.time_ns())))
        for future in waiting:
            future.result()

    try:
        return timed(chosen, store)
    finally:
        ingest.stop()
        database.close()


def sqlite(folder: Path, chosen: argparse.Namespace, noise: bytes, *, together: bool) -> dict[str, float]:
    connection = sqlite3.connect(folder / "blobs.db", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE picture (id INTEGER PRIMARY KEY, captured INTEGER, data BLOB)")
    lock = threading.Lock()

    def insert(number: int) -> None:
        data = picture(number, noise, chosen.kilobytes * 1000)
        connection.execute("INSERT INTO picture VALUES (?, ?, ?)", (number, number, data))

    def store(numbers: list[int]) -> None:
        if together:
            with lock:
                connection.execute("BEGIN IMMEDIATE")
                for number in numbers:
                    insert(number)
                connection.execute("COMMIT")
            return
        for number in numbers:
            with lock:
                insert(number)

    try:
        return timed(chosen, store)
    finally:
        connection.close()


def postgresql(folder: Path, chosen: argparse.Namespace, *, together: bool) -> dict[str, float] | str:
    """Bytes are made inside the server, which spares PostgreSQL the transfer and the parsing."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries or not (binaries[-1] / "pgbench").exists():
        return "not installed"
    server, data, sockets = binaries[-1], folder / "pg", folder / "pg-sockets"
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    for path in (data, sockets):
        path.mkdir()
        if as_user:
            shutil.chown(path, "postgres")
    for parent in (folder, *folder.parents):
        if as_user and not parent.stat().st_mode & 0o001 and parent.stat().st_uid == os.geteuid():
            return f"not measured: {parent} cannot be entered by the postgres user"

    def run(*command: str | Path) -> str:
        done = subprocess.run([*as_user, *map(str, command)], capture_output=True, text=True, check=True)
        return done.stdout

    script = sockets / "insert.sql"
    per_transaction = chosen.together if together else 1
    insert = f"INSERT INTO picture (data) VALUES (decode(repeat('a7', {chosen.kilobytes * 1000}), 'hex'));\n"
    script.write_text(f"BEGIN;\n{insert * per_transaction}COMMIT;\n")
    script.chmod(0o644)
    connect = ("-h", sockets, "-U", "postgres")
    run(server / "initdb", "-D", data, "-U", "postgres", "-A", "trust")
    options = f"-c listen_addresses='' -k {sockets}"
    run(server / "pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", options, "start")
    try:
        table = "CREATE TABLE picture (id bigserial PRIMARY KEY, data bytea)"
        storage = "ALTER TABLE picture ALTER data SET STORAGE EXTERNAL"  # JPEGs do not compress either
        run(server / "psql", *connect, "-c", table, "-c", storage, "postgres")
        load = (
            "-c",
            str(chosen.senders),
            "-j",
            "2",
            "-t",
            str(max(chosen.pictures // chosen.senders // per_transaction, 1)),
        )
        out = run(server / "pgbench", *connect, "-n", *load, "-f", script, "postgres")
    finally:
        run(server / "pg_ctl", "-D", data, "-m", "fast", "stop")
    found = {line.split("=")[0].strip(): line.split("=")[1].split()[0] for line in out.splitlines() if " = " in line}
    rate = float(found["tps"]) * per_transaction
    return {"pictures_per_s": round(rate, 1), "mean_ms": round(float(found["latency average"]), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--kilobytes", type=int, default=40)
    parser.add_argument("--senders", type=int, default=16)
    parser.add_argument("--together", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to be measured")
    chosen = parser.parse_args()
    noise = os.urandom(chosen.kilobytes * 4000)
    results: dict[str, object] = {name: value for name, value in vars(chosen).items() if name != "folder"}
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=chosen.folder) as made:
        base = Path(made)
        base.chmod(0o755)
        for name, measure in (
            ("gleaner", lambda folder: gleaner(folder, chosen, noise)),
            ("sqlite", lambda folder: sqlite(folder, chosen, noise, together=False)),
            ("sqlite_together", lambda folder: sqlite(folder, chosen, noise, together=True)),
            ("postgresql", lambda folder: postgresql(folder, chosen, together=False)),
            ("postgresql_together", lambda folder: postgresql(folder, chosen, together=True)),
        ):
            folder = base / name
            folder.mkdir(mode=0o755)
            results[name] = measure(folder)
            print(f"{name:20} {results[name]}", flush=True)
            shutil.rmtree(folder)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
