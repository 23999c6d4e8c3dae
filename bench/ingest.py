"""Pictures of 30 kB with metadata stored a second, 32 in flight, each acknowledged after it is on disk, beside its peers.

    make -s bench ONLY=ingest            # ARGS="--pictures … --kilobytes … --in-flight … --rounds … --folder …"

- gleaner: the real ingest from upload message to receipt: encrypted packs, metadata with tags, exactly-once keys, both
  fsynced; in flight as on the app's event loop;
- gleaner_one_core: the same, held to one core;
- postgres: the same metadata and a `bytea` through psycopg, fsync on, not encrypted, a connection and a thread each in flight;
- sqlite: INSERT of the bytes and a key, a transaction each, WAL, synchronous=FULL, not encrypted;
- jetstream: NATS with a file store; not synced before the acknowledgement (see `rig/jetstream.py`);
- sdk: one unmodified viam-sdk client to a real `gleaner app` on loopback with as many uploads in flight, and one by one.
Programs take turns within a round; medians of the rounds and of their ratios. `cpu_us_per_picture` is processor time of client
and server together. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
from gleaner.wire.memory import collect_rarely, keep_memory
from rig.app import running_app
from rig.jetstream import jetstream
from rig.peers import NoPeers
from rig.postgres import postgres
from rig.sdk import sdk_uploads_per_s

PLACE = Place("part", "main", "machine", "rover", "location", "Lab", "organization")
KEPT_BYTES = 64 << 20
_METADATA = UploadMetadata(
    component_type="rdk:component:camera",
    component_name="cam",
    method_name="ReadImage",
    type=DataType.DATA_TYPE_BINARY_SENSOR,
    tags=["bench"],
)

Sender = tuple[Callable[[int, bytes], None], Callable[[], None]]


@dataclass
class Measured:
    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    waits_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        return {
            "pictures_per_s": round(statistics.median(self.rates), 1),
            "cpu_us_per_picture": round(statistics.median(self.cpu_us), 1),
            "median_ms": round(statistics.median(self.waits_ms), 2),
            "p99_ms": round(statistics.quantiles(self.waits_ms, n=100)[98], 2),
        }


class Pictures:
    """All different; bytes that no program can compress."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._noise = os.urandom(size * 4)

    def __call__(self, number: int) -> bytes:
        start = number * 7919 % (len(self._noise) - self.size)
        return b"\xff\xd8\xff\xe0" + number.to_bytes(8, "big") + self._noise[start : start + self.size - 12]


class Bench:
    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.pictures = Pictures(chosen.kilobytes * 1000)
        self.found: dict[str, Measured] = {}

    def gleaner(self, folder: Path, name: str = "gleaner") -> None:
        keys = Keys.open(folder, {})
        database = Database.sqlite(folder / "metadata.db", keys.database)
        database.create_tables()
        ingest = Ingest(PackStore(LocalObjects(folder / "packs"), database, keys), database, EventBus())
        ingest.start()
        waits_ms: list[float] = []
        try:
            with self._noted(name, waits_ms, lambda: 0.0):
                waits_ms += in_flight(ingest, self.pictures, iter(range(self.chosen.pictures)), self.chosen.in_flight)
        finally:
            ingest.stop()
            database.close()

    def gleaner_one_core(self, folder: Path) -> None:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(before)})  # also the threads that are started now
        try:
            self.gleaner(folder, "gleaner_one_core")
        finally:
            os.sched_setaffinity(0, before)

    def sqlite(self, folder: Path) -> None:
        connection = sqlite3.connect(folder / "blobs.db", isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(
            "CREATE TABLE picture (id INTEGER PRIMARY KEY, key BLOB UNIQUE, captured INTEGER, data BLOB)"
        )
        lock = threading.Lock()

        def store(number: int, data: bytes) -> None:
            with lock:
                values = (number, number.to_bytes(32, "big"), number, data)
                connection.execute("INSERT INTO picture VALUES (?, ?, ?, ?)", values)

        self._by_threads("sqlite", lambda: (store, lambda: None), lambda: 0.0)
        connection.close()

    def _by_threads(self, name: str, sender: Callable[[], Sender], server_cpu_s: Callable[[], float]) -> None:
        waits_ms: list[float] = []
        numbers = iter(range(self.chosen.pictures))
        lock = threading.Lock()
        senders = [sender() for _ in range(self.chosen.in_flight)]

        def send(store: Callable[[int, bytes], None]) -> None:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                began = time.perf_counter()
                store(number, self.pictures(number))
                waits_ms.append((time.perf_counter() - began) * 1000)

        threads = [threading.Thread(target=send, args=(store,)) for store, _ in senders]
        with self._noted(name, waits_ms, server_cpu_s):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for _, close in senders:
            close()

    @contextlib.contextmanager
    def _noted(self, name: str, waits_ms: list[float], server_cpu_s: Callable[[], float]) -> Iterator[None]:
        cpu, began = time.process_time() + server_cpu_s(), time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        count, measured = len(waits_ms), self.found.setdefault(name, Measured())
        if count != self.chosen.pictures:
            raise RuntimeError(f"{name} acknowledged {count} of {self.chosen.pictures} pictures")
        measured.rates.append(count / seconds)
        measured.cpu_us.append((time.process_time() + server_cpu_s() - cpu) / count * 1e6)
        measured.waits_ms += waits_ms

    def run(self, base: Path) -> None:
        with contextlib.ExitStack() as servers:
            peers: list[tuple[str, Callable[[Path], None]]] = [
                ("gleaner", self.gleaner),
                ("gleaner_one_core", self.gleaner_one_core),
                ("sqlite", self.sqlite),
            ]
            try:
                server = servers.enter_context(postgres(base / "postgres"))
            except NoPeers as why:
                print(f"postgres: {why}")
            else:

                def by_postgres(_: Path) -> None:
                    server.make_table()
                    self._by_threads("postgres", server.sender, server.cpu_s)

                peers.insert(1, ("postgres", by_postgres))
            try:
                nats = servers.enter_context(jetstream(base / "jetstream"))
            except NoPeers as why:
                print(f"jetstream: {why}")
            else:

                def by_nats(folder: Path) -> None:
                    stream = f"{folder.parent.name}-pictures"
                    nats.make_stream(stream)
                    self._by_threads("jetstream", lambda: nats.sender(stream), nats.cpu_s)

                peers.append(("jetstream", by_nats))
            for number in range(self.chosen.rounds):
                for name, measure in peers:
                    folder = base / f"round{number}" / name
                    folder.mkdir(parents=True)
                    measure(folder)
                    shutil.rmtree(folder)

    def sdk(self, base: Path) -> tuple[float, float]:
        """Uploads a second of one client: so many in flight, and one by one."""
        count = self.chosen.uploads
        with running_app(base, "127.0.0.1") as app:
            sdk_uploads_per_s(app, range(0, 50), self.chosen.in_flight, self.pictures)
            together, single = [], []
            for number in range(self.chosen.rounds):
                start = 1000 + number * 2 * count
                app.wait_idle()
                together.append(
                    sdk_uploads_per_s(app, range(start, start + count), self.chosen.in_flight, self.pictures)
                )
                app.wait_idle()
                single.append(
                    sdk_uploads_per_s(app, range(start + count, start + count + count // 3), 1, self.pictures)
                )
        return statistics.median(together), statistics.median(single)


def in_flight(ingest: Ingest, pictures: Pictures, numbers: Iterator[int], count: int) -> list[float]:
    """Stores them with so many at once, on an event loop as the app's doors do; how long each waited, in ms."""
    import uvloop

    waits_ms: list[float] = []

    async def send() -> None:
        for number in numbers:
            began = time.perf_counter()
            sensor = SensorData(binary=pictures(number))
            sensor.metadata.time_requested.seconds = 1_700_000_000 + number
            upload = from_sensor_contents(_METADATA, [sensor], PLACE, time.time_ns())
            await asyncio.wrap_future(ingest.submit(upload))
            waits_ms.append((time.perf_counter() - began) * 1000)

    async def send_all() -> None:
        await asyncio.gather(*(send() for _ in range(count)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(send_all())
    return waits_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--uploads", type=int, default=1500, help="by the viam-sdk client, in each round")
    parser.add_argument("--kilobytes", type=int, default=30)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to be measured")
    chosen = parser.parse_args()
    keep_memory(KEPT_BYTES)  # as the app does
    collect_rarely()
    bench = Bench(chosen)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=chosen.folder) as made:
        base = Path(made)
        base.chmod(0o755)
        bench.run(base)
        for name, one in bench.found.items():
            print(f"{name:20} {one.summary()}", flush=True)
        (base / "sdk").mkdir()
        together, single = bench.sdk(base / "sdk")
        print(f"{'sdk':20} {together:.1f} uploads/s, one by one {single:.1f}")
    print(json.dumps(report(bench, together, single)))


def report(bench: Bench, together: float, single: float) -> dict[str, object]:
    ours = bench.found["gleaner"]
    found: dict[str, object] = {
        "pictures_per_s": ours.summary()["pictures_per_s"],
        "cpu_us_per_picture": ours.summary()["cpu_us_per_picture"],
        "pictures_per_s_one_core": bench.found["gleaner_one_core"].summary()["pictures_per_s"],
        "sdk_uploads_per_s": round(together, 1),
        "sdk_one_by_one_per_s": round(single, 1),
    }
    for name, peer in bench.found.items():
        if not name.startswith("gleaner"):
            found[f"x_{name}"] = round(statistics.median(a / b for a, b in zip(ours.rates, peer.rates, strict=True)), 2)
            found[f"{name}_cpu_us"] = peer.summary()["cpu_us_per_picture"]
    return found


if __name__ == "__main__":
    main()
