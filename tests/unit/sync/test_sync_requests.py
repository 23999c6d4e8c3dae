"""Big files, files of other programs, what the machine asks of the sync process, and whom it trusts."""

from __future__ import annotations

import random
import ssl
from pathlib import Path
from typing import Any

import pytest
from sync_certificates import self_signed
from sync_support import PICTURES, captures, ledger_row, picture_bytes, put, put_pictures, put_readings, syncing, until

from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.sync import process as process_module
from gleaner.wire.sync_frames import EntryKind, Result, Status
from stand_in_app import StandInApp

pytestmark = pytest.mark.usefixtures("said", "hurry")


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
    [row] = read_ledger(root)["collectors"]
    assert (row["component"], row["method"], row["captured"], row["synced"]) == (str(outside), "files", 2, 2)


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
    [done] = [line for line in said if line.get("id") == 3]
    assert done["error"] == "dataset d does not exist create it first"


async def test_a_manual_sync_says_what_was_set_aside(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    bad = put_pictures(tmp_path, 5)[2]
    app.judge = lambda e: Result(e.id, Status.REJECTED, "no picture", "look at it") if e.name == bad.name else None
    async with syncing(tmp_path, app) as process:
        process.handle({"type": "sync", "id": 9})
        await until(lambda: any(line.get("id") == 9 for line in said))
        error = next(line for line in said if line.get("id") == 9)["error"]
        assert "one file was not sent" in error
        assert "no picture look at it" in error
        process.handle({"type": "sync", "id": 10})  # the file is settled: this one has nothing to complain of
        await until(lambda: {"type": "done", "id": 10, "error": ""} in said)


async def test_a_manual_sync_whose_line_dies_says_so_and_the_files_go_later(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "MANUAL_PATIENCE_S", 0.3)
    put_pictures(tmp_path, 5)
    app.hold.clear()
    async with syncing(tmp_path, app) as process:
        process.handle({"type": "sync", "id": 11})
        await until(lambda: len(app.files) == 5)
        app.hold.set()
        app.lose_answers = 10**6
        await app.stop()
        await until(lambda: any(line.get("id") == 11 for line in said))
        assert "not everything was sent" in next(line for line in said if line.get("id") == 11)["error"]
        app.lose_answers = 0
        await app.start()
        await until(lambda: not captures(tmp_path))


async def test_a_manual_sync_beside_a_scheduled_one_sends_nothing_twice(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    put_pictures(tmp_path, 300)
    async with syncing(tmp_path, app) as process:
        for number in range(20, 25):
            process.handle({"type": "pass"})
            process.handle({"type": "sync", "id": number})
        await until(lambda: all({"type": "done", "id": n, "error": ""} in said for n in range(20, 25)))
        assert not captures(tmp_path)
    assert len(app.arrivals) == len(app.files) == 300


async def test_an_upload_of_a_missing_file_says_so(tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]) -> None:
    async with syncing(tmp_path, app) as process:
        process.handle({"type": "upload", "id": 4, "path": str(tmp_path / "none.jpeg")})
        await until(lambda: any(line.get("id") == 4 for line in said))
    assert "none.jpeg" in next(line for line in said if line.get("id") == 4)["error"]


async def test_an_upload_to_a_dataset_that_does_not_exist_is_an_error(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    path = put(tmp_path / "datasetUpload" / "x.jpeg", b"jpeg")
    app.judge = lambda entry: Result(entry.id, Status.STORED, "There is no dataset d", "The file is stored.")
    async with syncing(tmp_path, app) as process:
        process.handle({"type": "upload", "id": 5, "path": str(path), "dataset_ids": ["d"]})
        await until(lambda: any(line.get("id") == 5 for line in said))
    assert next(line for line in said if line.get("id") == 5)["error"] == "There is no dataset d The file is stored."


async def test_an_upload_survives_a_line_that_breaks(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    path = put(tmp_path / "datasetUpload" / "x.jpeg", b"jpeg")
    app.lose_answers = 1
    async with syncing(tmp_path, app) as process:
        process.handle({"type": "upload", "id": 6, "path": str(path)})
        await until(lambda: {"type": "done", "id": 6, "error": ""} in said)
    assert len(app.files) == 1


# --- TLS -------------------------------------------------------------------------------------------------------------


async def test_only_the_pinned_authority_is_trusted(tmp_path: Path, said: list[dict[str, Any]]) -> None:
    certificate, key = self_signed("ours")
    other, _ = self_signed("theirs")
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


async def test_a_sync_sends_more_big_files_than_one_pass_remembers(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gleaner.machine.sync.sender.BIG_FILES_REMEMBERED", 3)
    for number in range(10):
        put(tmp_path / PICTURES / f"{number}.capture", picture_bytes(bytes([number]) * 1_500_000))
    async with syncing(tmp_path, app, held=True) as process:
        process.handle({"type": "sync", "id": 1})
        await until(lambda: {"type": "done", "id": 1, "error": ""} in said)
        assert len(app.files) == 10
