"""Who goes first: the order of lanes over a line with room for one, and what reaches a real server first."""

from __future__ import annotations

import asyncio
import os
import random
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sync_support import (
    PICTURES,
    READINGS,
    captures,
    picture_bytes,
    put,
    put_pictures,
    put_readings,
    syncing,
    until,
)
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.directory import file_stem
from gleaner.machine.sync import process as process_module
from gleaner.machine.sync.flow import Flow
from gleaner.machine.sync.lanes import LOWEST_GETS_ONE_IN, Lane, Lanes
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.ids import capture_id
from gleaner.wire.sensor_data import encode_binary
from gleaner.wire.sync_frames import SMALL_FILE_BYTES, Batch, Entry, EntryKind, FrameError, decode, encode, plain
from stand_in_app import PART, StandInApp

HUGE = 10**9


async def admitted_order(wanted: list[Lane]) -> list[Lane]:
    """The order in which frames that fill the line are admitted, one after the other."""
    lanes, order = Lanes(Flow()), list[Lane]()
    await lanes.enter(HUGE, Lane.URGENT)

    async def one(lane: Lane) -> None:
        await lanes.enter(HUGE, lane)
        order.append(lane)
        lanes.leave(HUGE)

    tasks = [asyncio.create_task(one(lane)) for lane in wanted]
    await asyncio.sleep(0)
    lanes.leave(HUGE)
    await asyncio.gather(*tasks)
    return order


async def test_better_lanes_go_first_and_equal_ones_in_their_order() -> None:
    wanted = [Lane.BIG, Lane.BACKLOG, Lane.NEW, Lane.TAGGED, Lane.URGENT, Lane.BIG_TAGGED]
    assert await admitted_order(wanted) == sorted(wanted)


async def test_the_lowest_lane_is_never_starved() -> None:
    order = await admitted_order([Lane.NEW] * 40 + [Lane.BIG] * 3)
    places = [number for number, lane in enumerate(order) if lane is Lane.BIG]
    assert places[0] < LOWEST_GETS_ONE_IN
    assert places[2] < 3 * LOWEST_GETS_ONE_IN


async def test_one_that_gives_up_waiting_leaves_no_trace() -> None:
    lanes = Lanes(Flow())
    await lanes.enter(HUGE, Lane.BACKLOG)
    waiting = asyncio.create_task(lanes.enter(HUGE, Lane.NEW))
    await asyncio.sleep(0)
    assert lanes.is_pressed
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not lanes.is_pressed
    lanes.leave(HUGE)
    await lanes.enter(HUGE, Lane.BIG)


async def test_one_that_is_cancelled_as_its_turn_comes_takes_no_room() -> None:
    """A connection breaks: everybody is cancelled, and frames are let go, in the same moment."""
    lanes = Lanes(Flow())
    await lanes.enter(HUGE, Lane.BACKLOG)
    waiting = [asyncio.create_task(lanes.enter(HUGE, lane)) for lane in (Lane.NEW, Lane.BIG, Lane.BACKLOG)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    lanes.leave(HUGE)
    await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)
    assert not lanes.is_pressed
    async with asyncio.timeout(5):
        await lanes.enter(HUGE, Lane.BIG)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small frame at a time, so that the order of sending shows."""
    monkeypatch.setattr(Flow, "window_bytes", 1)
    monkeypatch.setattr(Flow, "batch_bytes", 1)


pytestmark = pytest.mark.usefixtures("said", "hurry")


def put_tagged(root: Path, component: str, count: int) -> list[str]:
    header = encode_header(
        DataCaptureMetadata(component_name=component, type=DataType.DATA_TYPE_BINARY_SENSOR, tags=["rare"])
    )
    names = [f"tagged-{number}.capture" for number in range(count)]
    for name in names:
        content = header + encode_record(b"".join(encode_binary(1, 2, os.urandom(500))))
        put(root / f"rdk_component_camera/{component}/ReadImage" / name, content)
    return names


@pytest.mark.usefixtures("narrow")
async def test_tagged_captures_come_before_others(tmp_path: Path, app: StandInApp) -> None:
    put_pictures(tmp_path, 30)
    tagged = put_tagged(tmp_path, "zoo", 5)
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    order = [app.files[id_][0].name for id_ in app.arrivals]
    assert order[:5] == tagged
    assert order[5:] == sorted(order[5:])


@pytest.mark.usefixtures("narrow")
async def test_new_captures_overtake_a_backlog(
    tmp_path: Path, app: StandInApp, monkeypatch: pytest.MonkeyPatch, said: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(process_module, "NEW_INTERVAL_S", 0.0)
    directory = tmp_path / PICTURES
    for number in range(60):
        put(directory / f"2020-01-01T00_00_{number:02d}.000000Z.capture", picture_bytes(os.urandom(200)))
    app.hold.clear()
    async with syncing(tmp_path, app) as process:
        await until(lambda: app.arrivals)
        new = put(directory / f"{file_stem(time.time_ns())}.capture", picture_bytes(b"new"), age_s=0)
        process.handle({"type": "pass"})
        app.hold.set()
        await until(lambda: not captures(tmp_path))
        await until(lambda: any(line["type"] == "pass" for line in said))
    order = [app.files[id_][0].name for id_ in app.arrivals]
    assert order.index(new.name) < 20
    assert len(order) == len(set(order)) == 61


@pytest.mark.usefixtures("narrow")
async def test_collectors_take_turns(tmp_path: Path, app: StandInApp) -> None:
    put_pictures(tmp_path, 20)
    for number in range(20):
        put_readings(tmp_path, f"{number:02d}.capture", 1)
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    first = [app.files[id_][0].path.rsplit("/", 1)[0] for id_ in app.arrivals][:10]
    assert first.count(PICTURES) == first.count(READINGS) == 5


# --- compression -----------------------------------------------------------------------------------------------------


async def test_readings_travel_compressed_when_the_app_says_so(tmp_path: Path, app: StandInApp) -> None:
    app.compression = "zlib"
    put_readings(tmp_path, "a.capture", 500)
    put_pictures(tmp_path, 3)
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    packed = {entry.name: (entry.packed, entry.size) for entry, _ in app.files.values()}
    assert 0 < packed["a.capture"][0] < packed["a.capture"][1] / 2
    assert packed["00000.capture"][0] == 0


async def test_an_app_that_says_nothing_gets_plain_bytes(tmp_path: Path, app: StandInApp) -> None:
    put_readings(tmp_path, "a.capture", 500)
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    assert [entry.packed for entry, _ in app.files.values()] == [0]


def packed_entry(content: bytes, packed: bytes, size: int | None = None) -> Entry:
    id_ = capture_id(PART, "a/b/Readings/x", content)
    return Entry(id_, "a/b/Readings/x", len(content) if size is None else size, EntryKind.CAPTURE, packed=len(packed))


def test_a_compressed_entry_is_what_it_was() -> None:
    content = b"reading " * 1000
    packed = zlib.compress(content)
    entry = packed_entry(content, packed)
    batch = decode(encode(Batch(1, (entry, replace(entry, packed=0)), (packed, content))))
    assert isinstance(batch, Batch)
    assert [plain(e, p) for e, p in zip(batch.entries, batch.payloads, strict=True)] == [content, content]


@pytest.mark.parametrize("size", [10, 999, 1001, SMALL_FILE_BYTES])
def test_what_decompresses_to_something_else_is_refused_without_being_made(size: int) -> None:
    packed = zlib.compress(bytes(1000) if size != 10 else bytes(50_000_000))
    with pytest.raises(FrameError, match="something else"):
        plain(packed_entry(b"", packed, size), packed)


@pytest.mark.parametrize(
    "packed", [b"not zlib at all", zlib.compress(bytes(1000))[:-3], zlib.compress(bytes(1000)) + b"x"]
)
def test_damaged_compression_is_refused(packed: bytes) -> None:
    with pytest.raises(FrameError, match="decompress"):
        plain(packed_entry(b"", packed, 1000), packed)


def test_bombs_are_refused_by_their_header() -> None:
    packed = zlib.compress(bytes(1000))
    big = packed_entry(b"", packed, SMALL_FILE_BYTES + 1)
    with pytest.raises(FrameError, match="bomb"):
        decode(encode(Batch(1, (big,), (packed,))))
    many = packed_entry(b"", packed, SMALL_FILE_BYTES)
    with pytest.raises(FrameError, match="a batch holds more"):
        decode(encode(Batch(1, (many,) * 17, (packed,) * 17)))


# --- rate and limit --------------------------------------------------------------------------------------------------


async def test_the_rate_is_told_while_files_are_confirmed(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "RATE_INTERVAL_S", 0.05)
    put_pictures(tmp_path, 50)
    big = picture_bytes(random.Random(5).randbytes(3_000_000))
    put(tmp_path / PICTURES / "big.capture", big)
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
        await until(lambda: said[-1] == {"type": "rate", "files_per_s": 0.0, "bytes_per_s": 0})
    rates = [line for line in said if line["type"] == "rate"]
    assert any(line["files_per_s"] > 0 for line in rates)
    assert max(line["bytes_per_s"] for line in rates) > 0


async def test_a_limit_holds_over_a_real_connection_and_changes_while_it_runs(
    tmp_path: Path, app: StandInApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waits are collected, not waited for: what was sent and what should have been waited must agree."""
    waits: list[float] = []
    clock = [0.0]
    from gleaner.machine.sync import flow as flow_module

    real = flow_module.Throttle.wait_s

    def wait_s(throttle: Any, size: int, _now_s: float) -> float:
        wait = real(throttle, size, clock[0])
        clock[0] += wait
        waits.append(size)
        return 0.0

    monkeypatch.setattr(flow_module.Throttle, "wait_s", wait_s)
    put_pictures(tmp_path, 200)
    put(tmp_path / PICTURES / "big.capture", picture_bytes(random.Random(5).randbytes(2_000_000)))
    async with syncing(tmp_path, app, bandwidth_limit=100_000) as process:
        await until(lambda: not captures(tmp_path))
        payload = sum(len(content) for _, content in app.files.values())
        assert payload <= sum(waits) <= 1.05 * payload
        assert clock[0] == pytest.approx(sum(waits) / 100_000, rel=0.05)
        waits.clear()
        before_s = clock[0]
        process.handle({"type": "limit", "bytes_per_s": 1_000_000})
        put(tmp_path / PICTURES / "second.capture", picture_bytes(random.Random(6).randbytes(2_000_000)))
        process.handle({"type": "pass"})
        await until(lambda: not captures(tmp_path))
        assert clock[0] - before_s == pytest.approx(sum(waits) / 1_000_000, rel=0.06)
