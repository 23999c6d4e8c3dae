"""How modules are started, and what an app's configuration makes of them. Their use is tested in tests/compat."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from machine_fake_app import fake_app
from machine_fakes import Shelf, until
from test_machine_whole import NETWORK, local, states
from viam.components.sensor import Sensor

from gleaner.machine.home import MachineHome
from gleaner.machine.machine import Machine
from gleaner.machine.modules.host import GRACE_S, ModuleState
from gleaner.machine.modules.launch import CannotLaunch, plan_launch
from gleaner.machine.modules.manager import ModuleManager, NoSuchModule, remove_leftover_sockets
from gleaner.machine.modules.program import Program
from gleaner.wire.machine_config import CloudConfig, MachineConfig, ModuleConfig, parse_config

SDK_MODULE = Path(__file__).parents[2] / "compat" / "sdk_module.py"
LOG = logging.getLogger("test.module")


def plan(module: ModuleConfig, shelf: Shelf, home: Path, **config: Any) -> Any:
    cloud = CloudConfig(id="part-1", location_id="here")
    return plan_launch(module, parse_config(config), shelf, home, cloud)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_module_learns_where_it_is_and_whose(tmp_path: Path) -> None:
    program = script(tmp_path / "run.sh", "")
    module = ModuleConfig(
        name="m", executable_path=str(program), env={"A": "${environment.HOME}", "VIAM_HOME": "/mine"}
    )
    auth = {"handlers": [{"type": "api-key", "config": {"key-1": "secret", "keys": ["key-1"]}}]}
    launch = plan(module, Shelf(), tmp_path / "home", auth=auth)
    environment = dict(launch.environment)
    assert environment["VIAM_MODULE_ROOT"] == str(tmp_path)
    assert environment["VIAM_MODULE_DATA"] == str(tmp_path / "home" / "module-data" / "part-1" / "m")
    assert environment["VIAM_MACHINE_PART_ID"] == "part-1"
    assert (environment["VIAM_API_KEY_ID"], environment["VIAM_API_KEY"]) == ("key-1", "secret")
    assert environment["A"] == os.environ["HOME"]
    assert environment["VIAM_HOME"] == "/mine"  # what the user sets wins


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ({"executable_path": "nowhere"}, "correct executable_path"),
        ({"executable_path": "plain.txt"}, "chmod +x"),
        ({"type": "registry", "module_id": "acme:lidar"}, "set type to local"),
        ({"executable_path": "${packages.module.late}/run.sh"}, "waits for package 'late'"),
        ({"type": "registry", "module_id": "acme:late"}, "waits for package 'acme_late': 40 % downloaded"),
        ({"type": "registry", "module_id": "acme:bare"}, "names no entrypoint"),
        ({}, "set type to local"),
    ],
)
def test_what_keeps_a_module_from_starting_is_said(tmp_path: Path, module: dict[str, Any], said: str) -> None:
    (tmp_path / "plain.txt").write_text("no program")
    shelf = Shelf()
    shelf.put("late", "1", None)
    shelf.put("acme_late", "1", None, "40 % downloaded")
    shelf.put("acme_bare", "1", str(tmp_path))
    if "executable_path" in module and not module["executable_path"].startswith("$"):
        module = {**module, "executable_path": str(tmp_path / module["executable_path"])}
    with pytest.raises(CannotLaunch, match="module 'm'") as problem:
        plan(ModuleConfig(name="m", **module), shelf, tmp_path)
    assert said in str(problem.value)


async def test_a_program_that_ignores_its_end_is_killed_with_its_children(tmp_path: Path) -> None:
    deaf = script(
        tmp_path / "deaf.sh", f"trap '' TERM\n{sys.executable} -c 'import time; time.sleep(60)' & echo $!; wait; wait"
    )
    lines: list[str] = []
    LOG.setLevel(logging.INFO)
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    LOG.addHandler(handler)
    try:
        program = await Program.start([str(deaf)], os.environ, tmp_path, LOG)
        await until(lambda: lines)
        await program.stop(0.1)
        assert not program.is_running
        await until(lambda: not Path(f"/proc/{lines[0]}").exists())
    finally:
        LOG.removeHandler(handler)


async def test_the_last_words_of_a_program_are_its_reason(tmp_path: Path) -> None:
    program = await Program.start(
        [str(script(tmp_path / "ends.sh", "echo starting; echo no such device >&2; exit 7"))], os.environ, tmp_path, LOG
    )
    assert await program.wait() == "ended with code 7: no such device"
    await program.stop(0.1)
    absent = await Program.start([str(tmp_path / "absent")], os.environ, tmp_path, LOG)
    assert "cannot run" in await absent.wait()
    await absent.stop(0.1)


def test_sockets_that_a_killed_machine_left_are_removed(tmp_path: Path) -> None:
    for name in ("m-12345.sock", "p-12345.sock", "machine.sock"):
        (tmp_path / name).touch()
    remove_leftover_sockets(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["machine.sock"]


def module_package() -> bytes:
    buffer = io.BytesIO()
    files = {
        "meta.json": json.dumps({"entrypoint": "bin/run.sh"}),
        "bin/run.sh": f'#!/bin/sh\nexec "{sys.executable}" "{SDK_MODULE}" "$@"\n',
    }
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


async def test_a_configuration_from_the_app_brings_a_module_as_a_package(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with fake_app() as app, asyncio.timeout(60):
        app.packages["org-acme_mod-1"] = module_package()
        sensor = {
            "name": "c",
            "api": "rdk:component:sensor",
            "model": "acme:test:counter",
            "attributes": {"first": 41},
        }
        app.config = {
            "network": NETWORK,
            "revision": "r1",
            "modules": [{"name": "acme_mod", "type": "registry", "module_id": "acme:mod"}],
            "packages": [{"name": "acme_mod", "package": "org/acme_mod", "version": "1", "type": "module"}],
            "components": [sensor],
        }
        with MachineHome(tmp_path / "m") as home:
            machine = Machine(home, local(app), [])
            try:
                await machine.start()
                await until(lambda: states(machine) == {"c": "ready"})
                resource = machine.graph.resource("c", "sensor")
                assert isinstance(resource, Sensor)
                assert (await resource.get_readings())["count"] == 42
                [status] = machine.status()["resources"]
                assert (status["name"], status["model"], status["state"]) == ("c", "acme:test:counter", "ready")
                app.config = {**app.config, "modules": [], "revision": "r2"}
                await until(lambda: states(machine) == {"c": "unhealthy"})
            finally:
                await machine.stop()
        names = {entry.logger_name for request in app.logs for entry in request.logs}
        assert any(name.startswith("gleaner.module.acme_mod") for name in names)


def test_modules_and_remotes_of_a_configuration_are_checked() -> None:
    config = parse_config(
        {
            "modules": [{"name": "m", "executable_path": "/x", "first_run_timeout": "5m", "type": ""}],
            "remotes": [{"name": "r", "address": "robot:8080", "reconnect_interval": "2s"}],
        }
    )
    assert isinstance(config, MachineConfig)
    assert config.modules[0].type == "local"
    for wrong, said in (
        ({"modules": [{"name": "m"}, {"name": "m"}]}, "two modules are named 'm'"),
        ({"modules": [{"name": "m:x"}]}, "a name starts with"),
        ({"remotes": [{"name": "r", "address": "a", "reconnect_interval": "soon"}]}, "not a duration"),
        ({"remotes": [{"name": "r"}]}, "remotes[0].address"),
    ):
        with pytest.raises(ValueError, match="cannot be used") as problem:
            parse_config(wrong)
        assert said in str(problem.value)


async def test_a_machine_that_ends_does_not_wait_long_for_a_module_that_ends_already(tmp_path: Path) -> None:
    deaf = script(tmp_path / "deaf.sh", "trap '' TERM\nwhile :; do sleep 1; done")
    manager = ModuleManager(tmp_path / "home", None, Shelf(), tmp_path)
    manager.doors = NoDoors()
    manager.configure(parse_config({"modules": [{"name": "deaf", "executable_path": str(deaf)}]}))
    [host] = manager.hosts
    await until(lambda: host.state is ModuleState.STARTING)
    manager.configure(parse_config({}))
    manager.end_removed()
    assert manager.hosts == ()
    await until(lambda: host.state is ModuleState.CLOSING)
    async with asyncio.timeout(GRACE_S):
        await manager.close()


class NoDoors:
    async def open_for_module(self, path: Path, name: str) -> None:
        return

    async def close_for_module(self, path: Path) -> None:
        return


async def test_a_module_that_ends_again_and_again_is_started_less_and_less_often(tmp_path: Path) -> None:
    ends = script(tmp_path / "ends.sh", "echo no luck >&2; exit 1")
    manager = ModuleManager(tmp_path / "home", None, Shelf(), tmp_path)
    manager.doors = NoDoors()
    manager.configure(parse_config({"modules": [{"name": "ends", "executable_path": str(ends)}]}))
    [host] = manager.hosts
    try:
        await until(lambda: host.failures >= 2)
        assert host.state is ModuleState.UNHEALTHY
        assert host.error == f"module ends {ends} ended with code 1: no luck"
        manager.restart("ends")
        await until(lambda: host.failures >= 1)
        with pytest.raises(NoSuchModule):
            manager.restart("another")
    finally:
        await manager.close()
