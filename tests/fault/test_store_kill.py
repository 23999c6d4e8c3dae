"""kill -9 of a real app process under upload load: whatever was acknowledged is there, once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from viam.proto.app.datasync import DataCaptureMetadata, DataType, SensorData
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from gleaner.app.assembly import build_context, start_parts, stop_parts
from gleaner.app.services.items_values import ItemFilter
from gleaner.app.settings import Settings
from gleaner.app.store.fsck import check
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.ids import capture_id
from gleaner.wire.sync_frames import Ack, Batch, Entry, EntryKind, Status, decode, encode

ROUNDS = int(os.environ.get("GLEANER_FAULT_ROUNDS", "3"))
SENDERS = 3
PER_BATCH = 8
HEADER = encode_header(
    DataCaptureMetadata(
        component_type="rdk:component:camera",
        component_name="cam",
        method_name="ReadImage",
        type=DataType.DATA_TYPE_BINARY_SENSOR,
    )
)


def capture(number: int) -> bytes:
    record = SensorData(binary=b"\xff\xd8\xff" + number.to_bytes(8, "big") + random.Random(number).randbytes(20_000))
    record.metadata.time_requested.seconds = 1_700_000_000 + number
    record.metadata.time_received.seconds = 1_700_000_000 + number
    return HEADER + encode_record(record)


@dataclass
class Machine:
    """Sends captures until the app dies, and again what was not acknowledged; as a real one does."""

    part_id: str
    secret: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    next_number: int = 0
    unacknowledged: list[int] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    duplicates: int = 0

    def take(self) -> list[int]:
        with self.lock:
            again, self.unacknowledged = self.unacknowledged[:PER_BATCH], self.unacknowledged[PER_BATCH:]
            fresh = range(self.next_number, self.next_number + PER_BATCH - len(again))
            self.next_number = fresh.stop
            return [*again, *fresh]

    def send(self, address: str, numbers_wanted: int | None = None) -> None:
        headers = {"part_id": self.part_id, "secret": self.secret}
        numbers: list[int] = []
        try:
            with connect(address, additional_headers=headers, max_size=None, proxy=None) as socket:
                while numbers_wanted is None or len(self.acknowledged) < numbers_wanted:
                    numbers = self.take()
                    files = [capture(n) for n in numbers]
                    entries = tuple(
                        Entry(capture_id(self.part_id, f"{n}.capture", f), f"{n}.capture", len(f), EntryKind.CAPTURE)
                        for n, f in zip(numbers, files, strict=True)
                    )
                    socket.send(encode(Batch(numbers[0], entries, tuple(files))))
                    answer = decode(socket.recv(60))
                    assert isinstance(answer, Ack)
                    assert all(one.status is not Status.REJECTED for one in answer.results), answer
                    with self.lock:
                        self.acknowledged.update(numbers)
                        self.duplicates += sum(one.status is Status.DUPLICATE for one in answer.results)
                    numbers = []
        except (OSError, EOFError, TimeoutError, WebSocketException):
            pass  # the app was killed
        finally:
            with self.lock:
                self.unacknowledged += numbers


def start_app(data_dir: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "gleaner.cli.main", "app", "--data-dir", str(data_dir), "--port", "0"]
    process = subprocess.Popen([*command, "--grpc-port", "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Gleaner is running at http"), line
    return process, line.split()[4].replace("http", "ws") + "/api/sync"


def wait_until(condition: object, deadline_s: float = 60) -> None:
    end = time.monotonic() + deadline_s
    waiting = threading.Event()
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        waiting.wait(0.005)


@pytest.mark.slow
def test_every_acknowledged_upload_survives_kill_and_is_there_once(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    context = build_context(settings)
    start_parts(context)
    owner = context.auth.first_owner()
    location = context.fleet.locations(owner, next(iter(owner.organization_ids())))[0]
    part_id = context.fleet.create_machine(owner, "rover", location.id).parts[0].id
    machine = Machine(part_id, context.fleet.new_secret(owner, part_id))
    stop_parts(context)
    context.database.close()

    chance = random.Random(os.urandom(8))
    for _ in range(ROUNDS):
        process, address = start_app(settings.data_dir)
        enough = len(machine.acknowledged) + chance.randrange(1, 150)
        senders = [threading.Thread(target=machine.send, args=(address,)) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        wait_until(lambda enough=enough: len(machine.acknowledged) >= enough)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for sender in senders:
            sender.join(60)

    process, address = start_app(settings.data_dir)
    machine.send(address, len(machine.acknowledged) + len(machine.unacknowledged))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0

    context = build_context(settings)
    start_parts(context)
    try:
        items = context.items
        rows = items.rows(owner, ItemFilter())
        stored = [int.from_bytes(items.content(owner, row).all()[3:11], "big") for row in rows]
        assert machine.acknowledged <= set(stored)
        assert len(stored) == len(set(stored)), "something is there twice"
        assert set(stored) <= set(range(machine.next_number))
        for row in rows:
            content = items.content(owner, row).all()
            number = int.from_bytes(content[3:11], "big")
            assert content[11:] == random.Random(number).randbytes(20_000)
        report = check(context.packs, context.database, deep=True)
        assert report.is_healthy, report.findings
    finally:
        stop_parts(context)
        context.database.close()
