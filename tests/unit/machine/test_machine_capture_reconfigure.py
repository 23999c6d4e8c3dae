"""What a change of the configuration does to capture, on a real graph: what it does not concern is not disturbed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from machine_fakes import Shelf, World, until

from gleaner.machine.capture.collector import Collector
from gleaner.machine.capture.manager import DataManager
from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.graph import ResourceGraph
from gleaner.machine.host import MachineHost
from gleaner.machine.models.data_manager import SPEC
from gleaner.machine.node import State
from gleaner.wire.capture_file import read_capture
from gleaner.wire.machine_config import parse_config
from stand_in_app import PART, SECRET, StandInApp, running_app

A, B = "rdk_component_sensor/a/Readings", "rdk_component_sensor/b/Readings"


def sensor(name: str) -> dict[str, Any]:
    methods = [{"method": "Readings", "capture_frequency_hz": 100}]
    capture = {"type": "data_manager", "attributes": {"capture_methods": methods}}
    api, model = "rdk:component:sensor", "test:thing:one"
    return {"name": name, "api": api, "model": model, "attributes": {}, "service_configs": [capture]}


class Machine:
    """Sensors a and b, captured, and a data manager; `change` edits the configuration by dotted paths."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config: dict[str, Any] = {
            "components": [sensor("a"), sensor("b")],
            "services": [{"name": "data", "api": "rdk:service:data_manager", "attributes": {}}],
        }
        self.host = MachineHost(home, None)
        self.graph = ResourceGraph(self.host, [*World().specs, SPEC], Shelf(), retry_s=0.05)
        self.host.find = self.graph.resource

    @property
    def manager(self) -> DataManager:
        found: Any = self.graph.resource("data")
        assert found is not None, self.node("data").error
        return found  # type: ignore[no-any-return]

    def node(self, name: str) -> Any:
        return next(node for node in self.graph.nodes if node.key.name == name)

    async def change(self, *changes: tuple[str, Any]) -> None:
        for path, value in changes:
            place: Any = self.config
            *way, last = path.split(".")
            for step in way:
                place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
            if value is None:
                del place[int(last) if isinstance(place, list) else last]
            else:
                place[last] = value
        self.host.config = parse_config(deepcopy(self.config))
        self.host.cloud = self.host.config.cloud
        await self.graph.apply(self.host.config)
        await self.graph.settle()

    def row(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(r for r in self.manager.ledger()["collectors"] if r["component"] == name)
        return found

    async def more_of(self, name: str) -> None:
        stored = self.row(name)["stored"]
        await until(lambda: self.row(name)["stored"] > stored)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path)
    await machine.change()
    await until(lambda: len(machine.manager.collectors) == 2)
    yield machine
    await machine.graph.close()


METHOD = "components.0.service_configs.0.attributes.capture_methods.0"
SERVICE = "services.0.attributes"
GOES_ON, NEW, ENDS = "goes on", "new", "ends"


@pytest.mark.parametrize(
    ("change", "a", "b"),
    [
        (("revision", "another"), GOES_ON, GOES_ON),
        ((f"{METHOD}.capture_frequency_hz", 50), NEW, GOES_ON),
        ((f"{METHOD}.additional_params", {"x": 1}), NEW, GOES_ON),
        ((f"{METHOD}.capture_queue_size", 100), NEW, GOES_ON),
        ((f"{METHOD}.tags", ["front"]), NEW, GOES_ON),
        ((f"{METHOD}.disabled", True), ENDS, GOES_ON),
        ((METHOD, None), ENDS, GOES_ON),
        (("components.0", None), ENDS, GOES_ON),
        (("components.0.attributes.width_px", 2), NEW, GOES_ON),  # another instance of the resource
        ((f"{SERVICE}.tags", ["rover"]), NEW, NEW),
        ((f"{SERVICE}.maximum_capture_file_size_bytes", 1000), NEW, NEW),
        ((f"{SERVICE}.capture_disabled", True), ENDS, ENDS),
        ((f"{SERVICE}.sync_disabled", True), GOES_ON, GOES_ON),
        ((f"{SERVICE}.sync_interval_mins", 5), GOES_ON, GOES_ON),
        ((f"{SERVICE}.sync_bandwidth_limit", 1000), GOES_ON, GOES_ON),
        ((f"{SERVICE}.additional_sync_paths", ["/tmp/nothing"]), GOES_ON, GOES_ON),
        ((f"{SERVICE}.file_last_modified_millis", 20_000), GOES_ON, GOES_ON),
        ((f"{SERVICE}.selective_syncer_name", "nobody"), GOES_ON, GOES_ON),
        ((f"{SERVICE}.maximum_num_sync_threads", 3), GOES_ON, GOES_ON),
        ((f"{SERVICE}.delete_every_nth_when_disk_full", 7), GOES_ON, GOES_ON),
        ((f"{SERVICE}.durability_ms", 500), NEW, NEW),
        ((f"{SERVICE}.disk_usage_deletion_threshold", 0.8), NEW, NEW),
        ((f"{SERVICE}.capture_control_sensor", {"name": "nobody", "key": "k"}), NEW, NEW),
    ],
)
async def test_a_change_reaches_what_it_concerns_and_nothing_else(
    machine: Machine, change: tuple[str, Any], a: str, b: str
) -> None:
    for name in "ab":
        await machine.more_of(name)
    before = dict(machine.manager.collectors)
    counted = {name: machine.row(name)["captured"] for name in "ab"}
    await machine.change(change)
    expected = {A: a, B: b}

    def fate(directory: str) -> str:
        now: Collector | None = machine.manager.collectors.get(directory)
        return ENDS if now is None else GOES_ON if now is before[directory] else NEW

    await until(lambda: {directory: fate(directory) for directory in expected} == expected)
    for directory, name in ((A, "a"), (B, "b")):
        if expected[directory] == ENDS:
            folder = machine.home / "capture" / directory
            await until(lambda folder=folder: not list(folder.glob("*.prog")))  # complete, ready to be sent
        else:
            await machine.more_of(name)
        row = machine.row(name)
        assert row["captured"] == row["synced"] + row["waiting"] + sum(row["dropped"].values()) >= counted[name]
        assert not row["dropped"]
    assert machine.node("data").state is State.READY


async def test_another_capture_folder_is_taken_and_the_old_one_is_left_whole(machine: Machine) -> None:
    await machine.more_of("a")
    other = machine.home / "other"
    await machine.change((f"{SERVICE}.capture_dir", str(other)))
    await until(lambda: len(machine.manager.collectors) == 2)
    old = read_ledger(machine.home / "capture")
    assert {row["component"]: row["captured"] == row["waiting"] > 0 for row in old["collectors"]} == {
        "a": True,
        "b": True,
    }
    assert not list((machine.home / "capture").rglob("*.prog"))
    await machine.more_of("a")
    await machine.change((f"{SERVICE}.capture_dir", str(machine.home / "capture")))
    await until(lambda: len(machine.manager.collectors) == 2)
    captured = next(row["captured"] for row in old["collectors"] if row["component"] == "a")
    # Its ledger goes on, once the files there are counted, which holds nothing up.
    await until(lambda: machine.row("a")["captured"] >= captured)


async def test_a_component_that_vanishes_and_comes_back_is_captured_again(machine: Machine) -> None:
    await machine.more_of("a")
    steady = machine.manager.collectors[B]
    component = deepcopy(machine.config["components"][0])
    captured = machine.row("a")["captured"]
    for _ in range(2):
        await machine.change(("components.0", None))
        await until(lambda: A not in machine.manager.collectors)
        assert machine.row("a")["captured"] >= captured  # what it left behind stays in the ledger
        machine.config["components"].insert(0, deepcopy(component))
        await machine.change()
        await machine.more_of("a")
    assert machine.manager.collectors[B] is steady


async def test_tags_that_change_are_in_the_files_that_follow(machine: Machine) -> None:
    for tags in (("rover", "front"), ("rover", "back")):
        await machine.change((f"{SERVICE}.tags", [tags[0]]), (f"{METHOD}.tags", [tags[1]]))
        await until(
            lambda tags=tags: (
                getattr(machine.manager.collectors.get(A), "settings", None)
                and machine.manager.collectors[A].settings.tags == tags
            )
        )
        await machine.more_of("a")
    await machine.change(("components.0", None))
    folder = machine.home / "capture" / A
    await until(lambda: not list(folder.glob("*.prog")))
    found = [tuple(read_capture(path.read_bytes()).metadata.tags) for path in sorted(folder.glob("*.capture"))]
    assert [tags for tags in found if tags] == [("rover", "front"), ("rover", "back")]


@pytest.mark.parametrize("folder", ["", "  ", "/", "~", ".", "..", "{home}", "{home}/capture/.."])
async def test_a_folder_whose_loss_would_hurt_is_not_synced(machine: Machine, folder: str) -> None:
    """Everything in such a folder is deleted once it is sent."""
    precious = machine.home / "precious.txt"
    precious.write_text("x")
    await machine.change((f"{SERVICE}.additional_sync_paths", [folder.format(home=machine.home)]))
    assert machine.node("data").state is State.UNHEALTHY
    assert "additional_sync_paths" in machine.node("data").error
    await machine.change((f"{SERVICE}.additional_sync_paths", []))
    await until(lambda: len(machine.manager.collectors) == 2)
    assert precious.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((f"{METHOD}.capture_frequency_hz", -1), "Set it above 0"),
        ((f"{METHOD}.capture_frequency_hz", 1e9), "10000 at most"),
        ((f"{METHOD}.capture_frequency_hz", float("inf")), "10000 at most"),
        ((f"{METHOD}.capture_frequency_hz", float("nan")), "10000 at most"),
        ((f"{METHOD}.capture_queue_size", -1), "capture_queue_size"),
        ((f"{METHOD}.capture_buffer_size", -1), "capture_buffer_size"),
        ((f"{METHOD}.capture_frequency_hz", "often"), "capture_frequency_hz"),
    ],
)
async def test_an_absurd_method_is_explained_and_the_other_goes_on(
    machine: Machine, change: tuple[str, Any], words: str
) -> None:
    steady = machine.manager.collectors[B]
    await machine.change(change)
    await until(lambda: A not in machine.manager.collectors)
    await until(lambda: any(words in row["last_error"] for row in machine.manager.ledger()["collectors"]))
    assert machine.manager.collectors[B] is steady


async def test_a_queue_of_nothing_is_the_default_queue(machine: Machine) -> None:
    await machine.change((f"{METHOD}.capture_queue_size", 0))
    await machine.more_of("a")
    assert machine.manager.collectors[A].settings.queue_size == 250


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("sync_interval_mins", -0.1),
        ("sync_interval_mins", float("nan")),
        ("sync_interval_mins", 1e300),
        ("file_last_modified_millis", 10**30),
        ("disk_usage_deletion_threshold", float("inf")),
        ("capture_dir_deletion_threshold", -1),
        ("sync_bandwidth_limit", -1),
        ("durability_ms", 10**9),
        ("maximum_capture_file_size_bytes", -1),
        ("maximum_num_sync_threads", -1),
        ("delete_every_nth_when_disk_full", -1),
        ("capture_control_sensor", {"name": "x"}),
        ("encryption", {"key_file": "a", "key_env": "b"}),
        ("tags", "rover"),
        ("selective_sync", "typing error"),
    ],
)
async def test_an_absurd_attribute_is_named_and_capture_is_back_once_it_is_mended(
    machine: Machine, attribute: str, value: Any
) -> None:
    await machine.change((f"{SERVICE}.{attribute}", value))
    assert machine.node("data").state is State.UNHEALTHY
    assert attribute in machine.node("data").error
    await machine.change((f"{SERVICE}.{attribute}", None))
    await until(lambda: machine.graph.resource("data") and len(machine.manager.collectors) == 2)


# --- with an app -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def app() -> AsyncIterator[StandInApp]:
    async with running_app() as app:
        yield app


async def test_sync_can_be_stopped_and_begun_while_the_process_runs(machine: Machine, app: StandInApp) -> None:
    machine.config["cloud"] = {"id": PART, "secret": SECRET, "web_address": app.address}
    await machine.change((f"{SERVICE}.sync_disabled", True), (f"{SERVICE}.sync_interval_mins", 600))
    await until(lambda: app.connections)
    await machine.more_of("a")
    await machine.manager.upload_binary_data_to_datasets(b"x", [], [], "image/jpeg")
    assert len(app.files) == 1
    # Nobody who switches sync on waits for an interval of ten hours.
    await machine.change((f"{SERVICE}.sync_disabled", False), (f"{METHOD}.disabled", True))
    await until(lambda: machine.row("a")["synced"])
    await machine.change((f"{SERVICE}.sync_interval_mins", 0.001))
    await until(lambda: machine.row("b")["synced"])
    assert app.connections == 1  # neither the line nor the process was begun anew


@pytest.mark.parametrize("named", ["{home}/extra", "extra"])
async def test_a_folder_that_is_added_while_it_runs_is_synced(machine: Machine, app: StandInApp, named: str) -> None:
    machine.config["cloud"] = {"id": PART, "secret": SECRET, "web_address": app.address}
    extra = machine.home / "extra"
    extra.mkdir()
    (extra / "a.txt").write_text("a")
    await machine.change((f"{SERVICE}.sync_interval_mins", 0.001), (f"{SERVICE}.file_last_modified_millis", 1))
    steady = dict(machine.manager.collectors)
    await machine.change((f"{SERVICE}.additional_sync_paths", [named.format(home=machine.home)]))
    await until(lambda: not list(extra.iterdir()))
    assert dict(machine.manager.collectors) == steady
    assert any(content == b"a" for _, content in app.files.values())
