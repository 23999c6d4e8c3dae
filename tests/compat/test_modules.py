"""Modules written with the unmodified viam-sdk, run by `gleaner machine` in other processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpclib import GRPCError, Status
from grpclib.client import UnaryStreamMethod, UnaryUnaryMethod
from machine_process import RunningMachine, open_robot
from module_world import SIM, ModuleWorld, counter, fake, ready, states, unhealthy, until
from viam.components.camera import Camera
from viam.components.movement_sensor import MovementSensor
from viam.components.sensor import Sensor
from viam.proto.common import DoCommandRequest, DoCommandResponse
from viam.proto.robot import ModuleStatus, ResourceRPCSubtypesRequest, RestartModuleRequest
from viam.robot.client import RobotClient
from viam.services.vision import Vision
from viam.utils import dict_to_struct, struct_to_dict

from gleaner.wire.capture_file import read_capture

# viam-sdk's clients leave channels to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def world(tmp_path: Path) -> ModuleWorld:
    return ModuleWorld(tmp_path)


@asynccontextmanager
async def running(world: ModuleWorld, config: dict[str, Any], *names: str) -> AsyncIterator[RobotClient]:
    with world.machine(config) as machine:
        async with open_robot(machine) as robot:
            await ready(robot, *names)
            yield robot


async def test_resources_of_a_module_are_used_like_any_others(world: ModuleWorld) -> None:
    ship = {"name": "ship", "api": "rdk:component:movement_sensor", "model": "acme:test:ship"}
    config = {"modules": [world.module()], "components": [counter(first=5), ship, fake()]}
    async with running(world, config, "c", "ship", "fake") as robot:
        listed = {f"{name.subtype}/{name.name}" for name in robot.resource_names}
        assert listed == {"sensor/c", "movement_sensor/ship", "sensor/fake"}
        assert (await Sensor.from_robot(robot, "c").get_readings())["count"] == 6
        answer = await Sensor.from_robot(robot, "c").do_command({"a": [1, "b"]})
        assert answer["echo"] == {"a": [1, "b"]}
        position, altitude = await MovementSensor.from_robot(robot, "ship").get_position()
        assert (round(position.latitude, 1), altitude) == (54.3, 2.5)
        assert (await MovementSensor.from_robot(robot, "ship").get_readings())["heading"] == 42.0
        models = {(each.module_name, each.model) for each in await robot.get_models_from_modules()}
        assert ("acme", "acme:test:seer") in models
        [module] = (await robot.get_machine_status()).modules
        assert (module.module_name, module.state) == ("acme", ModuleStatus.STATE_READY)
    assert "counter c begins at 5" in world.log()
    assert "gleaner.module.acme" in world.log()


async def test_a_module_gets_no_keys_of_ours(world: ModuleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLEANER_CAPTURE_KEY", "secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    async with running(world, {"modules": [world.module()], "components": [counter()]}, "c") as robot:
        names = ["GLEANER_CAPTURE_KEY", "LANG", "VIAM_MODULE_NAME"]
        found = await Sensor.from_robot(robot, "c").do_command({"environment": names})
        assert found == {"GLEANER_CAPTURE_KEY": "", "LANG": "C.UTF-8", "VIAM_MODULE_NAME": "acme"}


async def test_a_module_uses_the_machine_and_other_modules(world: ModuleWorld) -> None:
    needing = counter("needing", needs=["fake", "other"])
    config = {"modules": [world.module(), world.module("second")], "components": [needing, counter("other"), fake()]}
    async with running(world, config, "needing", "other") as robot:
        sensor = Sensor.from_robot(robot, "needing")
        assert (await sensor.do_command({"ask": "fake"}))["readings"] == {"temperature": 21.5}
        assert (await sensor.do_command({"ask": "other"}))["readings"] == {"count": 1.0, "from_dm": False}


async def test_vision_and_cameras_of_modules_work_with_the_machines_own(world: ModuleWorld) -> None:
    overlay = {
        "name": "overlay",
        "api": "rdk:component:camera",
        "model": "transform",
        "attributes": {
            "source": "filtered",
            "pipeline": [{"type": "detections", "attributes": {"detector_name": "seer"}}],
        },
    }
    filtered = {**SIM, "name": "filtered", "model": "acme:test:filter", "attributes": {"source": "cam"}}
    seer = {
        "name": "seer",
        "api": "rdk:service:vision",
        "model": "acme:test:seer",
        "attributes": {"camera_name": "cam"},
    }
    config = {"modules": [world.module()], "components": [SIM, filtered, overlay], "services": [seer]}
    async with running(world, config, "cam", "filtered", "overlay", "seer") as robot:
        images, metadata = await Camera.from_robot(robot, "overlay").get_images()
        assert images[0].data.startswith(b"\xff\xd8")
        assert metadata.captured_at.seconds > 0
        [detection] = await Vision.from_robot(robot, "seer").get_detections_from_camera("cam")
        assert (detection.class_name, detection.confidence) == ("thing", 0.75)


GREETER = "acme.component.greeter.v1.GreeterService"


async def test_an_api_that_only_the_module_knows_is_passed_on(world: ModuleWorld) -> None:
    def calls(robot: RobotClient, kind: Any, method: str) -> Any:
        return kind(robot._channel, f"/{GREETER}/{method}", DoCommandRequest, DoCommandResponse)

    def request(name: str, **command: Any) -> DoCommandRequest:
        return DoCommandRequest(name=name, command=dict_to_struct(command))

    entry = {
        "method": "DoCommand",
        "capture_frequency_hz": 20,
        "additional_params": {"docommand_input": {"whom": "me"}},
    }
    greeter = {
        "name": "greeter",
        "api": "acme:component:greeter",
        "model": "acme:test:polite",
        "service_configs": [{"type": "data_manager", "attributes": {"capture_methods": [entry]}}],
    }
    services = [{"name": "dm", "api": "rdk:service:data_manager"}]
    captured = world.folder / "home/capture/acme_component_greeter/greeter/DoCommand"
    config = {"modules": [world.module()], "components": [greeter, counter()], "services": services}
    async with running(world, config, "greeter", "c") as robot:
        greet = calls(robot, UnaryUnaryMethod, "Greet")
        answer = await greet(request("greeter", whom="Ada"))
        assert struct_to_dict(answer.result) == {"said": "Good day, Ada!"}
        repeated = await calls(robot, UnaryStreamMethod, "Repeat")(request("greeter"))
        assert [struct_to_dict(each.result)["number"] for each in repeated] == [0, 1, 2]
        with pytest.raises(GRPCError, match="nobody is there"):
            await greet(request("greeter", whom="nobody"))
        with pytest.raises(GRPCError, match="names no resource of this machine"):
            await greet(request("stranger", whom="Ada"))
        subtypes = await robot._client.ResourceRPCSubtypes(ResourceRPCSubtypesRequest())
        assert GREETER in {each.proto_service for each in subtypes.resource_rpc_subtypes}

        async def is_captured() -> bool:
            return bool(list(captured.glob("*")))

        await until(is_captured)
    [file] = [read_capture(path.read_bytes()) for path in captured.iterdir()]
    assert struct_to_dict(file.records[0].struct) == {"docommand_output": {"greeter": "greeter", "whom": "me"}}


async def test_capture_stores_what_a_module_gives_and_not_what_it_vetoes(world: ModuleWorld) -> None:
    def captured(method: str, **params: Any) -> dict[str, Any]:
        entry = {"method": method, "capture_frequency_hz": 20, "additional_params": params}
        return {"service_configs": [{"type": "data_manager", "attributes": {"capture_methods": [entry]}}]}

    filtered = {**SIM, "name": "filtered", "model": "acme:test:filter", "attributes": {"source": "cam"}}
    seer = {
        "name": "seer",
        "api": "rdk:service:vision",
        "model": "acme:test:seer",
        "attributes": {"camera_name": "cam"},
    }
    config = {
        "modules": [world.module()],
        "components": [SIM, filtered | captured("ReadImage"), counter() | captured("Readings")],
        "services": [
            seer | captured("CaptureAllFromCamera", camera_name="cam"),
            {"name": "dm", "api": "rdk:service:data_manager"},
        ],
    }
    capture = world.folder / "home" / "capture"
    async with running(world, config, "filtered", "c", "seer", "dm"):

        async def enough() -> bool:
            return all(len(list((capture / place).glob("*"))) > wanted for place, wanted in PLACES.items())

        await until(enough)
    [readings] = [read_capture(path.read_bytes()) for path in (capture / "rdk_component_sensor/c/Readings").iterdir()][
        :1
    ]
    values = [struct_to_dict(record.struct)["readings"] for record in readings.records]
    counts = [int(each["count"]) for each in values]
    assert counts == list(range(counts[0], counts[0] + len(counts)))
    assert all(each["from_dm"] for each in values)
    assert "no capture from filter module" not in world.log()


PLACES = {
    "rdk_component_camera/filtered/ReadImage": 3,
    "rdk_service_vision/seer/CaptureAllFromCamera": 3,
    "rdk_component_sensor/c/Readings": 0,
}


async def test_what_a_module_says_of_a_wrong_configuration_is_shown(world: ModuleWorld) -> None:
    config = {
        "modules": [world.module()],
        "components": [counter("bad", first="x"), counter("good"), counter("broken", broken=1)],
    }
    async with running(world, config, "good") as robot:
        assert "first must be a number" in await unhealthy(robot, "bad", "module acme:")
        assert "the counter is broken" in await unhealthy(robot, "broken", "module acme:")
        with pytest.raises(GRPCError, match="not available; reason=module acme") as failure:
            sensor = Sensor.from_robot(robot, "good")
            sensor.name = "bad"
            await sensor.get_readings()
        assert failure.value.status is Status.UNKNOWN


async def test_new_attributes_reach_a_running_module_resource(world: ModuleWorld) -> None:
    module = world.module()
    with world.machine({"modules": [module], "components": [counter(first=1), counter("same"), fake()]}) as machine:
        async with open_robot(machine) as robot:
            await ready(robot, "c", "same")
            world.save(
                {"modules": [module], "components": [counter(first=100, likes=["fake"]), counter("same"), fake()]}
            )

            async def changed() -> bool:
                try:
                    return (await Sensor.from_robot(robot, "c").get_readings())["count"] > 100
                except GRPCError:  # viam-sdk removes the resource and makes it again
                    return False

            await until(changed)
            assert world.life().count("+same 0 ") == 1
            assert world.life()[-1] == "+c 100 fake"
            world.save({"modules": [module], "components": [counter("same"), fake()]})

            async def gone() -> bool:
                return "c" not in await states(robot)

            await until(gone)
            assert world.life()[-1] == "-c"


async def test_a_module_that_crashes_comes_back_with_its_resources(world: ModuleWorld) -> None:
    config = {"modules": [world.module()], "components": [counter(first=7), fake(), counter("on", needs=["c"])]}
    async with running(world, config, "c", "on") as robot:
        sensor = Sensor.from_robot(robot, "c")
        with pytest.raises(GRPCError) as failure:
            await sensor.do_command({"crash": True})
        assert failure.value.status is Status.UNAVAILABLE
        assert "module acme" in str(failure.value.message)
        await until(lambda: _restarted(world))
        await ready(robot, "c", "on")
        assert (await sensor.get_readings())["count"] == 8
        assert (await Sensor.from_robot(robot, "fake").get_readings())["temperature"] == 21.5
    assert "module acme ended with code 3: the counter gives up" in world.log()


async def _restarted(world: ModuleWorld) -> bool:
    return world.life().count("+c 7 ") == 2


async def test_one_bad_module_leaves_the_others_alone(world: ModuleWorld) -> None:
    (world.folder / "fails.sh").write_text("#!/bin/sh\necho no such wheel >&2\nexit 4\n")
    (world.folder / "fails.sh").chmod(0o755)
    modules = [
        {"name": "fails", "executable_path": str(world.folder / "fails.sh")},
        {"name": "absent", "executable_path": str(world.folder / "absent")},
        {"name": "registered", "type": "registry", "module_id": "acme:lidar"},
        world.module(),
    ]
    strange = {"name": "strange", "api": "rdk:component:sensor", "model": "acme:other:thing"}
    async with running(world, {"modules": modules, "components": [counter(), strange]}, "c") as robot:
        assert "no model acme:other:thing" in await unhealthy(robot, "strange", "no such wheel")

        async def failed() -> bool:
            return all(
                each.state == ModuleStatus.STATE_UNHEALTHY
                for each in (await modules_of(robot))
                if each.module_name != "acme"
            )

        await until(failed)
        errors = {each.module_name: each.error for each in await modules_of(robot)}
        assert "ended with code 4: no such wheel" in errors["fails"]
        assert "correct executable_path" in errors["absent"]
        assert "set type to local" in errors["registered"]
        assert errors["acme"] == ""
        assert (await Sensor.from_robot(robot, "c").get_readings())["count"] == 1


async def test_a_module_that_hangs_holds_up_nobody_else_and_not_the_end(world: ModuleWorld) -> None:
    config = {"modules": [world.module("stuck"), world.module("fine")], "components": [counter("a"), fake()]}
    async with running(world, config, "a", "fake") as robot:
        sensor = Sensor.from_robot(robot, "a")
        hanging = asyncio.create_task(sensor.do_command({"hang": 600}))

        async def is_stuck() -> bool:
            try:
                await sensor.get_readings(timeout=0.2)
            except (GRPCError, TimeoutError):
                return True
            return False

        await until(is_stuck)
        assert (await Sensor.from_robot(robot, "fake").get_readings())["temperature"] == 21.5
        world.save({**config, "components": [counter("a", first=3), fake(), fake("new")]})
        await ready(robot, "new")
        hanging.cancel()
        await asyncio.wait([hanging])
    # The machine ended well, within its own time: see running_machine.


async def modules_of(robot: RobotClient) -> list[ModuleStatus]:
    return list((await robot.get_machine_status()).modules)


async def test_restart_module_starts_it_anew(world: ModuleWorld) -> None:
    async with running(world, {"modules": [world.module()], "components": [counter()]}, "c") as robot:
        pid = (await Sensor.from_robot(robot, "c").do_command({}))["pid"]
        await robot._client.RestartModule(RestartModuleRequest(module_name="acme"))

        async def other() -> bool:
            try:
                return (await Sensor.from_robot(robot, "c").do_command({}))["pid"] != pid
            except GRPCError:
                return False

        await until(other)
        assert not alive(int(pid))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_no_module_outlives_its_machine(world: ModuleWorld, number: signal.Signals) -> None:
    config = {"modules": [world.module()], "components": [counter()]}
    pids: list[int] = []

    async def use(machine: RunningMachine) -> None:
        async with open_robot(machine) as robot:
            await ready(robot, "c")
            pids.append(int((await Sensor.from_robot(robot, "c").do_command({}))["pid"]))

    try:
        with world.machine(config) as machine:
            await use(machine)
            if number is signal.SIGKILL:
                os.kill(machine.process.pid, number)
                raise Killed
    except Killed:
        pass

    async def ended() -> bool:
        return not alive(pids[0])

    await until(ended)
    if number is signal.SIGINT:
        assert world.life()[-1] == "-c"
        assert not list((world.folder / "home").glob("?-*.sock"))


class Killed(Exception):
    pass


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_first_run_happens_once_before_the_module(world: ModuleWorld) -> None:
    module = world.module()
    (world.folder / "meta.json").write_text(json.dumps({"first_run": "prepare.sh"}))
    (world.folder / "prepare.sh").write_text('#!/bin/sh\necho prepared >> "$LIFE"\n')
    (world.folder / "prepare.sh").chmod(0o755)
    for _ in range(2):
        async with running(world, {"modules": [module], "components": [counter()]}, "c"):
            pass
    assert world.life() == ["prepared", "+c 0 ", "-c", "+c 0 ", "-c"]
