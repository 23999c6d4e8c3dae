"""The unmodified `viam.robot.client.RobotClient` against `gleaner machine` in another process."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpclib import GRPCError, Status
from machine_process import RunningMachine, running_machine
from viam.components.base import Base
from viam.components.camera import Camera
from viam.components.sensor import Sensor
from viam.proto.common import Vector3
from viam.proto.robot import (
    GetSessionsRequest,
    LogRequest,
    ResourceRPCSubtypesRequest,
    RestartModuleRequest,
    TransformPCDRequest,
)
from viam.robot.client import RobotClient
from viam.rpc.dial import Credentials, DialOptions

# viam-sdk leaves its connection open when authentication fails; the collector finds it at any later time.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KEY_ID, KEY = "11111111-2222-3333-4444-555555555555", "a-secret-key"

CONFIG: dict[str, Any] = {
    "revision": "r-1",
    "network": {"bind_address": "localhost:0", "sessions": {"heartbeat_window": "500ms"}},
    "components": [
        {"name": "rover", "api": "rdk:component:base", "model": "gleaner:base:sim", "frame": {"parent": "world"}},
        {"name": "cam", "api": "rdk:component:camera", "model": "gleaner:camera:sim"},
        {
            "name": "fake",
            "api": "rdk:component:sensor",
            "model": "fake",
            "attributes": {"values": {"temperature": 21.5}},
        },
        {"name": "typo", "api": "rdk:component:sensor", "model": "rdk:builtin:fke"},
    ],
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMachine]:
    with running_machine(tmp_path_factory.mktemp("open"), CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def locked_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMachine]:
    folder = tmp_path_factory.mktemp("locked")
    certificate, key = make_certificate(folder)
    config = {
        **CONFIG,
        "network": {"bind_address": "localhost:0", "tls_cert_file": str(certificate), "tls_key_file": str(key)},
        "auth": {"handlers": [{"type": "api-key", "config": {KEY_ID: KEY, "keys": [KEY_ID]}}]},
    }
    with running_machine(folder, config) as running:
        yield running


@asynccontextmanager
async def connected(port: int, **options: Any) -> AsyncIterator[RobotClient]:
    dial = DialOptions(initial_connection_attempts=1, timeout=10, **options)
    client_options = RobotClient.Options(dial_options=dial, log_level=logging.CRITICAL + 1, check_connection_interval=0)
    client = await RobotClient.at_address(f"localhost:{port}", client_options)
    try:
        yield client
    finally:
        await client.close()
        # The heartbeat thread of the SDK ends by itself once the session is reset.
        await asyncio.to_thread(client._sessions_client.reset)
        client._sessions_client._pool.shutdown()


def open_client(machine: RunningMachine) -> Any:
    return connected(machine.port, insecure=True, disable_webrtc=True)


async def test_resources_are_listed_and_used(machine: RunningMachine) -> None:
    async with open_client(machine) as robot:
        names = sorted(f"{name.subtype}/{name.name}" for name in robot.resource_names)
        assert names == ["base/rover", "camera/cam", "sensor/fake"]
        images, metadata = await Camera.from_robot(robot, "cam").get_images()
        assert images[0].mime_type == "image/jpeg"
        assert images[0].data.startswith(b"\xff\xd8")
        assert metadata.captured_at.seconds > 0
        assert (await Sensor.from_robot(robot, "fake").get_readings())["temperature"] == 21.5
        assert (await Base.from_robot(robot, "rover").get_properties()).width_meters > 0


async def test_machine_status_shows_what_is_wrong(machine: RunningMachine) -> None:
    async with open_client(machine) as robot:
        status = await robot.get_machine_status()
        assert status.state == status.STATE_RUNNING
        assert status.config.revision == "r-1"
        states = {resource.name.name: resource for resource in status.resources}
        assert states["fake"].state == states["fake"].STATE_READY
        assert states["typo"].state == states["typo"].STATE_UNHEALTHY
        assert "components[3].model: rdk:builtin:fke is not a model" in states["typo"].error
        assert "Did you mean rdk:builtin:fake?" in states["typo"].error


async def test_version_frames_and_subtypes(machine: RunningMachine) -> None:
    async with open_client(machine) as robot:
        version = await robot.get_version()
        assert (version.platform, version.version.split("-")[0]) == ("rdk", "gleaner")
        frames = await robot.get_frame_system_config()
        assert [part.frame.reference_frame for part in frames] == ["rover"]
        subtypes = await robot._client.ResourceRPCSubtypes(ResourceRPCSubtypesRequest())
        services = {subtype.subtype.subtype: subtype.proto_service for subtype in subtypes.resource_rpc_subtypes}
        assert services["base"] == "viam.component.base.v1.BaseService"
        assert await robot.get_models_from_modules() == []


async def test_a_client_that_goes_silent_has_its_base_stopped(machine: RunningMachine) -> None:
    async with open_client(machine) as robot:
        rover = Base.from_robot(robot, "rover")
        await rover.set_velocity(Vector3(x=0, y=50, z=0), Vector3(x=0, y=0, z=10))
        sessions = await robot._client.GetSessions(GetSessionsRequest())
        assert [s.id for s in sessions.sessions].count(robot._sessions_client._current_id) == 1
        assert await rover.is_moving()
        robot._sessions_client.reset()  # ends the heartbeats, as a crash of the client would
        await until(lambda: not_moving(rover))
        robot._sessions_client._disabled = True
        remaining = await robot._client.GetSessions(GetSessionsRequest())
        assert len(remaining.sessions) == 0


async def test_heartbeats_keep_a_base_moving_and_stop_all_stops_it(machine: RunningMachine) -> None:
    async with open_client(machine) as robot:
        rover = Base.from_robot(robot, "rover")
        await rover.set_velocity(Vector3(x=0, y=0, z=0), Vector3(x=0, y=0, z=10))
        window_passed = asyncio.get_running_loop().time() + 1.0
        await until(lambda: passed(window_passed))
        assert await rover.is_moving()
        await robot.stop_all()
        await until(lambda: not_moving(rover))


async def test_operations_are_listed_and_cancelled(machine: RunningMachine) -> None:
    async with open_client(machine) as robot:
        drive = asyncio.create_task(Base.from_robot(robot, "rover").spin(3600, 1))
        operations = await until(robot.get_operations)
        assert operations[0].method == "/viam.component.base.v1.BaseService/Spin"
        assert operations[0].arguments.fields["name"].string_value == "rover"
        await robot.cancel_operation(operations[0].id)
        with pytest.raises(GRPCError) as failure:
            await drive
        assert failure.value.status is Status.CANCELLED
        assert await robot.get_operations() == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "resource rdk:component:sensor/nothing not found"),
        ("typo", "resource rdk:component:sensor/typo not available; reason=components[3].model"),
    ],
)
async def test_missing_resources_are_explained(machine: RunningMachine, name: str, message: str) -> None:
    async with open_client(machine) as robot:
        sensor = Sensor.from_robot(robot, "fake")
        sensor.name = name
        with pytest.raises(GRPCError, match=message.replace("[", r"\[").replace("]", r"\]")) as failure:
            await sensor.get_readings()
        assert failure.value.status is Status.UNKNOWN


async def test_commands_that_make_no_sense_here_say_so(machine: RunningMachine) -> None:
    async with open_client(machine) as robot:
        client = robot._client
        for call, request, status in (
            (client.RestartModule, RestartModuleRequest(module_name="m"), Status.NOT_FOUND),
            (client.TransformPCD, TransformPCDRequest(), Status.UNIMPLEMENTED),
            (client.Log, LogRequest(), Status.INVALID_ARGUMENT),
        ):
            with pytest.raises(GRPCError) as failure:
                await call(request)
            assert failure.value.status is status
            assert failure.value.message
        with pytest.raises(GRPCError, match="this machine has no app"):
            await robot.get_cloud_metadata()
        with pytest.raises(GRPCError, match="not implemented"):
            await Sensor.from_robot(robot, "fake").do_command({"a": 1})


async def test_default_dialling_falls_back_from_webrtc(machine: RunningMachine) -> None:
    async with connected(machine.port, insecure=True) as robot:
        assert (await Sensor.from_robot(robot, "fake").get_readings())["temperature"] == 21.5


async def test_an_api_key_opens_a_machine_with_tls(locked_machine: RunningMachine) -> None:
    credentials = Credentials("api-key", KEY)
    async with connected(
        locked_machine.port, disable_webrtc=True, credentials=credentials, auth_entity=KEY_ID
    ) as robot:
        rover = Base.from_robot(robot, "rover")
        await rover.move_straight(10, 100)
        assert len(robot.resource_names) == 3


@pytest.mark.parametrize("key", ["wrong", ""])
async def test_a_wrong_key_is_refused(locked_machine: RunningMachine, key: str) -> None:
    with pytest.raises(GRPCError) as failure:
        async with connected(
            locked_machine.port, disable_webrtc=True, credentials=Credentials("api-key", key), auth_entity=KEY_ID
        ):
            pass
    assert failure.value.status is Status.UNAUTHENTICATED
    assert "does not know api-key" in str(failure.value.message)


async def test_no_key_is_refused(locked_machine: RunningMachine) -> None:
    with pytest.raises(ConnectionError):
        async with connected(locked_machine.port, disable_webrtc=True):
            pass


async def until(check: Any) -> Any:
    """The first true answer."""
    async with asyncio.timeout(10):
        while not (value := await check()):  # noqa: ASYNC110 - the state lives in another process
            await asyncio.sleep(0.02)
        return value


async def not_moving(base: Base) -> bool:
    return not await base.is_moving()


async def passed(deadline: float) -> bool:
    return asyncio.get_running_loop().time() > deadline


def make_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(alternatives, critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    no_encryption = serialization.NoEncryption()
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, no_encryption)
    )
    return paths
