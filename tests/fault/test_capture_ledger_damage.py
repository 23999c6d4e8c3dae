"""The ledger's database is damaged in 200 ways: capture begins all the same, and nothing that waits is forgotten."""

from __future__ import annotations

import logging
import os
import random
import shutil
from pathlib import Path

import pytest
from disk_world import READINGS, reading

from gleaner.machine.capture.ledger import Change, Fate, LedgerStore
from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.capture.storage import CaptureStorage

PAGE = 4096
EACH = int(os.environ.get("GLEANER_FAULT_DAMAGES", "50"))
LOG = logging.getLogger("test.ledger_damage")
LOG.addHandler(logging.NullHandler())
LOG.propagate = False


def damaged(content: bytes, kind: str, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    match kind:
        case "cut":
            return content[:at]
        case "zeroed tail":
            return content[:at] + bytes(len(content) - at)
        case "zeroed page":
            begin = at // PAGE * PAGE
            return content[:begin] + bytes(PAGE) + content[begin + PAGE :]
        case _:
            return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def write_history(root: Path) -> None:
    store = LedgerStore(root, durable=False)
    try:
        for number in range(200):
            where = f"{READINGS}-{number % 7}"
            store.record([Change(where, Fate.SYNCED, "", 1, 1, 100), Change(where, Fate.DROPPED, "disk_full", 1)])
    finally:
        store.close()


@pytest.mark.parametrize("kind", ["cut", "zeroed tail", "zeroed page", "flipped bit"])
def test_capture_begins_with_a_ledger_that_is_damaged_anywhere(memory_folder: Path, kind: str) -> None:
    whole, chance = memory_folder / "whole", random.Random(kind)
    write_history(whole)
    content = (whole / ".gleaner" / "ledger.db").read_bytes()
    for number in range(EACH):
        root = memory_folder / "damaged"
        shutil.copytree(whole, root)
        (root / ".gleaner" / "ledger.db").write_bytes(damaged(content, kind, chance))
        for start in (1, 2):
            storage = CaptureStorage(root, LOG)
            storage.open()
            try:
                storage.count_backlog()
                channel = storage.writer.open_channel(READINGS, is_binary=False, rotate_bytes=10_000, queue_limit=100)
                for n in range(3):
                    assert storage.writer.submit(channel, reading(n))
                storage.writer.finish().result(10)
                rows = {f"{r['component']}/{r['method']}": r for r in storage.ledger({}, "")["collectors"]}
                assert rows["imu/Readings"]["waiting"] == 3 * start, f"{kind} number {number}"
                storage.hours(24)
            finally:
                storage.close()
            assert read_ledger(root)["backlog_files"] == start
        shutil.rmtree(root)
