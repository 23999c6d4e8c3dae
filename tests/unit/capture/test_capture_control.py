from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gleaner.machine.capture.collector import CollectorSettings
from gleaner.machine.capture.control import NotUnderstood, Override, overridden, parse_orders
from gleaner.machine.capture.plan import make_plan
from gleaner.machine.capture.sequences import SequenceFiles, SequenceKey
from gleaner.machine.sync.scan import candidates
from gleaner.wire.machine_config import MachineConfig, parse_config
from gleaner.wire.sync_frames import EntryKind

LOG = logging.getLogger("test.control")


def machine(*methods: Mapping[str, Any]) -> MachineConfig:
    data = {"type": "data_manager", "attributes": {"capture_methods": list(methods)}}
    return parse_config(
        {
            "components": [
                {"name": "imu", "api": "rdk:component:sensor", "model": "fake", "service_configs": [data]},
                {"name": "cam", "api": "rdk:component:camera", "model": "fake"},
                {"name": "pins", "api": "rdk:component:board", "model": "fake"},
            ]
        },
        "test",
    )


READINGS = {"method": "Readings", "capture_frequency_hz": 2, "tags": ["own"]}


def planned(
    *overrides: Override, config: MachineConfig | None = None
) -> tuple[dict[str, CollectorSettings], tuple[str, ...]]:
    config = config or machine(READINGS)
    plan, warnings = overridden(make_plan(config, ("all",), 100), overrides, config, ("all",), 100)
    return {f"{one.resource} {one.method}": one for one in plan.collectors}, warnings


def test_frequency_and_tags_are_overridden_each_by_itself() -> None:
    faster, _ = planned(Override("imu", "Readings", 50.0))
    assert (faster["imu Readings"].frequency_hz, faster["imu Readings"].tags) == (50.0, ("all", "own"))
    tagged, _ = planned(Override("imu", "Readings", tags=("event",)))
    assert (tagged["imu Readings"].frequency_hz, tagged["imu Readings"].tags) == (2.0, ("event",))


@pytest.mark.parametrize("frequency_hz", [0.0, 1e-9])
def test_a_frequency_of_zero_stops_that_collector(frequency_hz: float) -> None:
    collectors, warnings = planned(Override("imu", "Readings", frequency_hz))
    assert (collectors, warnings) == ({}, ())


def test_what_is_not_configured_can_be_begun() -> None:
    collectors, warnings = planned(Override("cam", "ReadImage", 5.0), Override("cam", "GetImages", 1.0, ("x",)))
    assert collectors["cam ReadImage"].tags == ("all",)
    assert collectors["cam GetImages"].tags == ("x",)
    assert collectors["cam ReadImage"].rotate_bytes == 100
    assert warnings == ()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (Override("lidar", "Readings", 1.0), "no resource 'lidar'"),
        (Override("cam", "Position", 1.0), "cannot capture 'Position'"),
        (Override("pins", "Analogs", 1.0), "needs additional_params"),
        (Override("cam", "DoCommand", 1.0), "docommand_input"),
    ],
)
def test_what_cannot_be_followed_is_a_warning_and_the_rest_goes_on(override: Override, words: str) -> None:
    collectors, warnings = planned(override, Override("imu", "Readings", 9.0))
    assert collectors["imu Readings"].frequency_hz == 9.0
    assert words in warnings[0]


def test_an_override_without_a_frequency_begins_nothing() -> None:
    collectors, warnings = planned(Override("cam", "ReadImage"))
    assert (list(collectors), warnings) == (["imu Readings"], ())


def test_a_collector_that_is_configured_without_a_frequency_can_be_begun() -> None:
    config = machine({"method": "Readings", "capture_frequency_hz": 0})
    collectors, _ = planned(Override("imu", "Readings", 3.0), config=config)
    assert collectors["imu Readings"].frequency_hz == 3.0


def test_orders_are_read_from_the_key_and_from_sequences() -> None:
    orders = parse_orders(
        {
            "overrides": [{"resource_name": "cam", "method": "ReadImage", "capture_frequency_hz": 1, "tags": ["a"]}],
            "sequences": [{"sequence_tags": ["t"], "resources": [{"resource_name": "cam", "method": "ReadImage"}]}],
        },
        "overrides",
    )
    assert orders.overrides == (Override("cam", "ReadImage", 1.0, ("a",)),)
    assert orders.sequences == {SequenceKey(frozenset({("cam", "ReadImage")}), frozenset({"t"}))}
    assert parse_orders({}, "overrides").overrides == ()


@pytest.mark.parametrize(
    "readings",
    [
        {"k": "text"},
        {"k": [1]},
        {"k": [{"method": "Readings"}]},
        {"k": [{"resource_name": "a", "method": "b", "capture_frequency_hz": "fast"}]},
        {"k": [{"resource_name": "a", "method": "b", "capture_frequency_hz": -1}]},
        {"k": [{"resource_name": "a", "method": "b", "capture_frequency_hz": float("nan")}]},
        {"k": [{"resource_name": "a", "method": "b", "tags": [1]}]},
        {"sequences": {}},
        {"sequences": [{"resources": []}]},
        {"sequences": [{"resources": [{"resource_name": 1}]}]},
    ],
)
def test_what_a_sensor_says_wrong_is_refused_whole(readings: dict[str, Any]) -> None:
    with pytest.raises(NotUnderstood):
        parse_orders(readings, "k")


def sequence(*names: str, tags: tuple[str, ...] = ()) -> SequenceKey:
    return SequenceKey(frozenset((name, "ReadImage") for name in names), frozenset(tags))


def test_a_sequence_is_whole_under_its_final_name(tmp_path: Path) -> None:
    times = iter([1_000_000_000, 5_500_000_000])
    files = SequenceFiles(tmp_path, LOG, lambda: next(times))
    files.follow(frozenset({sequence("a", "b", tags=("x",))}))
    files.follow(frozenset({sequence("b", "a", tags=("x",))}))  # the same one
    [opened] = (tmp_path / "sequences").iterdir()
    assert opened.suffix == ".progseq"
    assert not list(candidates([tmp_path], 10**20, 0))
    files.follow(frozenset())
    [ended] = (tmp_path / "sequences").iterdir()
    assert (ended.suffix, ended.stem, ended.stat().st_mode & 0o777) == (".seq", opened.stem, 0o600)
    assert json.loads(ended.read_text()) == {
        "start_time": "1970-01-01T00:00:01.000000Z",
        "end_time": "1970-01-01T00:00:05.500000Z",
        "resources": [
            {"resource_name": "a", "method_name": "ReadImage"},
            {"resource_name": "b", "method_name": "ReadImage"},
        ],
        "sequence_tags": ["x"],
    }
    assert [(one.path, one.kind) for one in candidates([tmp_path], 10**20, 0)] == [(str(ended), EntryKind.SEQUENCE)]


def test_open_sequences_end_with_the_machine_and_a_crash_sets_them_aside(tmp_path: Path) -> None:
    first = SequenceFiles(tmp_path, LOG)
    first.follow(frozenset({sequence("a"), sequence("b")}))
    (tmp_path / "sequences" / "half.tmp").write_text("{")
    second = SequenceFiles(tmp_path, LOG)
    second.recover()
    assert not list((tmp_path / "sequences").iterdir())
    assert len(list((tmp_path / "failed" / "sequences").iterdir())) == 2
    second.follow(frozenset({sequence("c")}))
    second.close()
    assert [path.suffix for path in (tmp_path / "sequences").iterdir()] == [".seq"]


def test_what_had_ended_before_a_crash_is_ended_and_not_set_aside(tmp_path: Path) -> None:
    files = SequenceFiles(tmp_path, LOG)
    files.follow(frozenset({sequence("a")}))
    files.close()
    [ended] = (tmp_path / "sequences").iterdir()
    ended.rename(ended.with_suffix(".progseq"))  # the power went before the new name was on the disk
    SequenceFiles(tmp_path, LOG).recover()
    assert list((tmp_path / "sequences").iterdir()) == [ended]
    assert not (tmp_path / "failed").exists()


def test_an_end_that_cannot_be_written_is_written_later_with_its_own_time(tmp_path: Path) -> None:
    times = iter([1_000_000_000, 5_000_000_000, 9_000_000_000])
    files = SequenceFiles(tmp_path, LOG, lambda: next(times))
    files.follow(frozenset({sequence("a")}))
    folder = tmp_path / "sequences"
    folder.rename(tmp_path / "away")
    files.follow(frozenset())
    (tmp_path / "away").rename(folder)
    files.follow(frozenset({sequence("b")}))
    [ended] = folder.glob("*.seq")
    assert json.loads(ended.read_text())["end_time"] == "1970-01-01T00:00:05.000000Z"


def test_a_clock_that_was_set_back_leaves_a_sequence_its_length(tmp_path: Path) -> None:
    wall, monotonic = iter([100_000_000_000, 7_000_000_000]), iter([1_000_000_000, 3_500_000_000])
    files = SequenceFiles(tmp_path, LOG, lambda: next(wall), lambda: next(monotonic))
    files.follow(frozenset({sequence("a")}))
    files.close()
    [ended] = (tmp_path / "sequences").iterdir()
    assert json.loads(ended.read_text())["end_time"] == "1970-01-01T00:01:42.500000Z"
