from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from machine_fakes import host
from pydantic import ValidationError

from gleaner.machine import catalog, models
from gleaner.machine.models import sensor_fake, sensor_system
from gleaner.machine.models.base import BuildContext, ModelSpec
from gleaner.machine.models.sensor_fake import FakeSensor, FakeSensorAttributes, Wave, wave_value
from gleaner.wire.catalog import catalog_path, load_catalog


def context(spec: ModelSpec, attributes: dict[str, Any], tmp_path: Path) -> BuildContext:
    return BuildContext("s", spec.attributes.model_validate(attributes), {}, host(tmp_path), logging.getLogger("test"))


async def test_the_computer_reports_itself(tmp_path: Path) -> None:
    sensor = await sensor_system.build(context(sensor_system.SPEC, {"per_cpu": True}, tmp_path))
    readings = await sensor.get_readings()
    assert 0 <= readings["cpu_percent"] <= 100
    assert 0 < readings["memory_percent"] < 100
    assert readings["disk_free_bytes"] > 0
    assert readings["uptime_s"] > 0
    assert {"load_1m", "network_sent_bytes", "cpu_percent_each"} <= set(readings)


async def test_work_shows_in_the_processor_load(tmp_path: Path) -> None:
    sensor = await sensor_system.build(context(sensor_system.SPEC, {"per_cpu": True}, tmp_path))
    before = time.process_time()
    while time.process_time() - before < 0.3:  # counters tick in hundredths of a second
        pass
    readings = await sensor.get_readings()
    assert max(readings["cpu_percent_each"]) > 10
    assert readings["cpu_percent"] > 1


async def test_a_disk_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="/no/such/disk"):
        await sensor_system.build(context(sensor_system.SPEC, {"disk_path": "/no/such/disk"}, tmp_path))


async def test_a_fake_sensor_gives_three_values_by_default(tmp_path: Path) -> None:
    sensor = await sensor_fake.build(context(sensor_fake.SPEC, {}, tmp_path))
    assert await sensor.get_readings() == {"a": 1.0, "b": 2.0, "c": 3.0}


async def test_waves_follow_the_clock() -> None:
    attributes = FakeSensorAttributes.model_validate(
        {"values": {"t": {"low": 20, "high": 30, "period_s": 4}, "on": True, "who": "me"}}
    )
    now = 0.0
    sensor = FakeSensor("s", attributes, lambda: now)
    seen = []
    for now in (0.0, 1.0, 3.0):  # noqa: B007 - the sensor reads it
        seen.append((await sensor.get_readings())["t"])
    assert seen == pytest.approx([25, 30, 20])
    assert (await sensor.get_readings())["on"] is True
    assert (await sensor.get_readings())["who"] == "me"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("square", [10, 10, 0, 0]),
        ("sawtooth", [0, 2.5, 5, 7.5]),
        ("triangle", [0, 5, 10, 5]),
        ("counter", [0, 0, 0, 0]),
    ],
)
def test_wave_shapes(shape: Any, expected: list[float]) -> None:
    wave = Wave(shape=shape, low=0, high=10, period_s=4)
    assert [wave_value(wave, t) for t in range(4)] == pytest.approx(expected)


def test_a_counter_counts_periods() -> None:
    assert wave_value(Wave(shape="counter", low=5, period_s=2), 7.0) == 8


@pytest.mark.parametrize("values", [{"t": {"shape": "round"}}, {"t": {"period_s": 0}}, {"t": {"speed": 1}}, {"t": [1]}])
def test_wrong_waves_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FakeSensorAttributes.model_validate({"values": values})


def test_the_catalogue_is_current() -> None:
    specs = [models.load(name) for name in models.NAMES]
    assert catalog_path().read_text(encoding="utf-8") == catalog.render(specs), "run: python -m gleaner.machine.catalog"


def test_every_model_can_be_drawn_as_a_form() -> None:
    for entry in load_catalog():
        assert entry["title"], entry["model"]
        assert entry["description"], entry["model"]
        for name, field in entry["attributes"].get("properties", {}).items():
            assert field.get("title") or "$ref" in field, f"{entry['model']}.{name} has no title"


def test_models_are_listed_as_their_files_say() -> None:
    for listed in models.MODELS:
        spec = listed.load()
        assert (listed.api, listed.model, listed.aliases) == (spec.api, spec.model, spec.aliases)


def test_no_two_models_share_a_name() -> None:
    names = [(listed.api, name) for listed in models.MODELS for name in (listed.model, *listed.aliases)]
    assert len(names) == len(set(names))
    assert models.find("rdk:component:sensor", "gleaner:sensor:fake") is sensor_fake.SPEC
    assert models.find("rdk:component:sensor", "rdk:builtin:nothing") is None
