"""Machines that use each other's resources: `gleaner machine` processes as remotes of one another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from grpclib import GRPCError
from machine_process import open_robot, running_machine
from module_world import SIM, ModuleWorld, counter, fake, ready, states, unhealthy, until
from test_robot_client import KEY, KEY_ID, make_certificate
from viam.components.base import Base
from viam.components.camera import Camera
from viam.components.sensor import Sensor
from viam.proto.common import Vector3
from viam.utils import struct_to_dict

from gleaner.wire.capture_file import read_capture

# viam-sdk's clients leave channels to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def remote(port: int, name: str = "r1", **more: Any) -> dict[str, Any]:
    return {"name": name, "address": f"127.0.0.1:{port}", "insecure": True, "reconnect_interval": "100ms", **more}


def here(*remotes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"network": {"bind_address": "localhost:0"}, "remotes": list(remotes), **more}


def there(port: int = 0, **more: Any) -> dict[str, Any]:
    rover = {"name": "rover", "api": "rdk:component:base", "model": "gleaner:base:sim"}
    network = {"bind_address": f"localhost:{port}"}
    return {"network": network, "components": [rover, SIM, fake()], **more}


def folder(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir(exist_ok=True)
    return path


async def test_resources_of_a_remote_are_used_by_its_name(tmp_path: Path) -> None:
    with running_machine(folder(tmp_path, "far"), there()) as far:
        overlay = {
            "name": "upside-down",
            "api": "rdk:component:camera",
            "model": "transform",
            "attributes": {"source": "r1:cam", "pipeline": [{"type": "rotate"}]},
        }
        config = here(remote(far.port), remote(far.port, "r2", prefix="front-"), components=[overlay])
        with running_machine(folder(tmp_path, "near"), config) as near:
            async with open_robot(near) as robot:
                await ready(robot, "r1:cam", "r2:front-cam", "upside-down")
                names = {f"{name.subtype}/{name.name}" for name in robot.resource_names}
                assert {"camera/r1:cam", "base/r1:rover", "sensor/r2:front-fake"} <= names
                images, _ = await Camera.from_robot(robot, "r1:cam").get_images()
                assert images[0].data.startswith(b"\xff\xd8")
                images, _ = await Camera.from_robot(robot, "upside-down").get_images()
                assert images[0].data.startswith(b"\xff\xd8")
                assert (await Sensor.from_robot(robot, "r2:front-fake").get_readings())["temperature"] == 21.5
                rover = Base.from_robot(robot, "r1:rover")
                await rover.set_velocity(Vector3(x=0, y=50, z=0), Vector3(x=0, y=0, z=0))
                assert await rover.is_moving()
                await robot.stop_all()
                await until(lambda: _still(rover))


async def _still(rover: Base) -> bool:
    return not await rover.is_moving()


async def test_a_remote_stops_what_it_moved_for_a_machine_that_was_killed(tmp_path: Path) -> None:
    with running_machine(folder(tmp_path, "far"), there()) as far:
        async with open_robot(far) as robot:
            rover = Base.from_robot(robot, "rover")
            moved: list[bool] = []
            with pytest.raises(AssertionError):  # it ends by a signal, as it is told below
                await _drive_and_die(folder(tmp_path, "near"), far.port, rover, moved)
            assert moved == [True]
            await until(lambda: _still(rover))


async def _drive_and_die(near_folder: Path, port: int, rover: Base, moved: list[bool]) -> None:
    with running_machine(near_folder, here(remote(port))) as near:
        async with open_robot(near) as robot:
            await ready(robot, "r1:rover")
            await Base.from_robot(robot, "r1:rover").set_velocity(Vector3(x=0, y=50, z=0), Vector3(x=0, y=0, z=0))
            moved.append(await rover.is_moving())
            near.process.kill()
            near.process.wait()


async def test_tls_and_keys_open_a_remote_and_a_wrong_key_is_explained(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    far_config = {
        **there(),
        "network": {"bind_address": "localhost:0", "tls_cert_file": str(certificate), "tls_key_file": str(key)},
        "auth": {"handlers": [{"type": "api-key", "config": {KEY_ID: KEY, "keys": [KEY_ID]}}]},
    }
    right = {"entity": KEY_ID, "credentials": {"type": "api-key", "payload": KEY}}
    wrong = {"entity": KEY_ID, "credentials": {"type": "api-key", "payload": "no"}}
    with running_machine(folder(tmp_path, "far"), far_config) as far:
        remotes = (
            remote(far.port, "good", insecure=False, auth=right),
            remote(far.port, "bad", insecure=False, auth=wrong),
        )
        needing = {**SIM, "name": "needing", "depends_on": ["bad:cam"]}
        with running_machine(folder(tmp_path, "near"), here(*remotes, components=[needing])) as near:
            async with open_robot(near) as robot:
                await ready(robot, "good:fake")
                assert (await Sensor.from_robot(robot, "good:fake").get_readings())["temperature"] == 21.5

                async def explained() -> bool:
                    return "remote bad refuses: invalid credentials" in (await states(robot))["needing"].error

                await until(explained)


async def test_a_lost_remote_is_said_and_capture_goes_on_when_it_is_back(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    [port] = free_ports(1)
    entry = {"method": "Readings", "capture_frequency_hz": 20, "name": "rdk:component:sensor/r1:fake"}
    capture = {"service_configs": [{"type": "data_manager", "attributes": {"capture_methods": [entry]}}]}
    dm = {"name": "dm", "api": "rdk:service:data_manager", "attributes": {"maximum_capture_file_size_bytes": 200}}
    captured = folder(tmp_path, "near") / "home/capture/rdk_component_sensor/fake/Readings"

    def files() -> set[str]:
        return {path.name for path in captured.glob("*.capture")}

    with running_machine(folder(tmp_path, "near"), here(remote(port) | capture, services=[dm])) as near:
        async with open_robot(near) as robot:
            with running_machine(folder(tmp_path, "far"), there(port)):
                await ready(robot, "r1:fake")
                await until(lambda: _more(files, set()))
            await unhealthy(robot, "r1:fake", "remote r1")
            with pytest.raises(GRPCError, match="not available; reason=remote r1"):
                await Sensor.from_robot(robot, "r1:fake").get_readings()
            before = files()
            with running_machine(folder(tmp_path, "far"), there(port)):
                await ready(robot, "r1:fake")
                await until(lambda: _more(files, before))
    file = read_capture((captured / sorted(files())[0]).read_bytes())
    assert (file.metadata.component_type, file.metadata.component_name) == ("rdk:component:sensor", "fake")
    assert struct_to_dict(file.records[0].struct)["readings"] == {"temperature": 21.5}


async def _more(files: Callable[[], set[str]], before: set[str]) -> bool:
    return len(files() - before) > 1


async def test_remotes_come_and_go_with_the_configuration(tmp_path: Path) -> None:
    with running_machine(folder(tmp_path, "far"), there()) as far:
        near_folder = folder(tmp_path, "near")
        with running_machine(near_folder, here(components=[SIM])) as near:
            async with open_robot(near) as robot:
                (near_folder / "machine.json").write_text(json.dumps(here(remote(far.port), components=[SIM])))
                await ready(robot, "cam", "r1:cam")
                (near_folder / "machine.json").write_text(json.dumps(here(components=[SIM])))

                async def gone() -> bool:
                    return set(await states(robot)) == {"cam"}

                await until(gone)


async def test_modules_of_a_remote_are_reached_through_it(tmp_path: Path) -> None:
    world = ModuleWorld(folder(tmp_path, "far"))
    config = there(modules=[world.module()])
    config["components"].append(counter(first=10))
    with ExitStack() as machines:
        far = machines.enter_context(running_machine(folder(tmp_path, "far"), config))
        near_config = here(remote(far.port, connection_check_interval="100ms"))
        near = machines.enter_context(running_machine(folder(tmp_path, "near"), near_config))
        async with open_robot(near) as robot:
            await ready(robot, "r1:c")
            sensor = Sensor.from_robot(robot, "r1:c")
            assert (await sensor.get_readings())["count"] == 11
            assert (await sensor.do_command({"x": 1}))["echo"] == {"x": 1.0}


async def test_machines_that_are_each_others_remotes_end_their_names(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    first, second = free_ports(2)

    def config(own: int, other: int) -> dict[str, Any]:
        return {**there(own), "remotes": [remote(other, "peer", connection_check_interval="50ms")]}

    with ExitStack() as machines:
        one = machines.enter_context(running_machine(folder(tmp_path, "a"), config(first, second)))
        machines.enter_context(running_machine(folder(tmp_path, "b"), config(second, first)))
        async with open_robot(one) as robot:
            await ready(robot, "peer:cam", "peer:peer:peer:cam")
            assert await until(lambda: _longest(robot)) <= 4


async def _longest(robot: Any) -> int:
    await asyncio.sleep(0)
    return max(name.count(":") for name in await states(robot))


def frame(parent: str, x: float = 0, y: float = 0, z: float = 0, turned: float = 0) -> dict[str, Any]:
    """Turned about z to the left."""
    orientation = {"type": "ov_degrees", "value": {"x": 0, "y": 0, "z": 1, "th": turned}}
    return {"parent": parent, "translation": {"x": x, "y": y, "z": z}, "orientation": orientation}


async def test_a_remotes_frames_are_those_of_this_machine_and_its_components_have_a_place_in_the_world(
    tmp_path: Path,
) -> None:
    """The remote stands 1000 mm along x on this machine's table, turned left; its camera 10 mm ahead of its base."""
    mounted = [
        {"name": "rover", "api": "rdk:component:base", "model": "gleaner:base:sim", "frame": frame("world", x=100)},
        {**SIM, "frame": frame("rover", x=10, z=50)},
        fake(),
    ]
    entries = [
        {"method": "GetWorldPose", "capture_frequency_hz": 20, "name": f"rdk:component:camera/{name}"}
        for name in ("r1:front-cam", "lost:front-cam")
    ]
    capture = {"service_configs": [{"type": "data_manager", "attributes": {"capture_methods": entries[:1]}}]}
    nowhere = {"service_configs": [{"type": "data_manager", "attributes": {"capture_methods": entries[1:]}}]}
    table = {**fake(), "name": "table", "frame": frame("world", y=5)}
    dm = {"name": "dm", "api": "rdk:service:data_manager", "attributes": {"maximum_capture_file_size_bytes": 200}}
    with running_machine(folder(tmp_path, "far"), {**there(), "components": mounted}) as far:
        placed = remote(far.port, prefix="front-", frame=frame("table", x=1000, turned=90)) | capture
        unplaced = remote(far.port, "lost", prefix="front-") | nowhere
        config = here(placed, unplaced, components=[table], services=[dm])
        with running_machine(folder(tmp_path, "near"), config) as near:
            async with open_robot(near) as robot:
                await ready(robot, "r1:front-cam", "lost:front-cam")
                parts = {one.frame.reference_frame: one.frame for one in await robot.get_frame_system_config()}
                assert {name: one.pose_in_observer_frame.reference_frame for name, one in parts.items()} == {
                    "table": "world",
                    "r1_world": "table",
                    "r1:front-rover": "r1_world",
                    "r1:front-cam": "r1:front-rover",
                }
                pose = parts["r1:front-cam"].pose_in_observer_frame.pose
                assert (pose.x, pose.y, pose.z) == (10, 0, 50)
                captured = folder(tmp_path, "near") / "home/capture/rdk_component_camera/front-cam/GetWorldPose"
                await until(lambda: _some(captured))

                async def said() -> bool:
                    return "remote lost has no frame" in (tmp_path / "near/machine.log").read_text()

                await until(said)
    record = read_capture(sorted(captured.glob("*.capture"))[0].read_bytes()).records[0]
    pose = struct_to_dict(record.struct)["pose"]
    assert [pose[axis] for axis in ("x", "y", "z")] == pytest.approx([1000, 115, 50])
    assert pose["theta"] == pytest.approx(90)


async def _some(directory: Path) -> bool:
    return bool(list(directory.glob("*.capture")))
