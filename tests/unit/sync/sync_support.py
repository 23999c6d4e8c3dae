"""What the sync tests share: files to send, the process's inside in this event loop, waiting for conditions."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.sync.process import SyncProcess
from gleaner.machine.sync.settings import SyncSettings
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary
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
        await asyncio.wait([task], timeout=30)
        process.shut_down()
        store.close()
    assert task.done(), "it was cancelled and goes on"
    if not task.cancelled() and task.exception() is not None:
        raise task.exception()  # type: ignore[misc]


def ledger_row(root: Path, method: str) -> dict[str, Any]:
    return next(row for row in read_ledger(root)["collectors"] if row["method"] == method)
