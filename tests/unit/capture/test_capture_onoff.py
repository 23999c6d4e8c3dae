"""Every switch of capture and sync with every other one: who has the last word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from test_capture_manager import (
    Build,
    CountingSensor,
    Director,
    Machine,
    StillCamera,
    build,
    component,
    method,
    row,
    until,
)

from stand_in_app import StandInApp, running_app

__all__ = ["build"]  # a fixture
IMU = "rdk_component_sensor/imu/Readings"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.resources = {"imu": CountingSensor("imu"), "cam": StillCamera("cam")}
    return machine


@pytest.fixture
async def app() -> AsyncIterator[StandInApp]:
    async with running_app() as app:
        yield app


@pytest.mark.parametrize(
    ("service_off", "method_off", "order_hz", "captures"),
    [
        (False, False, None, True),
        (False, False, 0, False),
        (False, False, 50, True),
        (False, True, None, False),
        (False, True, 0, False),
        (False, True, 50, True),  # a capture control sensor may begin what is not captured
        (True, False, None, False),
        (True, False, 50, False),  # nobody overrules the service's own switch
        (True, True, 50, False),
    ],
)
async def test_capture_runs_exactly_when_the_switches_say_so(
    machine: Machine, build: Build, service_off: bool, method_off: bool, order_hz: float | None, captures: bool
) -> None:
    director = machine.resources["director"] = Director("director")
    # The camera tells that the order was followed: it is captured by order only.
    orders: list[dict[str, Any]] = [{"resource_name": "cam", "method": "GetImages", "capture_frequency_hz": 50}]
    if order_hz is not None:
        orders.append({"resource_name": "imu", "method": "Readings", "capture_frequency_hz": order_hz})
    director.says = {"overrides": orders}
    machine.configure(component("imu", "sensor", method(disabled=method_off)), component("cam", "camera"))
    manager = await build(capture_disabled=service_off, capture_control_sensor={"name": "director", "key": "overrides"})
    if not service_off:
        await until(lambda: "rdk_component_camera/cam/GetImages" in manager.collectors)
    assert (IMU in manager.collectors) == captures
    assert not service_off or not manager.collectors
    if captures:
        await until(lambda: row(manager)["stored"] > 2)


@pytest.mark.parametrize(
    ("disabled", "sensor", "by_itself", "state"),
    [
        (False, "", True, "on"),
        (False, "yes", True, "on"),
        (False, "no", False, "held"),
        (False, "missing", False, "held"),
        (True, "", False, "disabled"),
        (True, "yes", False, "disabled"),
        (True, "no", False, "disabled"),
    ],
)
async def test_sync_runs_by_itself_exactly_when_the_switches_say_so_and_always_when_asked(
    machine: Machine, build: Build, app: StandInApp, disabled: bool, sensor: str, by_itself: bool, state: str
) -> None:
    for name, answer in (("yes", True), ("no", False)):
        machine.resources[name] = CountingSensor(name)
        machine.resources[name].should_sync = answer
    machine.configure(component("imu", "sensor", method()), app=app)
    manager = await build(sync_disabled=disabled, selective_syncer_name=sensor, sync_interval_mins=0.001)
    await until(lambda: row(manager)["stored"] > 5 and manager.ledger()["sync_state"] == state)
    if by_itself:
        await until(lambda: row(manager)["synced"])
        assert manager.ledger()["sync_error"] == ""
    else:
        await manager.upload_binary_data_to_datasets(b"x", [], [], "image/jpeg")
        assert len(app.files) == 1
        assert "sync is" in manager.ledger()["sync_error"]
    await manager.sync()
    assert row(manager)["synced"] > 0


@pytest.mark.parametrize("disabled", [False, True])
async def test_without_an_app_nothing_is_lost_whatever_the_switches_say(
    machine: Machine, build: Build, disabled: bool
) -> None:
    machine.configure(component("imu", "sensor", method()))
    manager = await build(sync_disabled=disabled, sync_interval_mins=0.001)
    await until(lambda: row(manager)["stored"] > 5)
    assert manager.ledger()["sync_state"] == "no_app"
    assert row(manager)["waiting"] == row(manager)["captured"] > 5
