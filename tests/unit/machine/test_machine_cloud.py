"""The connection to the app: configuration, keys, logs and the link, against real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from machine_fake_app import PART, SECRET, FakeApp, fake_app
from machine_fakes import running, until

from gleaner.machine.cloud import logs as logs_module
from gleaner.machine.cloud.configuration import ConfigPoller
from gleaner.machine.cloud.connection import AppConnection, AppRefused, AppUnreachable, http_credentials
from gleaner.machine.cloud.keys import AppKeyVerifier
from gleaner.machine.cloud.logs import LogShipper
from gleaner.machine.cloud.reachability import backoff_s
from gleaner.wire.machine_config import CloudConfig, ConfigProblem, MachineConfig, NetworkConfig


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[FakeApp, AppConnection]]:
    async with fake_app() as app:
        connection = AppConnection(app.cloud)
        try:
            yield app, connection
        finally:
            connection.close()


class Applied:
    def __init__(self) -> None:
        self.configs: list[MachineConfig] = []

    async def __call__(self, config: MachineConfig) -> None:
        self.configs.append(config)


# -- configuration --------------------------------------------------------------------------------------------------


async def test_the_configuration_is_polled_applied_and_kept(tmp_path: Path) -> None:
    async with connected() as (app, connection):
        app.config = {
            "revision": "r1",
            "cloud": {"id": "other", "primary_org_id": "org", "location_secrets": [{"id": "1", "secret": "l"}]},
            "components": [{"name": "s", "api": "rdk:component:sensor", "model": "rdk:builtin:fake"}],
        }
        applied, cache = Applied(), tmp_path / "cache.json"
        async with running(ConfigPoller(connection, app.cloud, cache, applied).run()):
            await until(lambda: len(app.config_requests) > 2 and cache.exists())
            assert [config.revision for config in applied.configs] == ["r1"]
            cloud = applied.configs[0].cloud
            assert cloud is not None
            # What the machine was given locally stays; the rest comes from the app.
            assert (cloud.id, cloud.secret, cloud.organization_id) == (PART, SECRET, "org")
            assert (cloud.model_extra or {})["location_secrets"] == [{"id": "1", "secret": "l"}]
            app.config = {"revision": "r2"}
            await until(lambda: '"r2"' in cache.read_text())
            assert len(applied.configs) == 2
        assert stat.S_IMODE(cache.stat().st_mode) == 0o600
        assert json.loads(cache.read_text())["revision"] == "r2"
        assert SECRET not in cache.read_text()
        assert app.authentications == 1
        assert app.config_requests[0].agent_info.version.startswith("gleaner-")


async def test_the_local_network_wins_over_the_apps(tmp_path: Path) -> None:
    async with connected() as (app, connection):
        app.config = {"network": {"bind_address": "localhost:9", "sessions": {"heartbeat_window": "5s"}}}
        applied = Applied()
        local = NetworkConfig(bind_address="localhost:7")
        async with running(ConfigPoller(connection, app.cloud, tmp_path / "c", applied, local).run()):
            await until(lambda: applied.configs)
        network = applied.configs[0].network
        assert (network.bind_address, network.sessions) == ("localhost:7", {"heartbeat_window": "5s"})


async def test_a_poke_polls_at_once(tmp_path: Path) -> None:
    async with connected() as (app, connection):
        applied = Applied()
        poller = ConfigPoller(
            connection, app.cloud.model_copy(update={"refresh_interval_s": 3600.0}), tmp_path / "c", applied
        )
        async with running(poller.run()):
            await until(lambda: applied.configs)
            app.config = {"revision": "r2"}
            poller.poke()
            await until(lambda: len(applied.configs) == 2)


async def test_without_the_app_the_kept_configuration_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cloud = CloudConfig(id=PART, secret=SECRET, app_address="http://127.0.0.1:1", refresh_interval_s=0.02)
    cache = tmp_path / "cache.json"
    cache.write_text('{"revision": "kept"}')
    connection, applied = AppConnection(cloud), Applied()
    async with running(ConfigPoller(connection, cloud, cache, applied).run()):
        await until(lambda: applied.configs)
        await asyncio.to_thread(lambda: None)
    connection.close()
    assert [config.revision for config in applied.configs] == ["kept"]
    assert caplog.text.count("cannot be reached") == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            GRPCError(Status.INVALID_ARGUMENT, "bad fragment"),
            "cannot deliver this machine's configuration: bad fragment",
        ),
        (GRPCError(Status.NOT_FOUND, "no part"), "does not accept this machine"),
        (GRPCError(Status.UNAVAILABLE, "busy"), "answers UNAVAILABLE: busy"),
    ],
)
async def test_an_app_that_refuses_is_explained_once_and_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: GRPCError, words: str
) -> None:
    caplog.set_level(logging.INFO)
    async with connected() as (app, connection):
        app.config_error = error
        applied = Applied()
        async with running(ConfigPoller(connection, app.cloud, tmp_path / "c", applied).run()):
            await until(lambda: len(app.config_requests) > 3)
            assert caplog.text.count(words) == 1
            app.config_error = None
            await until(lambda: applied.configs)
            assert ": connected" in caplog.text


async def test_a_configuration_that_cannot_be_used_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected() as (app, connection):
        applied = Applied()
        async with running(ConfigPoller(connection, app.cloud, tmp_path / "c", applied).run()):
            await until(lambda: applied.configs)
            app.config = {"components": [{"name": "a b", "api": "rdk:component:base"}]}
            await until(lambda: "the running configuration stays" in caplog.text)
            assert "components[0].name" in caplog.text
            assert len(applied.configs) == 1


async def test_a_restart_is_asked_for_by_poll(tmp_path: Path) -> None:
    async with connected() as (app, connection):
        app.must_restart = True
        poller = ConfigPoller(connection, app.cloud, tmp_path / "c", Applied())
        asked = asyncio.Event()
        poller.on_restart = asked.set
        async with running(poller.run()), asyncio.timeout(10):
            await asked.wait()


async def test_a_token_that_expired_is_renewed() -> None:
    from viam.proto.app.robot import ConfigRequest, RobotServiceStub

    async with connected() as (app, connection):
        await connection.call(RobotServiceStub, "Config", ConfigRequest(id=PART))
        app.valid_token = "token-2"
        await connection.call(RobotServiceStub, "Config", ConfigRequest(id=PART))
        assert app.authentications == 2


async def test_a_wrong_secret_is_refused() -> None:
    from viam.proto.app.robot import ConfigRequest, RobotServiceStub

    async with fake_app() as app:
        connection = AppConnection(app.cloud.model_copy(update={"secret": "wrong"}))
        with pytest.raises(AppRefused, match="wrong secret"):
            await connection.call(RobotServiceStub, "Config", ConfigRequest(id=PART))
        connection.close()


@pytest.mark.parametrize("address", ["", "ftp://app:1", "http://"])
async def test_an_address_that_is_none_is_explained(address: str) -> None:
    with pytest.raises(ConfigProblem, match=r"cloud\.app_address"):
        AppConnection(CloudConfig(id=PART, app_address=address))


# -- keys -----------------------------------------------------------------------------------------------------------


async def test_a_key_works_only_if_the_app_lets_it_see_this_machine() -> None:
    async with connected() as (app, connection):
        now = 0.0
        verify = AppKeyVerifier(connection, PART, lambda: now)
        app.api_keys["k"] = "good"
        assert not await verify("k", "bad")
        app.key_sees_part = False
        assert not await verify("k", "good")
        app.key_sees_part = True
        assert await verify("k", "good")
        asked = app.authentications
        assert await verify("k", "good")
        assert app.authentications == asked  # remembered
        now = 301.0
        del app.api_keys["k"]
        assert not await verify("k", "good")


async def test_a_known_key_works_for_a_day_without_the_app() -> None:
    now = 0.0
    async with connected() as (app, connection):
        verify = AppKeyVerifier(connection, PART, lambda: now)
        app.api_keys["k"] = "good"
        assert await verify("k", "good")
    now = 3600.0
    assert await verify("k", "good")
    assert not await verify("new", "key")
    now = 25 * 3600.0
    assert not await verify("k", "good")
    connection.close()


# -- logs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def log() -> logging.Logger:
    logger = logging.Logger("gleaner.test")
    logger.setLevel(logging.DEBUG)
    return logger


async def test_logs_arrive_in_batches_and_in_order(log: logging.Logger) -> None:
    async with connected() as (app, connection):
        shipper = LogShipper(connection, PART)
        log.addHandler(shipper)
        for number in range(250):
            log.info("message %d", number)
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("it failed")
        async with running(shipper.run()):
            await until(lambda: sum(len(request.logs) for request in app.logs) == 251)
        assert [len(request.logs) for request in app.logs] == [100, 100, 51]
        entries = [entry for request in app.logs for entry in request.logs]
        assert [entry.message for entry in entries[:250]] == [f"message {number}" for number in range(250)]
        assert (entries[0].level, entries[-1].level, entries[0].logger_name) == ("info", "error", "gleaner.test")
        assert "ValueError: broken" in entries[-1].stack
        assert entries[0].caller.fields["Line"].number_value > 0


async def test_logs_wait_for_an_app_that_is_away(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "_ERROR_WAIT_S", 0.01)
    async with connected() as (app, connection):
        app.log_error = GRPCError(Status.UNAVAILABLE, "later")
        shipper = LogShipper(connection, PART)
        log.addHandler(shipper)
        log.warning("one")
        async with running(shipper.run()):
            await until(lambda: app.authentications)
            log.warning("two")
            app.log_error = None
            await until(lambda: sum(len(request.logs) for request in app.logs) == 2)
        assert [entry.message for request in app.logs for entry in request.logs] == ["one", "two"]


async def test_too_many_logs_are_counted_and_the_oldest_go(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "MAX_QUEUED", 3)
    async with connected() as (app, connection):
        shipper = LogShipper(connection, PART)
        log.addHandler(shipper)
        for number in range(5):
            log.info("%d", number)
        await shipper.flush_last(5)
        messages = [entry.message for entry in app.logs[0].logs]
        assert messages[:3] == ["2", "3", "4"]
        assert messages[3].startswith("2 older log messages were dropped")


async def test_a_batch_that_the_app_refuses_is_not_sent_for_ever(log: logging.Logger) -> None:
    async with connected() as (app, connection):
        app.log_error = GRPCError(Status.INVALID_ARGUMENT, "no")
        shipper = LogShipper(connection, PART)
        log.addHandler(shipper)
        log.info("poison")
        await shipper.flush_last(5)
        app.log_error = None
        log.info("fine")
        await shipper.flush_last(5)
        assert [entry.message for request in app.logs for entry in request.logs] == ["fine"]


# -- helpers ----------------------------------------------------------------------------------------------------------


def test_waits_grow_and_stay_bounded() -> None:
    for attempt in range(40):
        assert 0.25 <= backoff_s(attempt) <= 30.0
    assert backoff_s(40) >= 15.0


def test_a_part_may_log_in_with_an_api_key() -> None:
    cloud = CloudConfig.model_validate({"id": "p", "api_key": {"id": "k", "key": "v"}})
    assert http_credentials(cloud) == {"part_id": "p", "key_id": "k", "key": "v"}
    assert http_credentials(CloudConfig(id="p")) == {"part_id": "p"}


async def test_a_closed_port_is_unreachable() -> None:
    from viam.proto.app.robot import ConfigRequest, RobotServiceStub

    connection = AppConnection(CloudConfig(id=PART, secret=SECRET, app_address="http://127.0.0.1:1"))
    with pytest.raises(AppUnreachable, match=r"the app at 127\.0\.0\.1:1 cannot be reached"):
        await connection.call(RobotServiceStub, "Config", ConfigRequest(id=PART))
    connection.close()
