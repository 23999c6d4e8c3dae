"""`viam.app.packages.v1.PackageService`."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from grpclib.server import Stream
from viam.gen.app.packages.v1 import packages_pb2 as pb
from viam.gen.app.packages.v1.packages_grpc import UnimplementedPackageServiceBase

from gleaner.app.caller import Caller
from gleaner.app.errors import InvalidInput
from gleaner.app.rpc.adapter import Service, streaming, timestamp, unary
from gleaner.app.services.packages import NewPackage, Package
from gleaner.wire import package_signature

_TYPES = {
    pb.PackageType.PACKAGE_TYPE_ARCHIVE: "archive",
    pb.PackageType.PACKAGE_TYPE_ML_MODEL: "ml_model",
    pb.PackageType.PACKAGE_TYPE_MODULE: "module",
    pb.PackageType.PACKAGE_TYPE_SLAM_MAP: "slam_map",
    pb.PackageType.PACKAGE_TYPE_ML_TRAINING: "ml_training",
}
_TYPES_BACK = {name: number for number, name in _TYPES.items()}


class PackageRpc(Service, UnimplementedPackageServiceBase):
    @streaming
    async def CreatePackage(self, caller: Caller, stream: Stream[Any, Any]) -> None:
        first = await stream.recv_message()
        if first is None or not first.HasField("info"):
            raise InvalidInput("the first message of a package is its info", "Send the info, then the contents.")
        info = first.info
        new = NewPackage(
            info.organization_id,
            info.name,
            info.version,
            _TYPES.get(info.type, "archive"),
            MessageToDict(info.metadata) if info.HasField("metadata") else {},
        )
        # Spooled first: a package is stored only once the client has said that it is complete.
        spool = await self.context.call(self.context.spool.create)
        try:
            async for message in stream:
                if message.contents:
                    await self.context.call(spool.append, message.contents)
            made = await self.context.call(self.context.packages.create, caller, new, spool.chunks())
        finally:
            await self.context.call(spool.discard)
        await stream.send_message(
            pb.CreatePackageResponse(id=f"{made.organization_id}/{made.name}", version=made.version)
        )

    @unary
    def GetPackage(self, caller: Caller, request: pb.GetPackageRequest) -> pb.GetPackageResponse:
        organization_id, name = _split(request.id)
        found = self.context.packages.get(caller, organization_id, name, request.version or "latest")
        answer = self._package(found)
        signer = self.context.package_signer
        answer.info.metadata.update(
            {package_signature.KEY_FIELD: signer.public, package_signature.SIGNATURE_FIELD: signer.signature(found)}
        )
        return pb.GetPackageResponse(package=answer)

    @unary
    def ListPackages(self, caller: Caller, request: pb.ListPackagesRequest) -> pb.ListPackagesResponse:
        found = self.context.packages.listed(
            caller,
            request.organization_id,
            name=request.name,
            version=request.version,
            type=_TYPES.get(request.type, "") if request.HasField("type") else "",
        )
        return pb.ListPackagesResponse(packages=[self._package(one) for one in found])

    @unary
    def DeletePackage(self, caller: Caller, request: pb.DeletePackageRequest) -> pb.DeletePackageResponse:
        organization_id, name = _split(request.id)
        self.context.packages.delete(caller, organization_id, name, request.version)
        return pb.DeletePackageResponse()

    def _package(self, one: Package) -> pb.Package:
        about = Struct()
        about.update(one.about)
        return pb.Package(
            id=f"{one.organization_id}/{one.name}",
            url=f"{self.context.addresses.web}{one.path}",
            created_on=timestamp(one.created_ns),
            checksum=one.checksum,
            info=pb.PackageInfo(
                organization_id=one.organization_id,
                name=one.name,
                version=one.version,
                type=_TYPES_BACK[one.type],
                metadata=about,
            ),
        )


def _split(package_id: str) -> tuple[str, str]:
    organization_id, slash, name = package_id.partition("/")
    if not slash or not name:
        raise InvalidInput(f"{package_id!r} is no package id", "It looks like <organization id>/<name>.")
    return organization_id, name
