"""Trained models and training scripts as registry items, private to their organization."""

from __future__ import annotations

from viam.gen.app.mltraining.v1 import ml_training_pb2 as training
from viam.gen.app.packages.v1 import packages_pb2 as packages
from viam.gen.app.v1 import app_pb2 as pb

from gleaner.app.caller import Caller
from gleaner.app.errors import InvalidInput, Unsupported
from gleaner.app.rpc.adapter import Service, timestamp, unary
from gleaner.app.services.packages import ML_MODEL, ML_TRAINING, Package
from gleaner.app.services.registry_items import RegistryItem, RegistryItems

_TYPES = {
    ML_MODEL: packages.PackageType.PACKAGE_TYPE_ML_MODEL,
    ML_TRAINING: packages.PackageType.PACKAGE_TYPE_ML_TRAINING,
}
_NAMES = {number: name for name, number in _TYPES.items()}


class RegistryMethods(Service):
    @unary
    def GetRegistryItem(self, caller: Caller, request: pb.GetRegistryItemRequest) -> pb.GetRegistryItemResponse:
        return pb.GetRegistryItemResponse(item=_item(self._items.get(caller, *split_item_id(request.item_id))))

    @unary
    def ListRegistryItems(self, caller: Caller, request: pb.ListRegistryItemsRequest) -> pb.ListRegistryItemsResponse:
        """Everything is in one page; nothing but models and training scripts is kept here."""
        private = pb.Visibility.VISIBILITY_PRIVATE
        if request.page_token or (request.visibilities and private not in request.visibilities):
            return pb.ListRegistryItemsResponse()
        own = caller.organization_ids()
        of = [request.organization_id] if request.organization_id else sorted(own)
        wanted, search = [_NAMES[one] for one in request.types if one in _NAMES], request.search_term.lower()
        found = [
            item
            for organization_id in of
            for item in self._items.listed(caller, organization_id)
            if (item.type in wanted or not request.types)
            and (search in item.name.lower() or search in item.description.lower())
        ]
        return pb.ListRegistryItemsResponse(items=[_item(one) for one in found])

    @unary
    def CreateRegistryItem(
        self, caller: Caller, request: pb.CreateRegistryItemRequest
    ) -> pb.CreateRegistryItemResponse:
        """A name to upload versions under; the description comes with an update."""
        self._items.create(caller, request.organization_id, request.name, _NAMES.get(request.type, ""))
        return pb.CreateRegistryItemResponse()

    @unary
    def UpdateRegistryItem(
        self, caller: Caller, request: pb.UpdateRegistryItemRequest
    ) -> pb.UpdateRegistryItemResponse:
        if request.visibility not in (pb.Visibility.VISIBILITY_UNSPECIFIED, pb.Visibility.VISIBILITY_PRIVATE):
            raise Unsupported(
                "This app has no public registry: what it keeps is its organization's alone",
                "Send VISIBILITY_PRIVATE. To pass a model on, download it and upload it there.",
            )
        url = request.url if request.HasField("url") else None
        organization_id, name = split_item_id(request.item_id)
        self._items.update(caller, organization_id, name, _NAMES.get(request.type, ""), request.description, url)
        return pb.UpdateRegistryItemResponse()

    @unary
    def DeleteRegistryItem(
        self, caller: Caller, request: pb.DeleteRegistryItemRequest
    ) -> pb.DeleteRegistryItemResponse:
        self._items.delete(caller, *split_item_id(request.item_id))
        return pb.DeleteRegistryItemResponse()

    @property
    def _items(self) -> RegistryItems:
        return self.context.registry_items


def split_item_id(item_id: str) -> tuple[str, str]:
    """(organization, name)"""
    organization_id, colon, name = item_id.partition(":")
    if not colon:
        raise InvalidInput(f"{item_id!r} is no item id", "It looks like <organization id>:<name>.")
    return organization_id, name


def _item(item: RegistryItem) -> pb.RegistryItem:
    versions = list(item.versions)
    return pb.RegistryItem(
        item_id=f"{item.organization_id}:{item.name}",
        organization_id=item.organization_id,
        name=item.name,
        type=_TYPES[item.type],
        visibility=pb.Visibility.VISIBILITY_PRIVATE,
        url=item.url,
        description=item.description,
        created_at=timestamp(item.created_ns),
        updated_at=timestamp(item.updated_ns),
        ml_model_metadata=_model(versions) if item.type == ML_MODEL else None,
        ml_training_metadata=_script(versions) if item.type == ML_TRAINING else None,
    )


def _model(versions: list[Package]) -> pb.MLModelMetadata:
    if not versions:
        return pb.MLModelMetadata()
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
    if not versions:
        return pb.MLTrainingMetadata()
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
