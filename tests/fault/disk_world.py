"""What the tests of disk errors share: capture on a disk, its books, and a disk that fails as it is told."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.channel import Channel, Record
from gleaner.machine.capture.disk import DiskGuard, DiskSpace
from gleaner.machine.capture.files import Files
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.writer import Writer, WriterOptions
from gleaner.wire.capture_file import encode_header, read_capture
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary

READINGS, PICTURES = "rdk_component_sensor/imu/Readings", "rdk_component_camera/cam/ReadImage"
HEADER = encode_header(DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR))
PICTURE_HEADER = encode_header(DataCaptureMetadata(component_name="cam", type=DataType.DATA_TYPE_BINARY_SENSOR))
LOG = logging.getLogger("test.disk_errors")
ENCODER = ReadingEncoder()


def reading(number: int) -> Record:
    body = ENCODER.encode(10**18 + number, 10**18 + number, {"readings": {"n": number, "v": [0.5] * 20}})
    return Record(HEADER, (body,), len(body))


def picture(number: int, size: int = 3000) -> Record:
    return Record(PICTURE_HEADER, encode_binary(1, 2, number.to_bytes(4, "big") + bytes(size)), size)


def open_files() -> set[str]:
    """What this process has open; links that vanish meanwhile are not."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(link.readlink()))
    return found


@dataclass
class Capture:
    """A writer on `root`; its ledger lives elsewhere, so that only capture meets the disk's errors."""

    root: Path
    writer: Writer
    store: LedgerStore
    readings: Channel
    pictures: Channel
    submitted: dict[str, int] = field(default_factory=lambda: {READINGS: 0, PICTURES: 0})

    def submit(self, count: int) -> None:
        """Readings and pictures; returns when they are settled."""
        for _ in range(count):
            self.writer.submit(self.readings, reading(self.submitted[READINGS]))
            self.writer.submit(self.pictures, picture(self.submitted[PICTURES]))
            self.submitted[READINGS] += 1
            self.submitted[PICTURES] += 1
        self.writer.finish().result(30)

    def dropped(self) -> dict[str, dict[str, int]]:
        return {d: dict(c.dropped) for d, c in self.writer.counts().items()}

    def reasons(self) -> set[str]:
        return {reason for reasons in self.dropped().values() for reason in reasons}


@contextlib.contextmanager
def capturing(root: Path, state: Path, files: Files | None = None, durability_s: float = 1.0) -> Iterator[Capture]:
    """Ends with the books balanced: every record is in a valid file or counted as dropped, and nothing stays open."""
    store = LedgerStore(state, durable=False)
    guard = DiskGuard(root, lambda _: DiskSpace(10**12, 10**12))
    writer = Writer(root, store, guard, LOG, WriterOptions(durability_s, files=files or Files()))
    channels = [
        writer.open_channel(READINGS, is_binary=False, rotate_bytes=10_000, queue_limit=10_000),
        writer.open_channel(PICTURES, is_binary=True, rotate_bytes=1, queue_limit=10_000),
    ]
    capture = Capture(root, writer, store, *channels)
    writer.start()
    try:
        yield capture
    finally:
        writer.stop()
    try:
        check_books(capture)
        assert not [path for path in open_files() if path.startswith(str(root)) and ".gleaner" not in path]
    finally:
        store.close()


def check_books(capture: Capture) -> None:
    found = records_in(capture.root)
    dropped = capture.dropped()
    stored = capture.writer.stored()
    for directory, submitted in capture.submitted.items():
        assert len(set(found[directory])) == len(found[directory])
        assert len(found[directory]) == stored[directory].records
        assert len(found[directory]) + sum(dropped.get(directory, {}).values()) == submitted


def records_in(root: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {READINGS: [], PICTURES: []}
    for directory, numbers in found.items():
        for path in [*(root / directory).glob("*.capture"), *(root / directory).glob("*.prog")]:
            content = read_capture(path.read_bytes())
            assert content.layout.damaged_bytes == 0, f"{path} holds half a record"
            for data in content.records:
                if directory == PICTURES:
                    numbers.append(int.from_bytes(data.binary[:4], "big"))
                else:
                    numbers.append(int(data.struct.fields["readings"].struct_value.fields["n"].number_value))
    return found


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class FailingFiles(Files):
    """The real disk; while `error` is set, the operations in `failing` give it. A failing write writes half."""

    def __init__(self) -> None:
        self.failing: tuple[str, ...] = ()
        self.error = 0
        self.failures = 0

    def _maybe(self, operation: str) -> None:
        if self.error and operation in self.failing:
            self.failures += 1
            raise OSError(self.error, os.strerror(self.error))

    def create(self, path: str) -> int:
        self._maybe("open")
        return super().create(path)

    def write(self, fd: int, buffers: Sequence[bytes]) -> None:
        if self.error and "write" in self.failing:
            content = b"".join(buffers)
            os.write(fd, content[: len(content) // 2])
        self._maybe("write")
        super().write(fd, buffers)

    def truncate(self, fd: int, size: int) -> None:
        self._maybe("truncate")
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        self._maybe("fsync")
        super().sync(fd)

    def rename(self, source: str, target: str) -> None:
        self._maybe("rename")
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self._maybe("unlink")
        super().unlink(path)

    def reopen(self, path: str) -> int:
        self._maybe("reopen")
        return super().reopen(path)

    def sync_folder(self, path: str) -> None:
        self._maybe("folder fsync")
        super().sync_folder(path)
