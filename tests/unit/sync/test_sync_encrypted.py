"""Captures that are encrypted on the disk arrive in plain, and wait when their key is not there."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import pytest
from sync_support import BINARY, PICTURES, READINGS, TABULAR, captures, ledger_row, put, put_readings, syncing, until

from gleaner.machine.capture.at_rest import FileSealer
from gleaner.wire.capture_file import encode_record, frame, read_capture
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary
from stand_in_app import StandInApp

KEY, OTHER = bytes(range(32)), bytes(32)


def encrypted_readings(count: int, key: bytes = KEY) -> bytes:
    sealer = FileSealer(key)
    records = [encode_record(ReadingEncoder().encode(1, 2, {"readings": {"n": n}})) for n in range(count)]
    return b"".join([sealer.beginning, sealer.frame(TABULAR, 0), *(sealer.frame(record, 1) for record in records)])


def encrypted_picture(payload: bytes) -> bytes:
    sealer = FileSealer(KEY)
    pieces = sealer.frames(frame(encode_binary(1, 2, payload)))
    return b"".join([sealer.beginning, sealer.frame(BINARY, 0), *(b"".join(piece) for piece in pieces)])


async def test_encrypted_and_plain_captures_of_one_folder_arrive_alike(tmp_path: Path, app: StandInApp) -> None:
    put(tmp_path / READINGS / "a.capture", encrypted_readings(7))
    put_readings(tmp_path, "b.capture", 5)
    put(tmp_path / PICTURES / "c.capture", encrypted_picture(b"small picture"))
    async with syncing(tmp_path, app, capture_keys=(KEY.hex(),)):
        await until(lambda: not captures(tmp_path))
    arrived = {entry.path: read_capture(content) for entry, content in app.files.values()}
    assert len(arrived[f"{READINGS}/a.capture"].records) == 7
    assert len(arrived[f"{READINGS}/b.capture"].records) == 5
    assert arrived[f"{PICTURES}/c.capture"].records[0].binary == b"small picture"
    assert ledger_row(tmp_path, "Readings")["synced"] == 12


async def test_a_big_encrypted_picture_goes_on_where_the_connection_broke(tmp_path: Path, app: StandInApp) -> None:
    payload = random.Random(2).randbytes(3_000_000)
    put(tmp_path / PICTURES / "a.capture", encrypted_picture(payload))
    app.break_piece_at = 1_500_000
    async with syncing(tmp_path, app, capture_keys=(KEY.hex(),)):
        await until(lambda: not captures(tmp_path))
    ((_, content),) = app.files.values()
    assert read_capture(content).records[0].binary == payload


async def test_a_file_whose_key_is_missing_waits_and_says_so(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    kept = put(tmp_path / READINGS / "a.capture", encrypted_readings(7, OTHER))
    put_readings(tmp_path, "b.capture", 5)
    with caplog.at_level(logging.ERROR):
        async with syncing(tmp_path, app, capture_keys=(KEY.hex(),)) as process:
            await until(lambda: captures(tmp_path) == [kept])
            passes = process.passes
            process.handle({"type": "pass"})
            await until(lambda: process.passes > passes)
            await until(lambda: any(line["type"] == "status" and "add that key" in line["error"] for line in said))
            process.handle({"type": "sync", "id": 1})
            await until(lambda: said[-1]["type"] == "done")
    assert "encrypted with another key" in said[-1]["error"]  # whoever asked is not told that all has been sent
    told = [(line["connected"], bool(line["error"])) for line in said if line["type"] == "status"]
    assert told == [(True, False), (True, True)]
    assert "encrypted with another key" in caplog.text
    assert caplog.text.count("captures wait on this machine") == 1
    row = ledger_row(tmp_path, "Readings")
    assert (row["synced"], row["waiting"], row["dropped"]) == (5, 7, {})
    async with syncing(tmp_path, app, capture_keys=(KEY.hex(), OTHER.hex())):
        await until(lambda: not captures(tmp_path))
    assert ledger_row(tmp_path, "Readings")["synced"] == 12


async def test_an_encrypted_file_without_a_readable_header_is_set_aside(tmp_path: Path, app: StandInApp) -> None:
    content = bytearray(encrypted_readings(3))
    content[20] ^= 1
    put(tmp_path / READINGS / "a.capture", bytes(content))
    async with syncing(tmp_path, app, capture_keys=(KEY.hex(),)):
        await until(lambda: not captures(tmp_path))
    assert app.files == {}
    assert (tmp_path / "failed" / READINGS / "a.capture").read_bytes() == bytes(content)
