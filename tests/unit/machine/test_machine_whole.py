"""A whole machine against a small app: configuration, packages, link, restart, and life without the app."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel
from machine_certificates import server_tls
from machine_fake_app import FakeApp, fake_app, next_json, tarball
from machine_fakes import World, brain, thing, until
from viam.gen.service.datamanager.v1.data_manager_grpc import DataManagerServiceStub
from viam.proto.app.datasync import MimeType
from viam.proto.common import DoCommandRequest
from viam.proto.robot import ResourceNamesRequest, RobotServiceStub, ShutdownRequest
from viam.proto.service.datamanager import SyncRequest, UploadBinaryDataToDatasetsRequest
from viam.resource.types import API
from viam.services.generic import Generic
from viam.utils import dict_to_struct, struct_to_dict

from gleaner.machine.home import MachineHome
from gleaner.machine.machine import Exit, Machine
from gleaner.machine.models.base import Attributes, BuildContext, ModelSpec
from gleaner.machine.rpc.data_manager import DATA_MANAGER_API
from gleaner.machine.rpc.listeners import ListenProblem
from gleaner.wire.link import EMPTY_LEDGER
from gleaner.wire.machine_config import MachineConfig, parse_config

NETWORK = {"bind_address": "localhost:0"}


@asynccontextmanager
async def machine_in(folder: Path, local: MachineConfig, world: World) -> AsyncIterator[Machine]:
    with MachineHome(folder) as home:
        machine = Machine(home, local, world.specs)
        try:
            await machine.start()
            yield machine
        finally:
            await machine.stop()


def local(app: FakeApp) -> MachineConfig:
    return MachineConfig(cloud=app.cloud)


def config(*components: dict[str, Any], version: str = "", revision: str = "r") -> dict[str, Any]:
    """With a model from a package when a version is given."""
    packages = [{"name": "signs", "package": "org/signs", "version": version, "type": "ml_model"}] if version else []
    services = [brain("model", folder="${packages.ml_model.signs}")] if version else []
    value = {"components": list(components), "services": services, "packages": packages}
    return {**value, "network": NETWORK, "revision": revision}


def states(machine: Machine) -> dict[str, str]:
    return {node.key.name: node.state.name.lower() for node in machine.graph.nodes}


async def test_the_app_configures_the_machine_and_sees_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with fake_app() as app, asyncio.timeout(30):
        app.config = config(thing("a"), revision="r1")
        async with machine_in(tmp_path / "m", local(app), World()) as machine:
            websocket = await app.links.get()
            while (status := await next_json(websocket, "status"))["revision"] != "r1" or not status["resources"]:
                pass
            sensor = {"name": "a", "api": "rdk:component:sensor", "model": "test:thing:one"}
            await until(lambda: states(machine) == {"a": "ready"})
            while (status := await next_json(websocket, "status"))["resources"] != [
                {**sensor, "state": "ready", "error": ""}
            ]:
                pass
            assert status["capture"]["collectors"] == []
            app.config = config(thing("a"), thing("b"), revision="r2")
            await websocket.send(json.dumps({"type": "config_changed", "revision": "r2"}))
            await until(lambda: states(machine) == {"a": "ready", "b": "ready"})
            assert machine.server.is_authenticated
        assert any(entry.message.endswith("b is ready") for request in app.logs for entry in request.logs)


async def test_a_model_follows_its_package(tmp_path: Path) -> None:
    async with fake_app() as app, asyncio.timeout(30):
        for version in ("1", "2", "3"):
            app.packages[f"org-signs-{version}"] = tarball(**{"model.onnx": version})
        world = World()
        world.failures["org-signs-2"] = ValueError("not for this runtime")
        app.config = config(thing("user", needs=["model"]), version="1")
        async with machine_in(tmp_path / "m", local(app), world) as machine:
            packages = lambda: [(p["version"], p["state"]) for p in machine.status()["packages"]]  # noqa: E731
            await until(
                lambda: packages() == [("1", "ready")] and states(machine) == {"model": "ready", "user": "ready"}
            )
            first = machine.graph.resource("model")

            app.config = config(thing("user", needs=["model"]), version="2")
            await until(lambda: packages() == [("2", "failed")])
            await until(lambda: states(machine)["model"] == "unhealthy")
            assert machine.graph.resource("model") is first
            status = machine.status()
            assert "not for this runtime" in status["packages"][0]["error"]
            # The reason of the failed replacement comes first, the package's own a moment later.
            await until(lambda: "version 1 stays in use" in machine.graph.nodes[0].error)

            app.config = config(thing("user", needs=["model"]), version="3")
            await until(
                lambda: packages() == [("3", "ready")] and states(machine) == {"model": "ready", "user": "ready"}
            )
            assert machine.graph.resource("model") is not first
        assert world.life.count("+model org-signs-1") == 1
        assert world.life.count("-model org-signs-1") == 1


async def test_a_restart_with_a_bad_version_runs_the_last_good_one(tmp_path: Path) -> None:
    async with fake_app() as app, asyncio.timeout(30):
        for version in ("1", "2"):
            app.packages[f"org-signs-{version}"] = tarball(**{"model.onnx": version})
        app.config = config(version="1")
        async with machine_in(tmp_path / "m", local(app), World()) as machine:
            await until(lambda: states(machine) == {"model": "ready"})
        world = World()
        world.failures["org-signs-2"] = ValueError("bad")
        app.config = config(version="2")
        async with machine_in(tmp_path / "m", local(app), world) as machine:
            await until(lambda: "+model org-signs-1" in world.life)
            await until(lambda: states(machine) == {"model": "unhealthy"})
            assert "version 1 stays in use" in machine.graph.nodes[0].error


async def test_a_proxy_is_not_asked_for_this_computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with fake_app() as app, asyncio.timeout(30):
        app.packages["org-signs-1"] = tarball(**{"model.onnx": "1"})
        app.config = config(version="1")
        async with machine_in(tmp_path / "m", local(app), World()) as machine:
            await until(lambda: states(machine) == {"model": "ready"})
            await next_json(await app.links.get(), "status")


async def test_the_app_may_ask_for_a_restart(tmp_path: Path) -> None:
    async with fake_app() as app, asyncio.timeout(30), machine_in(tmp_path / "m", local(app), World()) as machine:
        websocket = await app.links.get()
        await websocket.send('{"type": "restart"}')
        assert await machine.exit is Exit.RESTART


async def test_a_machine_starts_without_its_app(tmp_path: Path) -> None:
    async with fake_app() as app, asyncio.timeout(30):
        app.packages["org-signs-1"] = tarball(**{"model.onnx": "1"})
        app.config = config(thing("a"), version="1", revision="kept")
        async with machine_in(tmp_path / "m", local(app), World()) as machine:
            await until(lambda: [p["state"] for p in machine.status()["packages"]] == ["ready"])
        alone = MachineConfig(cloud=app.cloud)
    async with asyncio.timeout(30), machine_in(tmp_path / "m", alone, World()) as machine:
        await until(lambda: states(machine) == {"a": "ready", "model": "ready"})
        assert machine.status()["revision"] == "kept"


async def test_the_private_socket_asks_for_no_credentials_and_the_port_does(tmp_path: Path) -> None:
    async with fake_app() as app, asyncio.timeout(30):
        app.config = config(thing("a"))
        async with machine_in(tmp_path / "m", local(app), World()) as machine:
            await until(lambda: machine.server.url and states(machine) == {"a": "ready"})
            async with Channel(path=str(tmp_path / "m" / "machine.sock")) as channel:
                names = await RobotServiceStub(channel).ResourceNames(ResourceNamesRequest())
                assert [name.name for name in names.resources] == ["a"]
            port = int(machine.server.url.rsplit(":", 1)[1])
            async with Channel("localhost", port) as channel:
                with pytest.raises(Exception, match="needs an API key"):
                    await RobotServiceStub(channel).ResourceNames(ResourceNamesRequest())


async def test_shutdown_ends_the_machine(tmp_path: Path) -> None:
    async with asyncio.timeout(30), machine_in(tmp_path / "m", MachineConfig(), World()) as machine:
        await machine.apply(parse_config(config()))
        async with Channel(path=str(tmp_path / "m" / "machine.sock")) as channel:
            await RobotServiceStub(channel).Shutdown(ShutdownRequest())
        assert await machine.exit is Exit.SHUTDOWN


async def test_the_address_follows_the_configuration(tmp_path: Path, unused_tcp_port: int) -> None:
    async with asyncio.timeout(30), machine_in(tmp_path / "m", MachineConfig(), World()) as machine:
        await machine.apply(parse_config({"network": NETWORK}))
        first = machine.server.url
        await machine.apply(parse_config({"network": NETWORK, "revision": "2"}))
        assert machine.server.url == first
        await machine.apply(parse_config({"network": {"bind_address": f"127.0.0.1:{unused_tcp_port}"}}))
        assert machine.server.url == f"http://127.0.0.1:{unused_tcp_port}"


async def test_a_taken_port_stops_a_local_machine_but_not_one_with_an_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gleaner.machine.machine._LISTEN_RETRY_S", 0.05)
    taken = await asyncio.start_server(lambda _r, _w: None, "localhost", 0)
    port = taken.sockets[0].getsockname()[1]
    network = {"bind_address": f"localhost:{port}"}
    async with machine_in(tmp_path / "local", MachineConfig(), World()) as machine:
        with pytest.raises(ListenProblem, match=f"port {port} is in use by another program"):
            await machine.apply(parse_config({"network": network}))
    async with fake_app() as app, asyncio.timeout(30):
        app.config = {**config(thing("a")), "network": network}
        async with machine_in(tmp_path / "cloud", local(app), World()) as machine:
            await until(lambda: states(machine) == {"a": "ready"})
            assert f"no TCP door: port {port} is in use" in caplog.text
            taken.close()
            await taken.wait_closed()
            await until(lambda: machine.server.url == f"http://localhost:{port}")


async def test_a_machine_trusts_the_authority_it_was_given_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    async with fake_app(server_tls(tmp_path / "good")) as app, asyncio.timeout(30):
        app.config = config(thing("a"))
        async with machine_in(tmp_path / "m", local(app), World()) as machine:
            await until(lambda: states(machine) == {"a": "ready"})
            await next_json(await app.links.get(), "status")
        _context, app.ca_certificate = server_tls(tmp_path / "bad")
        async with machine_in(tmp_path / "n", local(app), World()) as machine:
            await until(lambda: "download machine.json again" in caplog.text)  # said by the poll
            await until(lambda: "download machine.json from the app again" in caplog.text)  # and by the link
            assert states(machine) == {}


class FakeManager(Generic):
    """A data manager as the capture part makes it: a resource with a few methods more."""

    API = API("rdk", "service", "data_manager")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.synced = 0
        self.told: list[bool] = []
        """Of each `sync_now`: whether somebody in the app asked for it."""
        self.uploads: list[Any] = []

    async def sync(self) -> None:
        self.synced += 1

    def sync_now(self, *, asked: bool = False) -> None:
        self.told.append(asked)

    async def upload_binary_data_to_datasets(self, *upload: Any) -> None:
        self.uploads.append(upload)

    async def do_command(self, command: Any, **_kwargs: Any) -> Any:
        return {"heard": command}

    def ledger(self) -> Any:
        return {**EMPTY_LEDGER, "backlog_files": 7}


async def test_the_data_manager_is_served_and_its_ledger_reported(tmp_path: Path) -> None:
    async def build(context: BuildContext) -> FakeManager:
        return FakeManager(context.name)

    world = World()
    world.specs.append(ModelSpec(DATA_MANAGER_API, "rdk:builtin:builtin", "Data", "", Attributes, build))
    services = [{"api": DATA_MANAGER_API}]
    async with asyncio.timeout(30), machine_in(tmp_path / "m", MachineConfig(), world) as machine:
        await machine.apply(parse_config({"services": services, "network": NETWORK}))
        await machine.graph.settle()
        manager: Any = machine.graph.resource("builtin", "data_manager")
        async with Channel(path=str(tmp_path / "m" / "machine.sock")) as channel:
            stub = DataManagerServiceStub(channel)
            await stub.Sync(SyncRequest(name="builtin"))
            request = UploadBinaryDataToDatasetsRequest(
                name="builtin", binary_data=b"x", tags=["t"], dataset_ids=["d"], mime_type=MimeType.MIME_TYPE_IMAGE_PNG
            )
            await stub.UploadBinaryDataToDatasets(request)
            answer = await stub.DoCommand(DoCommandRequest(name="builtin", command=dict_to_struct({"a": 1})))
            assert struct_to_dict(answer.result) == {"heard": {"a": 1}}
            with pytest.raises(Exception, match="resource rdk:service:data_manager/other not found"):
                await stub.Sync(SyncRequest(name="other"))
        assert manager.synced == 1
        assert manager.uploads == [(b"x", ["t"], ["d"], "image/png")]
        assert machine.status()["capture"]["backlog_files"] == 7


async def test_sync_starts_at_once_when_the_app_asks_or_comes_back(tmp_path: Path) -> None:
    async def build(context: BuildContext) -> FakeManager:
        return FakeManager(context.name)

    world = World()
    world.specs.append(ModelSpec(DATA_MANAGER_API, "rdk:builtin:builtin", "Data", "", Attributes, build))
    async with fake_app() as app, asyncio.timeout(30):
        app.config = {"services": [{"api": DATA_MANAGER_API}], "network": NETWORK}
        async with machine_in(tmp_path / "m", local(app), world) as machine:
            await until(lambda: states(machine) == {"builtin": "ready"})
            manager: Any = machine.graph.resource("builtin")
            websocket = await app.links.get()
            before = len(manager.told)
            await websocket.send('{"type": "sync_now"}')
            await until(lambda: manager.told[before:] == [True])
            await websocket.close()
            await app.links.get()
            await until(lambda: manager.told[before:] == [True, False])
