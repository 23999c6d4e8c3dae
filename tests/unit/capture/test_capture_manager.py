"""The data manager as the machine uses it: built from its SPEC, told of changes, asked over gRPC."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from grpclib import GRPCError, Status
from pydantic import ValidationError
from viam.components.camera import Camera
from viam.components.sensor import Sensor
from viam.media.video import CameraMimeType, NamedImage
from viam.proto.common import ResponseMetadata

from gleaner.machine.capture.errors import CaptureDirectoryBusy
from gleaner.machine.capture.manager import DataManager
from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.capture.service import NotSynced
from gleaner.machine.capture.storage import CaptureStorage
from gleaner.machine.models.base import BuildContext
from gleaner.machine.models.data_manager import NO_MONGO, SPEC, DataManagerAttributes, capture_folder
from gleaner.machine.models.sensor_capture_ledger import LedgerSensor, flat
from gleaner.wire.capture_file import read_capture
from gleaner.wire.machine_config import parse_config
from stand_in_app import PART, SECRET, StandInApp, running_app


class CountingSensor(Sensor):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls = 0
        self.should_sync: Any = None

    async def get_readings(self, **_options: Any) -> Mapping[str, Any]:
        self.calls += 1
        return {"n": self.calls} if self.should_sync is None else {"should_sync": self.should_sync}


class StillCamera(Camera):
    async def get_images(self, **_options: Any) -> Any:
        return [NamedImage("", b"\xff\xd8picture", CameraMimeType.CUSTOM("image/x-test"))], ResponseMetadata()

    async def get_point_cloud(self, **_options: Any) -> Any:
        raise NotImplementedError

    async def get_properties(self, **_options: Any) -> Any:
        raise NotImplementedError


def component(name: str, kind: str, *methods: dict[str, Any]) -> dict[str, Any]:
    capture = {"type": "data_manager", "attributes": {"capture_methods": list(methods)}}
    return {"name": name, "api": f"rdk:component:{kind}", "model": "fake", "service_configs": [capture]}


def method(name: str = "Readings", hz: float = 100, **more: Any) -> dict[str, Any]:
    return {"method": name, "capture_frequency_hz": hz, **more}


class Machine:
    """A host with the resources that the test gives it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.resources: dict[str, Any] = {}
        self.config = parse_config({})
        self.cloud: Any = None

    def configure(self, *components: dict[str, Any], app: StandInApp | None = None) -> None:
        cloud = {"cloud": {"id": PART, "secret": SECRET, "web_address": app.address}} if app else {}
        self.config = parse_config({"components": list(components), **cloud})
        self.cloud = self.config.cloud

    def frames(self) -> dict[str, Any]:
        return {one.name: one.frame for one in self.config.components}

    def resource(self, name: str, subtype: str = "") -> Any:
        return self.resources.get(name)


async def until(condition: Callable[[], Any], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (the condition is on the disk or in another process)
            await asyncio.sleep(0.01)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.resources = {"imu": CountingSensor("imu"), "cam": StillCamera("cam")}
    return machine


Build = Callable[..., Awaitable[DataManager]]


@pytest.fixture
async def build(machine: Machine) -> AsyncIterator[Build]:
    built: list[DataManager] = []

    async def build(**attributes: Any) -> DataManager:
        checked = DataManagerAttributes.model_validate(attributes)
        context = BuildContext("builtin", checked, {}, machine, logging.getLogger("test.manager"))  # type: ignore[arg-type]
        manager: DataManager = await SPEC.build(context)  # type: ignore[assignment]
        built.append(manager)
        await manager.resources_changed(machine)
        return manager

    yield build
    for manager in built:
        await manager.close()


def row(manager: DataManager, component: str = "imu") -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in manager.ledger()["collectors"] if r["component"] == component)
    return found


# --- capture ---------------------------------------------------------------------------------------------------------


async def test_what_is_configured_is_captured_without_an_app(machine: Machine, build: Build) -> None:
    machine.configure(
        component("imu", "sensor", method(tags=["b"])), component("cam", "camera", method("GetImages", 50))
    )
    manager = await build(tags=["a"])
    await until(lambda: row(manager)["stored"] >= 5 and row(manager, "cam")["stored"] >= 3)
    ledger = manager.ledger()
    assert "no app is configured" in ledger["sync_error"]
    assert row(manager)["frequency_hz"] == 100
    await manager.close()
    root = machine.home / "capture"
    assert not list(root.rglob("*.prog"))
    files = list((root / "rdk_component_sensor" / "imu" / "Readings").iterdir())
    assert list(read_capture(files[0].read_bytes()).metadata.tags) == ["a", "b"]
    again = read_ledger(root)
    for line in again["collectors"]:
        assert line["captured"] == line["waiting"] >= 3


async def test_only_what_changed_is_rebuilt(machine: Machine, build: Build) -> None:
    machine.configure(component("imu", "sensor", method()), component("cam", "camera", method("GetImages", 50)))
    manager = await build()
    before = dict(manager.collectors)
    machine.configure(component("imu", "sensor", method()), component("cam", "camera", method("GetImages", 40)))
    await manager.resources_changed(machine)
    after = dict(manager.collectors)
    sensor, camera = sorted(before, key=lambda d: "camera" in d)
    assert after[sensor] is before[sensor]
    assert after[camera] is not before[camera]
    machine.resources["imu"] = CountingSensor("imu")
    await manager.resources_changed(machine)
    assert manager.collectors[sensor] is not after[sensor]
    assert manager.collectors[camera] is after[camera]


async def test_a_method_that_is_removed_or_disabled_ends_with_its_file_complete(machine: Machine, build: Build) -> None:
    machine.configure(component("imu", "sensor", method()))
    manager = await build()
    await until(lambda: row(manager)["stored"] > 0)
    machine.configure(component("imu", "sensor", method(disabled=True)))
    await manager.resources_changed(machine)
    assert manager.collectors == {}
    assert not list(machine.home.rglob("*.prog"))


async def test_a_resource_that_is_not_ready_is_shown_and_captured_once_it_is(machine: Machine, build: Build) -> None:
    sensor = machine.resources.pop("imu")
    machine.configure(component("imu", "sensor", method()))
    manager = await build()
    assert "not ready" in row(manager)["last_error"]
    machine.resources["imu"] = sensor
    await manager.resources_changed(machine)
    await until(lambda: row(manager)["stored"] > 0)
    assert row(manager)["last_error"] == ""


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (method("GetReadings"), "it has DoCommand, GetWorldPose, Readings"),
        (method(hz=0), "Set it above 0"),
        (method("DoCommand"), "docommand_input"),
        ({"capture_frequency_hz": 1}, "method"),
    ],
)
async def test_a_wrong_method_is_explained_and_stops_no_other(
    machine: Machine, build: Build, wrong: dict[str, Any], words: str
) -> None:
    machine.configure(component("imu", "sensor", wrong), component("cam", "camera", method("GetImages", 50)))
    manager = await build()
    assert words in row(manager)["last_error"]
    await until(lambda: row(manager, "cam")["stored"] > 0)


async def test_capture_can_be_stopped_as_a_whole(machine: Machine, build: Build) -> None:
    machine.configure(component("imu", "sensor", method()))
    manager = await build(capture_disabled=True)
    assert manager.collectors == {}


async def test_a_second_machine_on_the_same_folder_is_refused(
    machine: Machine, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gleaner.machine.capture.storage.PREDECESSOR_PATIENCE_S", 0.0)
    await build()
    with pytest.raises(CaptureDirectoryBusy, match="in use by another machine"):
        await build()


async def test_a_start_that_is_given_up_gives_the_folder_back(
    machine: Machine, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open, entered, go_on = CaptureStorage.open, threading.Event(), threading.Event()

    def slow_open(storage: CaptureStorage) -> None:
        entered.set()
        go_on.wait(20)
        real_open(storage)

    with monkeypatch.context() as patch:
        patch.setattr(CaptureStorage, "open", slow_open)
        starting = asyncio.create_task(build())
        await asyncio.to_thread(entered.wait)
        starting.cancel()
        await asyncio.wait([starting])
        go_on.set()
        await asyncio.sleep(0)
    await build()  # waits for the lock: it would fail if the first had kept it


async def test_a_rebuilt_manager_goes_on_with_the_same_ledger(machine: Machine, build: Build) -> None:
    machine.configure(component("imu", "sensor", method()))
    first = await build()
    await until(lambda: row(first)["stored"] >= 5)
    await first.close()
    captured = row_of(read_ledger(machine.home / "capture"))["captured"]
    second = await build()
    await until(lambda: row(second)["captured"] > captured)


def row_of(ledger: dict[str, Any]) -> dict[str, Any]:
    [only] = ledger["collectors"]
    return dict(only)


# --- sync ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def app() -> AsyncIterator[StandInApp]:
    async with running_app() as app:
        yield app


async def test_captures_are_synced_on_schedule_and_the_sum_holds(
    machine: Machine, build: Build, app: StandInApp
) -> None:
    machine.configure(component("imu", "sensor", method()), app=app)
    manager = await build(sync_interval_mins=0.002)
    await until(lambda: row(manager)["synced"] >= 20)
    line = row(manager)
    assert line["captured"] == line["synced"] + line["waiting"] + sum(line["dropped"].values())
    assert manager.ledger()["sync_error"] == ""
    await manager.close()
    arrived = sum(len(read_capture(content).records) for _, content in app.files.values())
    assert arrived == row_of(read_ledger(machine.home / "capture"))["synced"]


async def test_disabled_sync_sends_only_when_asked(machine: Machine, build: Build, app: StandInApp) -> None:
    machine.configure(component("imu", "sensor", method()), app=app)
    manager = await build(sync_disabled=True, sync_interval_mins=0.002)
    await until(lambda: row(manager)["stored"] >= 5)
    assert "disabled" in manager.ledger()["sync_error"]
    assert app.files == {}
    await manager.sync()
    assert row(manager)["synced"] >= 5


async def test_a_sensor_decides_when_to_sync(machine: Machine, build: Build, app: StandInApp) -> None:
    gate = machine.resources["gate"] = CountingSensor("gate")
    gate.should_sync = False
    machine.configure(component("imu", "sensor", method()), app=app)
    manager = await build(sync_interval_mins=0.001, selective_syncer_name="gate")
    await until(lambda: gate.calls >= 3 and row(manager)["stored"] >= 5)
    assert row(manager)["synced"] == 0
    gate.should_sync = True
    await until(lambda: row(manager)["synced"] > 0)


async def test_asking_for_sync_without_an_app_says_what_to_do(machine: Machine, build: Build) -> None:
    manager = await build()
    with pytest.raises(NotSynced, match="cloud"):
        await manager.sync()


async def test_a_cloud_section_without_the_apps_web_address_is_named(
    machine: Machine, build: Build, app: StandInApp
) -> None:
    machine.configure(app=app)
    machine.cloud.web_address = ""
    manager = await build()
    assert "web_address" in manager.ledger()["sync_error"]


async def test_a_new_secret_reconnects(machine: Machine, build: Build, app: StandInApp) -> None:
    machine.configure(component("imu", "sensor", method()), app=app)
    machine.cloud.secret = "old"
    manager = await build(sync_interval_mins=0.002)
    await until(lambda: "secret" in manager.ledger()["sync_error"])
    machine.configure(component("imu", "sensor", method()), app=app)
    await manager.resources_changed(machine)
    await until(lambda: row(manager)["synced"] > 0)


# --- uploads ---------------------------------------------------------------------------------------------------------


async def test_an_upload_goes_into_its_datasets_and_leaves_nothing_behind(
    machine: Machine, build: Build, app: StandInApp
) -> None:
    machine.configure(app=app)
    manager = await build(tags=["rover"])
    await manager.upload_binary_data_to_datasets(b"jpeg", ["red"], ["d1"], "image/jpeg")
    [(entry, content)] = app.files.values()
    assert (entry.tags, entry.dataset_ids, content) == (("red",), ("d1",), b"jpeg")
    assert entry.name.endswith(".jpeg")
    assert list((machine.home / "capture" / "datasetUpload").iterdir()) == []


async def test_an_upload_that_fails_says_why_in_grpcs_words(machine: Machine, build: Build) -> None:
    manager = await build()
    with pytest.raises(GRPCError) as empty:
        await manager.upload_binary_data_to_datasets(b"", [], [], "image/jpeg")
    assert empty.value.status is Status.INVALID_ARGUMENT
    with pytest.raises(GRPCError) as alone:
        await manager.upload_binary_data_to_datasets(b"jpeg", [], [], "image/jpeg")
    assert alone.value.status is Status.UNAVAILABLE
    assert "cloud" in str(alone.value.message)


# --- attributes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [
        "sync_interval_mins",
        "maximum_num_sync_threads",
        "file_last_modified_millis",
        "maximum_capture_file_size_bytes",
        "delete_every_nth_when_disk_full",
        "disk_usage_deletion_threshold",
        "capture_dir_deletion_threshold",
    ],
)
def test_negative_numbers_are_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        DataManagerAttributes.model_validate({field: -1})


def test_the_capture_folder_is_the_machines_own_unless_said_otherwise(tmp_path: Path) -> None:
    assert capture_folder(DataManagerAttributes(), tmp_path) == tmp_path / "capture"
    assert capture_folder(DataManagerAttributes(capture_dir="~/x"), tmp_path) == Path.home() / "x"


async def test_a_setting_without_effect_is_said_in_the_status(machine: Machine, build: Build) -> None:
    assert (await build(mongo_capture_config={"uri": "mongodb://x"})).ledger()["notes"] == [NO_MONGO]


def test_defaults_are_viams() -> None:
    defaults = DataManagerAttributes().model_dump()
    viam = SimpleNamespace(
        sync_interval_mins=0.1,
        file_last_modified_millis=10_000,
        maximum_capture_file_size_bytes=262_144,
        delete_every_nth_when_disk_full=5,
        disk_usage_deletion_threshold=0.9,
        capture_dir_deletion_threshold=0.5,
    )
    assert {k: defaults[k] for k in vars(viam)} == vars(viam)


class Director(Sensor):
    """A capture control sensor: says what the test wants it to say."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.says: Any = {}

    async def get_readings(self, **_options: Any) -> Mapping[str, Any]:
        if isinstance(self.says, Exception):
            raise self.says
        return dict(self.says)


async def test_the_control_sensor_changes_capture_and_what_it_leaves_alone_goes_on(
    machine: Machine, build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    director = machine.resources["director"] = Director("director")
    machine.configure(component("imu", "sensor", method()), component("cam", "camera"))
    manager = await build(capture_control_sensor={"name": "director", "key": "overrides"})
    steady = manager.collectors["rdk_component_sensor/imu/Readings"]
    cam = {"resource_name": "cam", "method": "GetImages", "capture_frequency_hz": 50, "tags": ["event"]}
    director.says = {
        "overrides": [cam],
        "sequences": [{"sequence_tags": ["run"], "resources": [{"resource_name": "cam", "method": "GetImages"}]}],
    }
    pictures = machine.home / "capture" / "rdk_component_camera" / "cam" / "GetImages"
    await until(lambda: list(pictures.glob("*.capture")))
    assert list(read_capture(next(pictures.glob("*.capture")).read_bytes()).metadata.tags) == ["event"]
    with caplog.at_level(logging.WARNING, "test.manager"):
        director.says = OSError("unplugged")
        await until(lambda: len(manager.collectors) == 1)
    assert [r.getMessage() for r in caplog.records if "unplugged" in r.getMessage()] == [
        "capture control sensor director cannot be followed, capture is as configured: unplugged"
    ]
    sequences = machine.home / "capture" / "sequences"
    assert [path.suffix for path in sequences.iterdir()] == [".progseq"]  # silence ends no sequence
    director.says = {"overrides": [{"resource_name": "imu", "method": "Readings", "capture_frequency_hz": 0}]}
    await until(lambda: not manager.collectors)
    assert [path.suffix for path in sequences.iterdir()] == [".seq"]
    director.says = {}
    await until(lambda: len(manager.collectors) == 1)
    assert manager.collectors["rdk_component_sensor/imu/Readings"] is not steady


async def test_a_control_sensor_that_is_not_there_leaves_the_configuration(machine: Machine, build: Build) -> None:
    machine.configure(component("imu", "sensor", method()))
    manager = await build(capture_control_sensor={"name": "nobody", "key": "overrides"})
    imu = manager.collectors["rdk_component_sensor/imu/Readings"]
    await until(lambda: imu.lateness.percentiles_ms() is not None)
    assert manager.collectors["rdk_component_sensor/imu/Readings"] is imu


async def test_the_ledger_by_hour_is_answered_and_a_sensor_reads_the_ledger(machine: Machine, build: Build) -> None:
    machine.configure(component("imu", "sensor", method()))
    manager = await build()
    await until(lambda: row(manager)["captured"] >= 3)
    machine.configure()
    await manager.resources_changed(machine)  # nothing more is captured
    answer = await manager.do_command({"ledger": {"hours": 24.0}})
    assert sum(each["captured"] for each in answer["hours"]) == row(manager)["captured"]
    assert (await manager.do_command({"ledger": {}}))["ledger"]["collectors"] == manager.ledger()["collectors"]
    with pytest.raises(GRPCError, match="does not know the command"):
        await manager.do_command({"coffee": True})
    readings = flat(manager.ledger(), datetime.now(UTC))
    assert readings["captured"] == readings["imu.Readings.captured"] == row(manager)["captured"]
    assert readings["waiting"] == readings["captured"] - readings["synced"] - readings["dropped"]
    assert readings["disk_free_bytes"] > 0
    machine.resources["builtin"] = manager
    machine.config = parse_config({"services": [{"name": "builtin", "api": "rdk:service:data_manager"}]})
    sensor = LedgerSensor("ledger", machine)  # type: ignore[arg-type]
    assert (await sensor.get_readings())["captured"] == readings["captured"]
    machine.resources.clear()
    with pytest.raises(GRPCError, match="no data manager"):
        await sensor.get_readings()
