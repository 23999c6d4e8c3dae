"""What a machine asks over gRPC, and what happens to streams that break off."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from grpclib import GRPCError, Status
from grpclib.client import Channel
from viam.gen.app.datasync.v1 import data_sync_pb2 as sync_pb
from viam.gen.app.datasync.v1.data_sync_grpc import DataSyncServiceStub
from viam.gen.app.packages.v1 import packages_pb2
from viam.gen.app.packages.v1.packages_grpc import PackageServiceStub
from viam.gen.app.v1 import robot_pb2 as pb
from viam.gen.app.v1.robot_grpc import RobotServiceStub
from viam.gen.common.v1.common_pb2 import LogEntry
from viam.gen.proto.rpc.v1 import auth_pb2
from viam.gen.proto.rpc.v1.auth_grpc import AuthServiceStub

from gleaner.app.context import AppContext
from gleaner.app.server import AppServer
from gleaner.app.services.auth_keys import KeyGrant
from gleaner.app.services.items_values import ItemFilter
from gleaner.app.settings import Settings
from gleaner.wire.package_signature import KEY_FIELD, SIGNATURE_FIELD, is_signed_by
from gleaner.wire.robot_config import from_proto

CONFIG = {"components": [{"name": "cam", "api": "rdk:component:camera", "model": "gleaner:camera:sim"}], "services": []}


@dataclass
class Machine:
    context: AppContext
    part_id: str
    channel: Channel
    metadata: dict[str, str]

    async def ask(self, stub: type, method: str, request: Any) -> Any:
        return await getattr(stub(self.channel), method)(request, metadata=self.metadata)  # type: ignore[call-arg]


@pytest_asyncio.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    async with AppServer(Settings(data_dir=tmp_path, port=0, grpc_port=0)) as server:
        context = server.context
        owner = context.auth.first_owner()
        [organization] = context.fleet.organizations(owner)
        [location] = context.fleet.locations(owner, organization.id)
        part_id = context.fleet.create_machine(owner, "rover", location.id).main.id
        context.fleet.put_config(owner, part_id, CONFIG, None)
        secret = context.fleet.new_secret(owner, part_id)
        channel = Channel("127.0.0.1", int(context.addresses.grpc.rsplit(":", 1)[1]))
        try:
            credentials = auth_pb2.Credentials(type="robot-secret", payload=secret)
            request = auth_pb2.AuthenticateRequest(entity=part_id, credentials=credentials)
            token = (await AuthServiceStub(channel).Authenticate(request)).access_token
            yield Machine(context, part_id, channel, {"authorization": f"Bearer {token}"})
        finally:
            channel.close()


async def test_config_is_what_the_owner_saved_with_what_viam_server_needs(machine: Machine) -> None:
    agent = pb.AgentInfo(host="pi", os="linux", version="1")
    answer = await machine.ask(RobotServiceStub, "Config", pb.ConfigRequest(id=machine.part_id, agent_info=agent))
    cloud = answer.config.cloud
    assert (cloud.id, cloud.signaling_insecure) == (machine.part_id, True)
    assert cloud.fqdn
    assert len(cloud.location_secrets) == 1
    [camera] = from_proto(answer.config)["components"]
    assert (camera["name"], camera["model"]) == ("cam", "gleaner:camera:sim")
    served = machine.context.fleet.configs.served(machine.part_id)
    assert answer.config.revision == served.revision
    part = machine.context.fleet.part(machine.context.auth.first_owner(), machine.part_id)
    assert (part.online_state, part.info["host"]) == ("online", "pi")


async def test_a_restart_is_handed_out_once(machine: Machine) -> None:
    request = pb.NeedsRestartRequest(id=machine.part_id)
    machine.context.fleet.request_restart(machine.context.auth.first_owner(), machine.part_id)
    answers = [(await machine.ask(RobotServiceStub, "NeedsRestart", request)).must_restart for _ in range(2)]
    assert answers == [True, False]


async def test_logs_arrive(machine: Machine) -> None:
    entries = [LogEntry(level="error", logger_name="rdk", message="broken lens", stack="line 1")]
    await machine.ask(RobotServiceStub, "Log", pb.LogRequest(id=machine.part_id, logs=entries))
    page = machine.context.logs.page(machine.context.auth.first_owner(), machine.part_id)
    assert [line.message for line in page.lines] == ["broken lens\nline 1"]


async def test_a_certificate_is_for_the_machines_names_and_stays(machine: Machine) -> None:
    request = pb.CertificateRequest(id=machine.part_id)
    first, second = [await machine.ask(RobotServiceStub, "Certificate", request) for _ in range(2)]
    assert first == second
    certificate = x509.load_pem_x509_certificate(first.tls_certificate.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize("metadata", [{}, {"authorization": "Bearer forged.token"}, {"authorization": "Basic x"}])
async def test_no_call_without_a_token(machine: Machine, metadata: dict[str, str]) -> None:
    machine.metadata = metadata
    with pytest.raises(GRPCError) as told:
        await machine.ask(RobotServiceStub, "Config", pb.ConfigRequest(id=machine.part_id))
    assert told.value.status is Status.UNAUTHENTICATED


async def test_a_machine_asks_only_for_itself(machine: Machine) -> None:
    with pytest.raises(GRPCError) as told:
        await machine.ask(RobotServiceStub, "Config", pb.ConfigRequest(id="another"))
    assert told.value.status is Status.NOT_FOUND
    metadata = sync_pb.UploadMetadata(part_id="another", type=sync_pb.DataType.DATA_TYPE_FILE)
    with pytest.raises(GRPCError) as told:
        await machine.ask(DataSyncServiceStub, "FileUpload", [sync_pb.FileUploadRequest(metadata=metadata)])
    assert told.value.status is Status.NOT_FOUND


def packets(machine: Machine, *pieces: bytes) -> list[sync_pb.FileUploadRequest]:
    metadata = sync_pb.UploadMetadata(part_id=machine.part_id, type=sync_pb.DataType.DATA_TYPE_FILE, file_name="a.txt")
    contents = [sync_pb.FileUploadRequest(file_contents=sync_pb.FileData(data=piece)) for piece in pieces]
    return [sync_pb.FileUploadRequest(metadata=metadata), *contents]


async def test_a_stream_in_many_packets_is_one_file(machine: Machine) -> None:
    pieces = [bytes([n]) * 70_000 for n in range(40)]
    answer = await machine.ask(DataSyncServiceStub, "FileUpload", packets(machine, *pieces))
    owner = machine.context.auth.first_owner()
    [item] = machine.context.items.by_ids(owner, [answer.binary_data_id])
    assert machine.context.items.content(owner, item.row).all() == b"".join(pieces)


async def test_a_stream_that_breaks_off_is_never_stored(machine: Machine, tmp_path: Path) -> None:
    for pieces in ([b"x" * 10], [b"x" * 3_000_000]):
        async with DataSyncServiceStub(machine.channel).FileUpload.open(metadata=machine.metadata) as stream:
            for packet in packets(machine, *pieces):
                await stream.send_message(packet)
            await stream.cancel()
    # A whole file behind the broken ones: when it is answered, theirs were dealt with.
    await machine.ask(DataSyncServiceStub, "FileUpload", packets(machine, b"whole"))
    count, size = machine.context.items.count(machine.context.auth.first_owner(), ItemFilter())
    assert (count, size) == (1, len(b"whole"))


async def test_an_empty_file_can_never_work(machine: Machine) -> None:
    with pytest.raises(GRPCError) as told:
        await machine.ask(DataSyncServiceStub, "FileUpload", packets(machine))
    assert told.value.status is Status.INVALID_ARGUMENT


async def test_packages_are_uploaded_listed_and_found(machine: Machine) -> None:
    context = machine.context
    owner = context.auth.first_owner()
    organization_id = context.fleet.organizations(owner)[0].id
    kind = packages_pb2.PackageType.PACKAGE_TYPE_ML_MODEL
    info = packages_pb2.PackageInfo(organization_id=organization_id, name="m", version="1.0", type=kind)
    upload = [
        packages_pb2.CreatePackageRequest(info=info),
        packages_pb2.CreatePackageRequest(contents=b"tar"),
        packages_pb2.CreatePackageRequest(contents=b"gz"),
    ]
    with pytest.raises(GRPCError) as told:
        await machine.ask(PackageServiceStub, "CreatePackage", upload)
    assert told.value.status is Status.PERMISSION_DENIED, "machines only fetch"

    key = context.api_keys.create(owner, organization_id, "k", [KeyGrant("owner", "organization", organization_id)])
    part, machine.metadata = machine.metadata, {"key_id": key.id, "key": key.key}
    made = await machine.ask(PackageServiceStub, "CreatePackage", upload)
    assert (made.id, made.version) == (f"{organization_id}/m", "1.0")
    machine.metadata = part
    request = packages_pb2.GetPackageRequest(id=made.id, version="latest", include_url=True)
    got = (await machine.ask(PackageServiceStub, "GetPackage", request)).package
    seal = [got.info.metadata[name] for name in (KEY_FIELD, SIGNATURE_FIELD)]
    assert is_signed_by(*seal, made.id, "1.0", hashlib.sha256(b"targz").digest())
    assert not is_signed_by(*seal, made.id, "1.0", hashlib.sha256(b"other").digest())
    assert not is_signed_by(*seal, made.id, "1.1", hashlib.sha256(b"targz").digest())
    assert got.url == f"{context.addresses.web}/api/packages/{organization_id}/m/1.0.tar.gz"
    package = context.packages.find(organization_id, "m")
    assert package is not None
    assert b"".join(context.packages.content(package)) == b"targz"
