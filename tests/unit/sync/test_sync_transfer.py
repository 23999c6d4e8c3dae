"""The sync process against a real WebSocket server that misbehaves: nothing is lost, nothing is removed too early."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sqlite3
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.ledger import LedgerStore, read_ledger
from gleaner.machine.sync import link as link_module
from gleaner.machine.sync import process as process_module
from gleaner.machine.sync.process import SyncProcess
from gleaner.machine.sync.settings import SyncSettings
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary
from gleaner.wire.sync_frames import Ack, EntryKind, Offset, Result, Status
from stand_in_app import PART, SECRET, StandInApp

LOG = logging.getLogger("test.sync")
READINGS = "rdk_component_sensor/imu/Readings"
PICTURES = "rdk_component_camera/cam/ReadImage"
TABULAR = encode_header(DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR))
BINARY = encode_header(DataCaptureMetadata(component_name="cam", type=DataType.DATA_TYPE_BINARY_SENSOR))


def picture_bytes(payload: bytes) -> bytes:
    return BINARY + encode_record(b"".join(encode_binary(1, 2, payload)))


def put(path: Path, content: bytes, age_s: float = 3600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    stamp = path.stat().st_mtime - age_s
    os.utime(path, (stamp, stamp))
    return path


def put_pictures(root: Path, count: int, size: int = 2000) -> list[Path]:
    chance = random.Random(1)
    return [put(root / PICTURES / f"{n:05d}.capture", picture_bytes(chance.randbytes(size))) for n in range(count)]


def put_readings(root: Path, name: str, count: int) -> Path:
    records = [encode_record(ReadingEncoder().encode(1, 2, {"readings": {"n": n}})) for n in range(count)]
    return put(root / READINGS / name, TABULAR + b"".join(records))


def captures(root: Path) -> list[Path]:
    return [p for p in root.rglob("*.capture") if "failed" not in p.parts]


async def until(condition: Callable[[], Any], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (the condition is on the disk or in another process)
            await asyncio.sleep(0.005)


@asynccontextmanager
async def syncing(root: Path, app: StandInApp, **options: Any) -> AsyncIterator[SyncProcess]:
    """The process's inside, in this event loop."""
    values: dict[str, Any] = {"part_id": PART, "secret": SECRET, "web_address": app.address, **options}
    settings = SyncSettings(capture_dir=str(root), **values)
    store = LedgerStore(root, durable=True)
    process = SyncProcess(settings, store, LOG)
    task = asyncio.create_task(process.run())
    try:
        yield process
    finally:
        task.cancel()
        await asyncio.wait([task])
        process.shut_down()
        store.close()
    if not task.cancelled() and task.exception() is not None:
        raise task.exception()  # type: ignore[misc]


def ledger_row(root: Path, method: str) -> dict[str, Any]:
    return next(row for row in read_ledger(root)["collectors"] if row["method"] == method)


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the process told the machine."""
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(process_module, "emit", lambda text: lines.append(json.loads(text)))
    return lines


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gleaner.machine.sync.backoff.FIRST_S", 0.02)
    monkeypatch.setattr("gleaner.machine.sync.backoff.LONGEST_S", 0.1)


async def test_everything_arrives_once_and_goes_from_the_disk(tmp_path: Path, app: StandInApp) -> None:
    put_pictures(tmp_path, 300)
    put_readings(tmp_path, "a.capture", 25)
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    assert len(app.files) == 301
    assert len(app.arrivals) == 301
    assert ledger_row(tmp_path, "ReadImage")["synced"] == 300
    assert ledger_row(tmp_path, "Readings") | {"frequency_hz": 0} == {
        "component": "imu",
        "method": "Readings",
        "captured": 25,
        "stored": 25,
        "waiting": 0,
        "synced": 25,
        "dropped": {},
        "frequency_hz": 0,
        "last_error": "",
    }
    paths = {entry.path for entry, _ in app.files.values()}
    assert f"{READINGS}/a.capture" in paths


async def test_lost_answers_are_made_up_by_sending_again(tmp_path: Path, app: StandInApp) -> None:
    """The app has committed, the answer never came: the resend is a duplicate, and only then the file goes."""
    put_pictures(tmp_path, 400)
    app.lose_answers = 3
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    assert len(app.files) == 400
    assert len(app.arrivals) > 400
    assert app.connections >= 4
    assert ledger_row(tmp_path, "ReadImage")["synced"] == 400


async def test_nothing_is_removed_before_the_answer(tmp_path: Path, app: StandInApp) -> None:
    put_pictures(tmp_path, 50)
    app.hold.clear()
    async with syncing(tmp_path, app):
        await until(lambda: len(app.files) == 50)
        assert len(captures(tmp_path)) == 50
        app.hold.set()
        await until(lambda: not captures(tmp_path))


async def test_an_app_that_is_away_and_comes_back_gets_everything(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    await app.stop()
    put_pictures(tmp_path, 20)
    with caplog.at_level(logging.INFO, "test.sync"):
        async with syncing(tmp_path, app):
            await until(lambda: any(line["type"] == "status" for line in said))
            await app.start()
            await until(lambda: not captures(tmp_path))
            await app.stop()
            await until(lambda: said[-1].get("connected") is False)
            put_pictures(tmp_path, 30)
            await app.start()
            await until(lambda: not captures(tmp_path))
    assert len(app.files) == 30
    # Each change of state once, however often it was tried in between (a broken line, then no line, are two states).
    messages = [r.getMessage() for r in caplog.records]
    assert sum(m.startswith("connected") for m in messages) == 2
    assert len(messages) <= 5


async def test_a_poison_file_is_set_aside_with_its_reason_and_blocks_nobody(tmp_path: Path, app: StandInApp) -> None:
    bad = put_pictures(tmp_path, 10)[4]
    content = bad.read_bytes()

    def judge(entry: Any) -> Result | None:
        if entry.name != bad.name:
            return None
        return Result(entry.id, Status.REJECTED, "the picture is a picture of nothing", "look at the lens")

    app.judge = judge
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    aside = tmp_path / "failed" / PICTURES / bad.name
    assert aside.read_bytes() == content
    reason = json.loads(aside.with_name(aside.name + ".reason.json").read_text())
    assert (reason["message"], reason["hint"]) == ("the picture is a picture of nothing", "look at the lens")
    assert len(app.files) == 9
    row = ledger_row(tmp_path, "ReadImage")
    assert (row["captured"], row["synced"], row["dropped"]) == (10, 9, {"rejected": 1})


async def test_a_damaged_file_is_set_aside_without_being_sent(tmp_path: Path, app: StandInApp) -> None:
    damaged = bytearray(picture_bytes(b"x" * 500))
    damaged[-200] ^= 1
    put(tmp_path / PICTURES / "a.capture", bytes(damaged))
    put_readings(tmp_path, "b.capture", 3)
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    assert len(app.files) == 1
    assert (tmp_path / "failed" / PICTURES / "a.capture").exists()
    assert ledger_row(tmp_path, "ReadImage")["dropped"] == {"damaged": 1}


async def test_a_full_disk_does_not_stop_sync_from_making_room(
    tmp_path: Path, app: StandInApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pictures(tmp_path, 300)
    real_record, failures = LedgerStore.record, [3]

    def record(store: LedgerStore, *arguments: Any) -> None:
        if failures[0]:
            failures[0] -= 1
            raise sqlite3.OperationalError("database or disk is full")
        real_record(store, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LedgerStore, "record", record)
        async with syncing(tmp_path, app) as process:
            await until(lambda: not captures(tmp_path))
            put_readings(tmp_path, "later.capture", 1)
            process.handle({"type": "pass"})
            await until(lambda: not captures(tmp_path))
            await until(lambda: process.passes >= 2)
    assert ledger_row(tmp_path, "ReadImage")["synced"] == 300


@pytest.mark.parametrize(("status", "words"), [(401, "secret"), (403, "secret"), (404, "web_address"), (503, "503")])
async def test_a_refusing_app_never_costs_a_file(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]], status: int, words: str
) -> None:
    put_pictures(tmp_path, 3)
    app.refuse_with = status
    async with syncing(tmp_path, app):
        await until(lambda: said and words in said[-1].get("error", ""))
        assert len(captures(tmp_path)) == 3
        app.refuse_with = None
        await until(lambda: not captures(tmp_path))
    assert not (tmp_path / "failed").exists()


async def test_answers_to_nothing_remove_nothing(tmp_path: Path, app: StandInApp) -> None:
    put_pictures(tmp_path, 3)
    foreign = Result("f" * 32, Status.STORED)
    app.extra_answers = [Ack(999, (foreign,)), Offset(998, "f" * 32, 5)]
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    assert len(app.files) == 3


async def test_an_ack_without_the_files_id_keeps_the_file(tmp_path: Path, app: StandInApp) -> None:
    [path] = put_pictures(tmp_path, 1)
    app.judge = lambda entry: Result("e" * 32, Status.STORED)
    async with syncing(tmp_path, app) as process:
        await until(lambda: len(app.arrivals) >= 1)
        process.handle({"type": "pass"})
        await until(lambda: len(app.arrivals) >= 2)
        assert path.exists()


async def test_slow_down_pauses_and_loses_nothing(tmp_path: Path, app: StandInApp) -> None:
    put_pictures(tmp_path, 5)
    app.slow_down_s = 0.2
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    assert len(app.files) == 5


async def test_an_app_that_hangs_is_given_up(
    tmp_path: Path, app: StandInApp, monkeypatch: pytest.MonkeyPatch, said: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(link_module, "ANSWER_TIMEOUT_S", 0.1)
    put_pictures(tmp_path, 2)
    app.hold.clear()
    async with syncing(tmp_path, app):
        await until(lambda: any("not answered" in line.get("error", "") for line in said))
        app.hold.set()
        await until(lambda: not captures(tmp_path))


# --- big files and files of other programs ---------------------------------------------------------------------------


async def test_a_big_picture_goes_on_where_the_connection_broke(tmp_path: Path, app: StandInApp) -> None:
    content = picture_bytes(random.Random(2).randbytes(5_000_000))
    put(tmp_path / PICTURES / "big.capture", content)
    app.break_piece_at = 2_000_000
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    [(entry, stored)] = app.files.values()
    assert stored == content
    assert entry.size == len(content)
    assert app.connections == 2
    assert ledger_row(tmp_path, "ReadImage")["synced"] == 1


async def test_small_files_overtake_a_big_one(tmp_path: Path, app: StandInApp) -> None:
    put(tmp_path / PICTURES / "00000.capture", picture_bytes(random.Random(3).randbytes(8_000_000)))
    async with syncing(tmp_path, app) as process:
        await until(lambda: app.partial)
        put_readings(tmp_path, "new.capture", 2)
        process.handle({"type": "pass"})
        await until(lambda: not captures(tmp_path))
    order = [app.files[id_][0].name for id_ in app.arrivals]
    assert order == ["new.capture", "00000.capture"]


async def test_files_of_other_programs_are_sent_with_their_paths_tags(tmp_path: Path, app: StandInApp) -> None:
    outside = tmp_path / "outside"
    put(outside / "tag=night" / "dataset=d1" / "note.txt", b"hello")
    put(outside / "fresh.txt", b"still written", age_s=0)
    put(outside / "empty.txt", b"")
    put(outside / "failed" / "old.txt", b"x")
    put(outside / "big.bin", bytes(3_000_000))
    root = tmp_path / "capture"
    root.mkdir()
    async with syncing(root, app, additional_sync_paths=(str(outside),), tags=("car",)):
        await until(lambda: len(app.files) == 2)
        await until(lambda: not (outside / "big.bin").exists())
    entries = {entry.name: entry for entry, _ in app.files.values()}
    note = entries["note.txt"]
    assert (note.kind, note.tags, note.dataset_ids) == (EntryKind.FILE, ("car", "night"), ("d1",))
    assert note.path == str(outside / "tag=night" / "dataset=d1" / "note.txt")
    assert entries["big.bin"].size == 3_000_000
    assert sorted(p.name for p in outside.rglob("*") if p.is_file()) == ["empty.txt", "fresh.txt", "old.txt"]
    assert read_ledger(root)["collectors"] == []


async def test_a_file_that_changes_while_it_is_sent_is_sent_again(tmp_path: Path, app: StandInApp) -> None:
    outside = tmp_path / "outside"
    path = put(outside / "log.txt", b"one")
    root = tmp_path / "capture"
    root.mkdir()
    app.hold.clear()
    async with syncing(root, app, additional_sync_paths=(str(outside),)) as process:
        await until(lambda: len(app.files) == 1)
        put(path, b"one two")
        app.hold.set()
        await until(lambda: process.passes == 1)
        assert path.read_bytes() == b"one two"
        process.handle({"type": "pass"})
        await until(lambda: not path.exists())
    assert sorted(content for _, content in app.files.values()) == [b"one", b"one two"]


# --- requests --------------------------------------------------------------------------------------------------------


async def test_a_manual_sync_says_when_everything_is_there(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    put_pictures(tmp_path, 5)
    put(tmp_path / PICTURES / "big.capture", picture_bytes(bytes(3_000_000)))
    async with syncing(tmp_path, app) as process:
        process.handle({"type": "sync", "id": 7})
        await until(lambda: {"type": "done", "id": 7, "error": ""} in said)
        assert not captures(tmp_path)


async def test_a_manual_sync_without_an_app_says_why(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "MANUAL_PATIENCE_S", 0.3)
    await app.stop()
    async with syncing(tmp_path, app) as process:
        process.handle({"type": "sync", "id": 8})
        await until(lambda: any(line.get("id") == 8 for line in said))
    assert "not connected to the app" in next(line for line in said if line.get("id") == 8)["error"]


async def test_an_upload_carries_its_tags_and_datasets(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    path = put(tmp_path / "datasetUpload" / "x.jpeg", b"jpeg")
    async with syncing(tmp_path, app, tags=("car",)) as process:
        process.handle({"type": "upload", "id": 3, "path": str(path), "tags": ["red"], "dataset_ids": ["d"]})
        await until(lambda: {"type": "done", "id": 3, "error": ""} in said)
    [(entry, content)] = app.files.values()
    assert (entry.tags, entry.dataset_ids, content) == (("red",), ("d",), b"jpeg")


async def test_an_upload_that_the_app_rejects_says_why(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    path = put(tmp_path / "datasetUpload" / "x.jpeg", b"jpeg")
    app.judge = lambda entry: Result(entry.id, Status.REJECTED, "dataset d does not exist", "create it first")
    async with syncing(tmp_path, app) as process:
        process.handle({"type": "upload", "id": 3, "path": str(path), "dataset_ids": ["d"]})
        await until(lambda: any(line.get("id") == 3 for line in said))
    assert said[-1]["error"] == "dataset d does not exist create it first"


# --- TLS -------------------------------------------------------------------------------------------------------------


def authority(name: str) -> tuple[bytes, bytes]:
    """A certificate for 127.0.0.1 that is its own authority, and its key; PEM."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


async def test_only_the_pinned_authority_is_trusted(tmp_path: Path, said: list[dict[str, Any]]) -> None:
    certificate, key = authority("ours")
    other, _ = authority("theirs")
    (tmp_path / "both.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    app = StandInApp()
    await app.start(ssl=context)
    root = tmp_path / "capture"
    put_pictures(root, 2)
    address = app.address.replace("http", "https")
    try:
        async with syncing(root, app, web_address=address, ca_certificate=other.decode()):
            await until(lambda: any("certificate" in line.get("error", "") for line in said))
        assert len(captures(root)) == 2
        async with syncing(root, app, web_address=address, ca_certificate=certificate.decode()):
            await until(lambda: not captures(root))
    finally:
        await app.stop()
    assert len(app.files) == 2
