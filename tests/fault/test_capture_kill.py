"""kill -9 of a capturing process at random instants: nothing that was written is lost, and the ledger knows it."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from pathlib import Path

import pytest
from viam.proto.app.datasync import SensorData

from gleaner.machine.capture.directory import CaptureDirectory
from gleaner.machine.capture.outside import read_ledger
from gleaner.wire.capture_file import read_capture

ROUNDS = 10
NUMBERS_PER_ROUND = 1_000_000
VICTIM = Path(__file__).with_name("capture_victim.py")


def capture_until_killed(root: Path, first: int, lines: int) -> dict[str, int]:
    """Runs a victim until it has printed so many lines, kills it, returns the last ledger it was able to print."""
    victim = subprocess.Popen([sys.executable, str(VICTIM), str(root), str(first)], stdout=subprocess.PIPE)
    assert victim.stdout is not None
    try:
        for _ in range(lines):
            assert victim.stdout.readline(), "the victim died by itself"
    finally:
        victim.kill()
        rest, _ = victim.communicate()
    whole = [line for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]
    ledger: dict[str, int] = json.loads(whole[-1]) if whole else {}
    return ledger


def numbers(root: Path) -> dict[str, list[int]]:
    """The numbers in all complete files, by component, sorted."""
    found: dict[str, list[int]] = {}
    for path in root.rglob("*.capture"):
        content = read_capture(path.read_bytes())
        assert content.layout.damaged_bytes == 0
        found.setdefault(path.parts[-3], []).extend(number_of(record) for record in content.records)
    return {component: sorted(each) for component, each in found.items()}


def number_of(record: SensorData) -> int:
    if record.WhichOneof("data") == "binary":
        return int.from_bytes(record.binary[:8], "big")
    return int(record.struct.fields["readings"].struct_value.fields["n"].number_value)


@pytest.mark.slow
def test_kills_lose_nothing_that_was_written(tmp_path: Path) -> None:
    chance = random.Random(20)
    for round_number in range(ROUNDS):
        said = capture_until_killed(tmp_path, round_number * NUMBERS_PER_ROUND, chance.randrange(1, 60))
        offline = {row["component"]: row for row in read_ledger(tmp_path)["collectors"]}
        with CaptureDirectory(tmp_path, logging.getLogger("test")):
            assert not list(tmp_path.rglob("*.prog"))
            found = numbers(tmp_path)
        for component, captured in said.items():
            assert len(found[component]) >= captured
        for component, each in found.items():
            assert len(set(each)) == len(each)
            row = offline[component]
            assert row["captured"] == row["waiting"] == len(each)
            assert row["synced"] == 0
            assert row["dropped"] == {}
            for earlier in range(round_number + 1):  # without a gap, from the round's first number on
                first = earlier * NUMBERS_PER_ROUND
                own = [n for n in each if first <= n < first + NUMBERS_PER_ROUND]
                assert own == list(range(first, first + len(own)))
