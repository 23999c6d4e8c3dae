"""Trained models and training scripts as registry items, private to their organization."""

from __future__ import annotations

from viam.gen.app.mltraining.v1 import ml_training_pb2 as training
from viam.gen.app.packages.v1 import packages_pb2 as packages
from viam.gen.app.v1 import app_pb2 as pb

from gleaner.app.caller import Caller
from gleaner.app.errors import InvalidInput, NotFound
from gleaner.app.rpc.adapter import Service, timestamp, unary
from gleaner.app.services.packages import ML_MODEL, ML_TRAINING, Package

_TYPES = {
    ML_MODEL: packages.PackageType.PACKAGE_TYPE_ML_MODEL,
    ML_TRAINING: packages.PackageType.PACKAGE_TYPE_ML_TRAINING,
}


class RegistryMethods(Service):
    @unary
    def GetRegistryItem(self, caller: Caller, request: pb.GetRegistryItemRequest) -> pb.GetRegistryItemResponse:
        return pb.GetRegistryItemResponse(item=_item(self._versions(caller, request.item_id)))

    @unary
    def ListRegistryItems(self, caller: Caller, request: pb.ListRegistryItemsRequest) -> pb.ListRegistryItemsResponse:
        """Everything is in one page; nothing but models and training scripts is kept here."""
        if request.page_token:
            return pb.ListRegistryItemsResponse()
        own = caller.organization_ids()
        of = [request.organization_id] if request.organization_id else sorted(own)
        items: dict[tuple[str, str, str], list[Package]] = {}
        for organization_id in of:
            for kind, number in _TYPES.items():
                if request.types and number not in request.types:
                    continue
                for package in self.context.packages.listed(caller, organization_id, type=kind):
                    if request.search_term.lower() in package.name.lower():
                        items.setdefault((organization_id, kind, package.name), []).append(package)
        return pb.ListRegistryItemsResponse(items=[_item(versions) for versions in items.values()])

    @unary
    def DeleteRegistryItem(
        self, caller: Caller, request: pb.DeleteRegistryItemRequest
    ) -> pb.DeleteRegistryItemResponse:
        """All versions. Machines keep what they run, and models what scripts made."""
        self._versions(caller, request.item_id)
        self.context.packages.delete(caller, *split_item_id(request.item_id))
        return pb.DeleteRegistryItemResponse()

    def _versions(self, caller: Caller, item_id: str) -> list[Package]:
        organization_id, name = split_item_id(item_id)
        found = self.context.packages.listed(caller, organization_id, name=name)
        versions = [one for one in found if one.type in _TYPES]
        if not versions:
            raise NotFound(
                f"there is no model or training script {name}", "List the registry items of the organization."
            )
        return [one for one in versions if one.type == versions[0].type]


def split_item_id(item_id: str) -> tuple[str, str]:
    """(organization, name)"""
    organization_id, colon, name = item_id.partition(":")
    if not colon:
        raise InvalidInput(f"{item_id!r} is no item id", "It looks like <organization id>:<name>.")
    return organization_id, name


def _item(versions: list[Package]) -> pb.RegistryItem:
    """`versions` newest first."""
    newest, oldest = versions[0], versions[-1]
    return pb.RegistryItem(
        item_id=f"{newest.organization_id}:{newest.name}",
        organization_id=newest.organization_id,
        name=newest.name,
        type=_TYPES[newest.type],
        visibility=pb.Visibility.VISIBILITY_PRIVATE,
        created_at=timestamp(oldest.created_ns),
        updated_at=timestamp(newest.created_ns),
        ml_model_metadata=_model(versions) if newest.type == ML_MODEL else None,
        ml_training_metadata=_script(versions) if newest.type == ML_TRAINING else None,
    )


def _model(versions: list[Package]) -> pb.MLModelMetadata:
    framework = str(versions[0].about.get("model_framework", "")) or "onnx"
    return pb.MLModelMetadata(
        versions=[one.version for one in versions],
        model_type=_model_type(versions[0]),
        model_framework=_framework(framework),
        detailed_versions=[
            pb.MLModelVersion(version=one.version, created_on=timestamp(one.created_ns)) for one in versions
        ],
    )


def _script(versions: list[Package]) -> pb.MLTrainingMetadata:
    about = versions[0].about
    return pb.MLTrainingMetadata(
        versions=[pb.MLTrainingVersion(version=one.version, created_on=timestamp(one.created_ns)) for one in versions],
        model_type=_model_type(versions[0]),
        model_framework=_framework(str(about.get("model_framework", ""))),
        draft=about.get("draft") is True,
    )


def _model_type(package: Package) -> training.ModelType.ValueType:
    known, name = training.ModelType.keys(), f"MODEL_TYPE_{str(package.about.get('model_type', '')).upper()}"
    return training.ModelType.Value(name) if name in known else training.ModelType.MODEL_TYPE_UNSPECIFIED


def _framework(word: str) -> training.ModelFramework.ValueType:
    known, name = training.ModelFramework.keys(), f"MODEL_FRAMEWORK_{word.upper()}"
    return training.ModelFramework.Value(name) if name in known else training.ModelFramework.MODEL_FRAMEWORK_UNSPECIFIED
