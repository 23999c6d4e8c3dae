"""The machine loses power at any moment: no wrong record, nothing lost that was promised, and capture starts again."""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from power_cut import Forgetful, RecordingFiles
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.at_rest import Keyring, read_plain
from gleaner.machine.capture.backlog import count_backlog
from gleaner.machine.capture.channel import Channel, Record
from gleaner.machine.capture.directory import CaptureDirectory
from gleaner.machine.capture.disk import DiskGuard, DiskSpace
from gleaner.machine.capture.ledger import Change, Fate, LedgerStore, open_ledger
from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.capture.writer import Writer, WriterOptions
from gleaner.wire.capture_file import encode_header, read_capture
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary

ROUNDS = int(os.environ.get("GLEANER_FAULT_ROUNDS", "1"))
CUTS = 20
RECORDS = 80
READINGS, PICTURES = "rdk_component_sensor/imu/Readings", "rdk_component_camera/cam/ReadImage"
HEADER = encode_header(DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR))
PICTURE_HEADER = encode_header(DataCaptureMetadata(component_name="cam", type=DataType.DATA_TYPE_BINARY_SENSOR))
LOG = logging.getLogger("test.power_cut")
LOG.addHandler(logging.NullHandler())
LOG.propagate = False


def reading(number: int) -> Record:
    body = ReadingEncoder().encode(10**18 + number, 10**18 + number, {"readings": {"n": number, "v": [0.5] * 40}})
    return Record(HEADER, (body,), len(body))


def picture(number: int) -> Record:
    payload = number.to_bytes(4, "big") * (300 + number % 5 * 1000)
    return Record(PICTURE_HEADER, encode_binary(1 + number, 2 + number, payload), len(payload))


@dataclass
class Recording:
    """One run of capture: the log of its disk, and after which operation how many records were promised."""

    files: RecordingFiles
    promised: list[tuple[int, int]]
    keyring: Keyring
    has_errors: bool


def record(root: Path, durability_s: float, keyring: Keyring, failing_syncs: Sequence[int], seed: int) -> Recording:
    root.mkdir()
    files = RecordingFiles(root, failing_syncs)
    store = LedgerStore(root, durable=False)
    options = WriterOptions(durability_s, keyring, files)
    writer = Writer(root, store, DiskGuard(root, lambda _: DiskSpace(10**12, 10**12)), LOG, options)
    chance = random.Random(seed)
    promised = []
    writer.start()
    try:
        channels = [
            writer.open_channel(READINGS, is_binary=False, rotate_bytes=20_000, queue_limit=10_000),
            writer.open_channel(PICTURES, is_binary=True, rotate_bytes=1, queue_limit=10_000),
        ]
        files.observe = lambda: {d: w.records for d, w in writer.stored().items()}
        for number in range(RECORDS):
            submit(writer, channels, number)
            if chance.random() < 0.1:
                # Everything so far is complete when `finish` is done: also a promise, whatever the window is.
                writer.finish().result(30)
                promised.append((files.note(), number + 1))
    finally:
        writer.stop()
        files.observe = dict
        store.close()
    return Recording(files, promised, keyring, bool(failing_syncs))


def submit(writer: Writer, channels: Sequence[Channel], number: int) -> None:
    assert writer.submit(channels[0], reading(number))
    assert writer.submit(channels[1], picture(number))


def read_back(root: Path, keyring: Keyring) -> dict[str, list[int]]:
    """The numbers of all records, each checked to be the one that was written."""
    found: dict[str, list[int]] = {READINGS: [], PICTURES: []}
    for path in sorted(root.rglob("*.capture")):
        for data in read_capture(read_plain(path, keyring)).records:
            if data.WhichOneof("data") == "binary":
                number = int.from_bytes(data.binary[:4], "big")
                expected = b"".join(picture(number).parts)
                found[PICTURES].append(number)
            else:
                number = int(data.struct.fields["readings"].struct_value.fields["n"].number_value)
                expected = reading(number).parts[0]
                found[READINGS].append(number)
            assert data.SerializeToString(deterministic=True) == type(data).FromString(expected).SerializeToString(
                deterministic=True
            )
    for numbers in found.values():
        assert len(set(numbers)) == len(numbers), "a record is there twice"
    return found


def check_cut(recording: Recording, cut: int, target: Path, chance: random.Random | None, *, strict: bool) -> None:
    target.mkdir()
    recording.files.leave(cut, target, chance)
    with CaptureDirectory(target, LOG, recording.keyring):
        assert not [path for path in target.rglob("*.prog") if "failed" not in path.parts]
        found = read_back(target, recording.keyring)
        waiting = count_backlog(target).waiting
        assert sum(w.files for w in waiting.values()) == len(list(target.rglob("*.capture")))
    counted = recording.files.observed[cut - 1] if strict else {}
    finished = max((records for at, records in recording.promised if at < cut), default=0)
    for directory_name, numbers in found.items():
        safe = counted.get(directory_name, 0)
        if recording.has_errors:  # what hit an error comes later, and counts only then
            assert len(numbers) >= safe, f"{directory_name} lost what was counted, cut after {cut}"
        else:
            safe = max(safe, finished)
            assert set(range(safe)) <= set(numbers), f"{directory_name} lost what was promised, cut after {cut}"
    shutil.rmtree(target)


KEY = Keyring((bytes(range(32)),))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("durability_s", "keyring", "failing_syncs"),
    [
        (0.0, Keyring(), ()),
        (0.0, KEY, ()),
        (0.02, Keyring(), ()),
        (0.02, KEY, (5, 6, 17, 40)),
        (0.02, Keyring(), (3, 11, 12, 30)),
        (0.0, Keyring(), (3, 11, 12, 30)),
    ],
    ids=["each", "each-encrypted", "window", "window-encrypted-eio", "window-eio", "each-eio"],
)
def test_a_power_cut_at_any_operation_loses_nothing_that_was_promised(
    memory_folder: Path, durability_s: float, keyring: Keyring, failing_syncs: tuple[int, ...]
) -> None:
    for seed in range(ROUNDS):
        recording = record(memory_folder / f"run{seed}", durability_s, keyring, failing_syncs, seed)
        chance = random.Random(seed)
        cuts = sorted(chance.sample(range(1, recording.files.operations + 1), min(CUTS, recording.files.operations)))
        for cut in [*cuts, recording.files.operations]:
            for variant in (None, chance, Forgetful()):
                check_cut(recording, cut, memory_folder / "after", variant, strict=not durability_s)


@pytest.mark.slow
def test_the_ledger_opens_whatever_a_power_cut_left_of_its_log(tmp_path: Path) -> None:
    store = LedgerStore(tmp_path, durable=False)
    chance = random.Random(5)
    for number in range(50):
        store.record([Change(READINGS, Fate.DROPPED, "disk_full", 1)])
        if number % 5 == 0:
            left = tmp_path / f"left{number}"
            shutil.copytree(tmp_path / ".gleaner", left / ".gleaner")
            log = left / ".gleaner" / "ledger.db-wal"
            content = log.read_bytes()
            cut = chance.randrange(len(content))
            log.write_bytes(content[:cut] + bytes(chance.choice((0, len(content) - cut))))
            (left / ".gleaner" / "ledger.db-shm").unlink()
            opened = open_ledger(left, LOG)
            try:
                dropped = opened.counts().get(READINGS)
                assert dropped is None or 0 <= dropped.dropped["disk_full"] <= number + 1
            finally:
                opened.close()
            assert read_ledger(left)["backlog_files"] == 0
    store.close()
