"""Trained models as registry items, private to their organization."""

from __future__ import annotations

from viam.gen.app.mltraining.v1 import ml_training_pb2 as training
from viam.gen.app.packages.v1 import packages_pb2 as packages
from viam.gen.app.v1 import app_pb2 as pb

from gleaner.app.caller import Caller
from gleaner.app.errors import InvalidInput, NotFound
from gleaner.app.rpc.adapter import Service, timestamp, unary
from gleaner.app.services.packages import ML_MODEL, Package

_ML_MODEL = packages.PackageType.PACKAGE_TYPE_ML_MODEL


class RegistryMethods(Service):
    @unary
    def GetRegistryItem(self, caller: Caller, request: pb.GetRegistryItemRequest) -> pb.GetRegistryItemResponse:
        organization_id, colon, name = request.item_id.partition(":")
        if not colon:
            raise InvalidInput(f"{request.item_id!r} is no item id", "It looks like <organization id>:<name>.")
        versions = self.context.packages.listed(caller, organization_id, name=name, type=ML_MODEL)
        if not versions:
            raise NotFound(f"there is no model {name}", "List the registry items of the organization.")
        return pb.GetRegistryItemResponse(item=_item(versions))

    @unary
    def ListRegistryItems(self, caller: Caller, request: pb.ListRegistryItemsRequest) -> pb.ListRegistryItemsResponse:
        """Everything is in one page; nothing but models is kept here."""
        wanted = not request.types or _ML_MODEL in request.types
        if request.page_token or not wanted:
            return pb.ListRegistryItemsResponse()
        own = caller.organization_ids()
        of = [request.organization_id] if request.organization_id else sorted(own)
        models: dict[tuple[str, str], list[Package]] = {}
        for organization_id in of:
            for package in self.context.packages.listed(caller, organization_id, type=ML_MODEL):
                if request.search_term.lower() in package.name.lower():
                    models.setdefault((organization_id, package.name), []).append(package)
        return pb.ListRegistryItemsResponse(items=[_item(versions) for versions in models.values()])


def _item(versions: list[Package]) -> pb.RegistryItem:
    """`versions` newest first."""
    newest, oldest = versions[0], versions[-1]
    kind = str(newest.about.get("model_type", "")).upper()
    known = training.ModelType.keys()
    model_type = training.ModelType.Value(f"MODEL_TYPE_{kind}") if f"MODEL_TYPE_{kind}" in known else 0
    return pb.RegistryItem(
        item_id=f"{newest.organization_id}:{newest.name}",
        organization_id=newest.organization_id,
        name=newest.name,
        type=_ML_MODEL,
        visibility=pb.Visibility.VISIBILITY_PRIVATE,
        created_at=timestamp(oldest.created_ns),
        updated_at=timestamp(newest.created_ns),
        ml_model_metadata=pb.MLModelMetadata(
            versions=[one.version for one in versions],
            model_type=model_type,
            model_framework=training.ModelFramework.MODEL_FRAMEWORK_ONNX,
            detailed_versions=[
                pb.MLModelVersion(version=one.version, created_on=timestamp(one.created_ns)) for one in versions
            ],
        ),
    )
