"""gRPC calls to the app over a line that is cut at any moment end as one of two errors, and the machine goes on asking."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from machine_fake_app import fake_app
from machine_fakes import running, until
from viam.proto.app.robot import ConfigRequest, RobotServiceStub

from cutting_proxy import Cut, CuttingProxy
from gleaner.machine.cloud.configuration import ConfigPoller
from gleaner.machine.cloud.connection import AppConnection, AppError, AppUnreachable
from gleaner.wire.machine_config import MachineConfig


@pytest.mark.parametrize("cut", [Cut.RST, Cut.FIN])
async def test_a_call_on_a_cut_line_is_an_app_error(cut: Cut) -> None:
    """Also where grpclib loses its connection between making and using it, and then has no transport left."""
    async with fake_app() as app:
        with CuttingProxy(int(app.cloud.app_address.rsplit(":", 1)[1])) as proxy:
            cloud = app.cloud.model_copy(update={"app_address": f"http://127.0.0.1:{proxy.port}"})
            connection = AppConnection(cloud)
            try:
                proxy.set(cut)
                for _ in range(100):
                    with contextlib.suppress(AppError):
                        await connection.call(RobotServiceStub, "Config", ConfigRequest(id=cloud.id), timeout_s=5)
                proxy.set(Cut.NONE)
                await connection.call(RobotServiceStub, "Config", ConfigRequest(id=cloud.id), timeout_s=5)
            finally:
                connection.close()


@pytest.mark.parametrize("cut", [Cut.BLACK_HOLE, Cut.MUTE, Cut.HALF_OPEN])
async def test_a_line_that_lies_dead_is_left_for_a_new_one(cut: Cut) -> None:
    """A router that forgot the connection says nothing: TCP itself would hold on to it for a quarter of an hour."""
    async with fake_app() as app:
        with CuttingProxy(int(app.cloud.app_address.rsplit(":", 1)[1])) as proxy:
            cloud = app.cloud.model_copy(update={"app_address": f"http://127.0.0.1:{proxy.port}"})
            connection, request = AppConnection(cloud), ConfigRequest(id=app.cloud.id)
            try:
                await connection.call(RobotServiceStub, "Config", request, timeout_s=5)
                proxy.set(cut)
                with pytest.raises(AppUnreachable):
                    await connection.call(RobotServiceStub, "Config", request, timeout_s=0.3)
                proxy.set(Cut.NONE)
                await connection.call(RobotServiceStub, "Config", request, timeout_s=5)
            finally:
                connection.close()


async def test_a_surprise_does_not_end_the_asking_for_a_configuration(tmp_path: Path) -> None:
    async with fake_app() as app:
        connection = AppConnection(app.cloud)
        app.config = {"revision": "r1"}
        applied: list[str] = []

        async def apply(config: MachineConfig) -> None:
            applied.append(config.revision)
            if len(applied) == 1:
                raise RuntimeError("a bug of ours")

        poller = ConfigPoller(connection, app.cloud, tmp_path / "cache.json", apply)
        try:
            async with running(poller.run()):
                await until(lambda: applied == ["r1"])
                app.config = {"revision": "r2"}
                poller.poke()
                await until(lambda: applied == ["r1", "r2"])
        finally:
            connection.close()
