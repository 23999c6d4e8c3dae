"""The sync process against a real WebSocket server that misbehaves: nothing is lost, nothing is removed too early."""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sync_support import (
    PICTURES,
    READINGS,
    captures,
    ledger_row,
    picture_bytes,
    put,
    put_pictures,
    put_readings,
    syncing,
    until,
)

from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.sync import link as link_module
from gleaner.wire.sync_frames import Ack, EntryKind, Offset, Result, Status
from stand_in_app import StandInApp

pytestmark = pytest.mark.usefixtures("said", "hurry")


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
        "skipped": 0,
        "vetoed": 0,
        "late_ms": None,
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
        await until(lambda: app.files)
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
    real_record, is_full = LedgerStore.record, [True]

    def record(store: LedgerStore, *arguments: Any) -> None:
        if is_full[0]:
            raise sqlite3.OperationalError("database or disk is full")
        real_record(store, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LedgerStore, "record", record)
        async with syncing(tmp_path, app) as process:
            await until(lambda: not captures(tmp_path) and process.passes >= 1)
            is_full[0] = False
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


@pytest.mark.parametrize(("kinds", "kind"), [("sequence", EntryKind.SEQUENCE), ("", EntryKind.FILE)])
async def test_a_sequence_goes_as_a_file_only_to_an_app_that_knows_no_sequences(
    tmp_path: Path, app: StandInApp, kinds: str, kind: EntryKind
) -> None:
    app.kinds = kinds
    ended = put(tmp_path / "sequences" / "a.seq", b"{}")
    async with syncing(tmp_path, app):
        await until(lambda: not ended.exists())
    [(entry, content)] = app.files.values()
    assert (entry.kind, entry.name, content) == (kind, "a.seq", b"{}")
    assert entry.path == ("sequences/a.seq" if kinds else str(ended))
