"""A machine that only captures, made to be killed. Prints its ledger again and again; `argv`: folder, first number."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gleaner.machine.capture.collector import Collector, CollectorSettings
from gleaner.machine.capture.methods import Blob, Call, Captured, Method
from gleaner.machine.capture.scheduler import Scheduler
from gleaner.machine.capture.storage import CaptureStorage

SENSORS, PICTURE_BYTES = 3, 20_000


class Source:
    """Numbers its answers, so that a missing or a repeated one shows."""

    def __init__(self, first: int) -> None:
        self._next = first

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    async def reading(self, _call: Call) -> Mapping[str, Any]:
        return {"readings": {"n": self._number(), "values": [0.5] * 8}}

    async def picture(self, _call: Call) -> Captured:
        return [Blob(self._number().to_bytes(8, "big") + bytes(PICTURE_BYTES), "image/jpeg")]


async def main(root: Path, first: int) -> None:
    log = logging.getLogger("victim")
    storage = CaptureStorage(root, log)
    storage.open()
    storage.count_backlog()
    collectors = []
    scheduler = Scheduler()
    scheduler.start()
    for index in range(SENSORS):
        settings = CollectorSettings("rdk:component:sensor", f"s{index}", "Readings", 200, rotate_bytes=4096)
        collectors.append(Collector(settings, None, Method(Source(first).reading), storage.writer, scheduler, log))
    settings = CollectorSettings("rdk:component:camera", "cam", "GetImages", 50)
    collectors.append(
        Collector(settings, None, Method(Source(first).picture, is_binary=True), storage.writer, scheduler, log)
    )
    for collector in collectors:
        collector.start()
    while True:
        await asyncio.sleep(0.005)
        rows = storage.ledger({}, "")["collectors"]
        print(json.dumps({row["component"]: row["captured"] for row in rows}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
