from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.backlog import count_backlog
from gleaner.machine.capture.directory import (
    UNKNOWN_HOUR,
    CaptureDirectory,
    collector_path,
    file_stem,
    is_binary_path,
)
from gleaner.machine.capture.errors import CaptureDirectoryBusy
from gleaner.wire.capture_file import encode_header, encode_record, read_capture
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary

LOG = logging.getLogger("test")
READINGS = "rdk_component_sensor/imu/Readings"
PICTURES = "rdk_component_camera/cam/ReadImage"


def header(kind: DataType.ValueType = DataType.DATA_TYPE_TABULAR_SENSOR) -> bytes:
    return encode_header(DataCaptureMetadata(component_name="imu", method_name="Readings", type=kind))


def record(number: int) -> bytes:
    return encode_record(ReadingEncoder().encode(10**18, 10**18, {"readings": {"n": number}}))


def put(root: Path, name: str, content: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_paths_follow_viams_layout() -> None:
    assert collector_path("rdk:component:camera", "cam", "ReadImage") == PICTURES
    assert is_binary_path(PICTURES)
    assert not is_binary_path(READINGS)


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        ("UTC0", "2024-05-01T10_30_05.123456Z"),
        ("CET-2", "2024-05-01T12_30_05.123456+02_00"),
        ("NFT3:30", "2024-05-01T07_00_05.123456-03_30"),
    ],
)
def test_names_carry_the_local_time_and_its_zone(zone: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert file_stem(1714559405_123456789) == name
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_unfinished_file_is_cut_at_its_last_good_record(tmp_path: Path) -> None:
    whole = header() + record(0) + record(1)
    put(tmp_path, f"{READINGS}/a.b.prog", whole + record(2)[:-3])
    with CaptureDirectory(tmp_path, LOG):
        assert (tmp_path / READINGS / "a.b.capture").read_bytes() == whole
        assert not list(tmp_path.rglob("*.prog"))


def test_good_records_behind_damage_survive_recovery(tmp_path: Path) -> None:
    damaged = bytearray(record(1))
    damaged[10] ^= 1
    put(tmp_path, f"{READINGS}/a.prog", header() + record(0) + bytes(damaged) + record(2))
    with CaptureDirectory(tmp_path, LOG):
        assert len(read_capture((tmp_path / READINGS / "a.capture").read_bytes()).records) == 2


def test_an_unfinished_file_without_a_record_goes(tmp_path: Path) -> None:
    put(tmp_path, f"{READINGS}/a.prog", header())
    put(tmp_path, f"{READINGS}/b.prog", b"")
    with CaptureDirectory(tmp_path, LOG):
        assert list(tmp_path.rglob("*.prog")) == []
        assert list(tmp_path.rglob("*.capture")) == []


def test_an_unfinished_file_with_a_damaged_header_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    content = bytearray(header() + record(0) + record(1))
    content[5] ^= 1
    put(tmp_path, f"{READINGS}/a.prog", bytes(content))
    with CaptureDirectory(tmp_path, LOG):
        aside = tmp_path / "failed" / READINGS / "a.prog"
        assert aside.read_bytes() == bytes(content)
        assert "header" in json.loads(aside.with_name("a.prog.reason.json").read_text())["message"]


def test_recovery_replaces_no_complete_file(tmp_path: Path) -> None:
    put(tmp_path, f"{READINGS}/a.capture", b"precious")
    put(tmp_path, f"{READINGS}/a.prog", header() + record(0))
    with CaptureDirectory(tmp_path, LOG):
        assert (tmp_path / READINGS / "a.capture").read_bytes() == b"precious"
        assert (tmp_path / READINGS / "a-1.capture").exists()


def test_a_second_owner_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    busy = pytest.raises(CaptureDirectoryBusy, match=rf"process {os.getpid()}.*capture_dir")
    with CaptureDirectory(tmp_path, LOG), busy:
        CaptureDirectory(tmp_path, LOG).open(patience_s=0)
    CaptureDirectory(tmp_path, LOG).open(patience_s=0)


def test_a_directory_is_free_again_when_its_owner_is_killed(tmp_path: Path) -> None:
    code = (
        "import logging, sys, time; from pathlib import Path; from gleaner.machine.capture.directory import *\n"
        "CaptureDirectory(Path(sys.argv[1]), logging.getLogger()).open(); print('open', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(CaptureDirectoryBusy, match=f"process {child.pid}"):
            CaptureDirectory(tmp_path, LOG).open(patience_s=0)
    finally:
        child.kill()
        child.communicate()
    with CaptureDirectory(tmp_path, LOG) as directory:
        assert directory.root == tmp_path


def test_the_count_takes_what_waits_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    picture = header(DataType.DATA_TYPE_BINARY_SENSOR) + encode_record(b"".join(encode_binary(1, 2, b"jpeg")))
    put(tmp_path, f"{PICTURES}/a.capture", picture)
    put(tmp_path, f"{PICTURES}/b.capture", picture)
    put(tmp_path, f"{READINGS}/a.capture", header() + record(0) + record(1) + record(2))
    put(tmp_path, f"failed/{PICTURES}/c.capture", picture)
    put(tmp_path, "datasetUpload/d.jpeg", b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = count_backlog(tmp_path)
    assert (found.waiting[PICTURES].records, found.waiting[PICTURES].files) == (2, 2)
    assert found.waiting[PICTURES].size_bytes == 2 * len(picture)
    assert found.waiting[READINGS].records == 3
    assert found.by_hour[READINGS, UNKNOWN_HOUR].records == 3
    assert set(found.waiting) == {PICTURES, READINGS}
