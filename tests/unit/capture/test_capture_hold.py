"""`sync_disabled` and the selective-sync sensor: what leaves the machine, and what its user is told."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from test_capture_manager import Build, CountingSensor, Machine, StillCamera, build, component, method, row, until
from viam.components.sensor import Sensor

from gleaner.machine.capture.hold import DISABLED
from gleaner.machine.offline.status import MachineState
from stand_in_app import StandInApp, running_app

__all__ = ["build"]  # a fixture


class Gate(Sensor):
    """A selective-sync sensor: says what the test wants it to say."""

    def __init__(self, name: str, says: Any) -> None:
        super().__init__(name)
        self.says = says
        self.asked = 0

    async def get_readings(self, **_options: Any) -> Mapping[str, Any]:
        self.asked += 1
        if isinstance(self.says, Exception):
            raise self.says
        if self.says == "hang":
            await asyncio.Event().wait()
        return self.says  # type: ignore[no-any-return]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.resources = {"imu": CountingSensor("imu"), "cam": StillCamera("cam")}
    return machine


@pytest.fixture
async def app() -> AsyncIterator[StandInApp]:
    async with running_app() as app:
        yield app


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gleaner.machine.capture.hold.SENSOR_PATIENCE_S", 0.2)


async def links_return(manager: Any, app: StandInApp) -> None:
    """The connection breaks and comes back, and the link to the app says so."""
    connections = app.connections
    await app.stop()
    await app.start()
    manager.sync_now()
    await until(lambda: app.connections > connections)
    manager.sync_now()


async def test_disabled_sync_sends_nothing_when_it_connects_or_the_link_returns(
    machine: Machine, build: Build, app: StandInApp
) -> None:
    machine.configure(component("cam", "camera", method("GetImages", 50)), app=app)
    manager = await build(sync_disabled=True, sync_interval_mins=0.001)
    await until(lambda: app.connections and row(manager, "cam")["stored"] >= 5)
    await links_return(manager, app)
    await manager.upload_binary_data_to_datasets(b"jpeg", [], [], "image/jpeg")
    assert [content for _, content in app.files.values()] == [b"jpeg"]
    assert row(manager, "cam")["synced"] == 0
    assert (manager.ledger()["sync_error"], manager.ledger()["sync_state"]) == (DISABLED, "disabled")
    manager.sync_now(asked=True)
    await until(lambda: row(manager, "cam")["synced"])


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ({"should_sync": False}, "sync is held back: the sensor 'gate' says should_sync: false"),
        ({"should_sync": "yes"}, "the sensor 'gate' says should_sync: 'yes', which is neither true nor false"),
        ({"sync": True, "n": 1}, "the sensor 'gate' says nothing of should_sync, only of sync, n"),
        ({}, "the sensor 'gate' says nothing of should_sync, only of nothing"),
        (None, "the sensor 'gate' gives no readings but NoneType"),
        (OSError("unplugged"), "the sensor 'gate' cannot be read: unplugged"),
        (TimeoutError(), "the sensor 'gate' cannot be read: TimeoutError"),
        ("hang", "the sensor 'gate' has not answered within 0 s"),
        ("missing", "the sensor 'gate' (selective_syncer_name) does not exist or is not ready"),
    ],
)
@pytest.mark.usefixtures("no_patience")
async def test_a_sensor_that_does_not_say_yes_holds_sync_back_and_is_named(
    machine: Machine, build: Build, app: StandInApp, says: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate("gate", says)
    if says != "missing":
        machine.resources["gate"] = gate
    machine.configure(component("cam", "camera", method("GetImages", 50)), app=app)
    with caplog.at_level(logging.INFO, "test.manager"):
        manager = await build(sync_interval_mins=0.001, selective_syncer_name="gate")
        await until(lambda: app.connections and row(manager, "cam")["stored"] >= 3)
        await until(lambda: words in manager.ledger()["sync_error"])
        assert manager.ledger()["sync_state"] == "held"
        if says not in ("missing", "hang"):
            asked = gate.asked
            await until(lambda: gate.asked > asked + 2)
    assert sum(words in record.getMessage() for record in caplog.records) == 1
    state = MachineState(machine.home, True, manager.ledger())
    assert bool(state.problems) == (says != {"should_sync": False})
    manager.sync_now()
    await manager.upload_binary_data_to_datasets(b"jpeg", [], [], "image/jpeg")
    assert len(app.files) == 1
    await manager.sync()  # the sensor has no say in what somebody asks for
    assert row(manager, "cam")["synced"] >= 3
    machine.resources["gate"] = Gate("gate", {"should_sync": True})
    await until(lambda: manager.ledger()["sync_error"] == "")
    assert manager.ledger()["sync_state"] == "on"
    synced = row(manager, "cam")["synced"]
    await until(lambda: row(manager, "cam")["synced"] > synced)


async def test_a_sensor_that_takes_its_yes_back_stops_what_a_returning_link_would_send(
    machine: Machine, build: Build, app: StandInApp
) -> None:
    gate = machine.resources["gate"] = Gate("gate", {"should_sync": True})
    machine.configure(component("cam", "camera", method("GetImages", 50)), app=app)
    manager = await build(sync_interval_mins=0.001, selective_syncer_name="gate")
    await until(lambda: row(manager, "cam")["synced"])
    gate.says = {"should_sync": False}
    await until(lambda: "false" in manager.ledger()["sync_error"])
    await manager.upload_binary_data_to_datasets(b"1", [], [], "image/jpeg")  # what was on its way is through
    await manager.upload_binary_data_to_datasets(b"2", [], [], "image/jpeg")
    sent = len(app.files)
    await links_return(manager, app)
    await manager.upload_binary_data_to_datasets(b"3", [], [], "image/jpeg")
    assert len(app.files) == sent + 1


async def test_a_sync_process_that_was_killed_comes_back_held(machine: Machine, build: Build, app: StandInApp) -> None:
    machine.configure(component("cam", "camera", method("GetImages", 50)), app=app)
    manager = await build(sync_disabled=True, sync_interval_mins=0.001)
    await until(lambda: app.connections and row(manager, "cam")["stored"] >= 5)
    supervisor = manager._delivery._supervisor
    assert supervisor is not None and supervisor.pid is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    await until(lambda: app.connections > 1)
    await manager.upload_binary_data_to_datasets(b"jpeg", [], [], "image/jpeg")
    assert [content for _, content in app.files.values()] == [b"jpeg"]
