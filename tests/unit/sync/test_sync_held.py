"""Sync that is held back, by `sync_disabled` or by a selective-sync sensor, sends only what somebody asked for."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from sync_support import captures, picture_bytes, put, put_pictures, syncing, until

from gleaner.wire.sync_frames import SMALL_FILE_BYTES
from stand_in_app import StandInApp

pytestmark = pytest.mark.usefixtures("hurry")
PASS, POKE = {"type": "pass"}, {"type": "poke"}


def hold(held: bool) -> dict[str, Any]:
    return {"type": "hold", "held": held}


def put_big(root: Path) -> Path:
    return put(
        root / "rdk_component_camera/big/ReadImage/1.capture", picture_bytes(random.Random(2).randbytes(9 << 20))
    )


async def test_neither_a_connection_nor_the_links_return_sends_anything_while_held(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    put_pictures(tmp_path, 20)
    put_big(tmp_path)
    async with syncing(tmp_path, app, held=True) as process:
        await until(lambda: process.is_connected)
        for command in (POKE, PASS):
            process.handle(command)
        await app.stop()
        await until(lambda: not process.is_connected)
        await app.start()
        process.handle(POKE)
        await until(lambda: process.is_connected)
        process.handle({"type": "upload", "id": 1, "path": str(put(tmp_path / "elsewhere" / "a.txt", b"a"))})
        await until(lambda: {"type": "done", "id": 1, "error": ""} in said)
        # The upload went through the same line, after whatever the connection would have begun.
        assert [entry.name for entry, _ in app.files.values()] == ["a.txt"]
        assert not app.partial
        process.handle({"type": "sync", "id": 2})
        await until(lambda: {"type": "done", "id": 2, "error": ""} in said)
        assert not captures(tmp_path)
        assert len(app.files) == 22
        put_pictures(tmp_path, 25, size=2500)
        process.handle(hold(False))
        process.handle(PASS)
        await until(lambda: len(app.files) == 47)


async def test_a_sync_that_was_asked_for_goes_through_a_break_while_held(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    put_pictures(tmp_path, 60, size=10_000)
    put_big(tmp_path)
    app.lose_answers = 1
    async with syncing(tmp_path, app, held=True) as process:
        process.handle({"type": "sync", "id": 1})
        await until(lambda: {"type": "done", "id": 1, "error": ""} in said)
        assert len(app.files) == 61
        assert not captures(tmp_path)


async def test_a_sync_that_nobody_waits_for_any_more_is_not_made_up_for_while_held(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gleaner.machine.sync.process.MANUAL_PATIENCE_S", 0.2)
    put_pictures(tmp_path, 5)
    app.lose_answers = 1
    async with syncing(tmp_path, app, held=True) as process:
        await until(lambda: process.is_connected)
        app.refuse_with = 503
        process.handle({"type": "sync", "id": 1})
        await until(lambda: any(line["type"] == "done" for line in said))
        assert "ask again" in next(line["error"] for line in said if line["type"] == "done")
        before = len(app.arrivals)
        app.refuse_with = None
        await until(lambda: process.is_connected)
        process.handle({"type": "upload", "id": 2, "path": str(put(tmp_path / "elsewhere" / "a.txt", b"a"))})
        await until(lambda: {"type": "done", "id": 2, "error": ""} in said)
        assert len(app.arrivals) == before + 1


async def test_a_pass_that_runs_ends_when_sync_is_held(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    put_pictures(tmp_path, 400, size=50_000)
    app.hold.clear()
    async with syncing(tmp_path, app) as process:
        await until(lambda: app.arrivals)
        process.handle(hold(True))
        app.hold.set()
        await until(lambda: process.passes)
        left = len(captures(tmp_path))
        assert left > 0
        assert len(app.files) == 400 - left  # what was on its way is settled
        assert not [line for line in said if line["type"] == "pass"]  # nobody is told that all has been sent
        process.handle(hold(False))
        process.handle(PASS)
        await until(lambda: not captures(tmp_path))
    assert sorted(app.arrivals) == sorted(app.files)


async def test_a_big_file_stops_when_sync_is_held_and_goes_on_there_later(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    size = put_big(tmp_path).stat().st_size
    assert size > SMALL_FILE_BYTES
    async with syncing(tmp_path, app, bandwidth_limit=4_000_000) as process:
        await until(lambda: app.piece_bytes)
        process.handle(hold(True))
        process.handle({"type": "limit", "bytes_per_s": 0})
        for number in range(3):  # what was on its way is through by then
            process.handle({"type": "upload", "id": number, "path": str(put(tmp_path / "elsewhere/a.txt", b"a"))})
            await until(lambda number=number: {"type": "done", "id": number, "error": ""} in said)
        assert app.piece_bytes < size
        assert captures(tmp_path)
        process.handle(hold(False))
        process.handle(PASS)
        await until(lambda: not captures(tmp_path))
    assert app.piece_bytes == size
