"""Which gRPC service serves which API, and which of its methods move something."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from google.protobuf import descriptor_pool
from viam.gen.common.v1.common_pb2 import safety_heartbeat_monitored
from viam.resource.manager import ResourceManager
from viam.resource.registry import Registry

from gleaner.machine.rpc.data_manager import DATA_MANAGER_API, DATA_MANAGER_SERVICE
from gleaner.machine.rpc.ml_models import MLMODEL_API, MLModels

# Importing one of these registers its API with viam-sdk.
_COMPONENTS = (
    "arm audio_in audio_out base board button camera encoder gantry generic gripper input motor "
    "movement_sensor pose_tracker power_sensor sensor servo switch"
)
# Not here: mlmodel, see `ml_models.py`.
_SERVICES = "discovery generic motion navigation slam vision worldstatestore"


@cache
def import_apis() -> None:
    for name in _COMPONENTS.split():
        import_module(f"viam.components.{name}")
    for name in _SERVICES.split():
        import_module(f"viam.services.{name}")


def make_services(resources: ResourceManager) -> dict[str, Any]:
    """By API, what answers the requests of viam-sdk's own APIs."""
    import_apis()
    made = {str(api): one.rpc_service(resources) for api, one in Registry.REGISTERED_APIS().items()}
    return {**made, MLMODEL_API: MLModels(resources)}


@cache
def service_apis() -> Mapping[str, str]:
    """`viam.component.base.v1.BaseService` → `rdk:component:base`, for everything that this machine can serve."""
    found = {DATA_MANAGER_SERVICE: DATA_MANAGER_API}
    for api, service in make_services(ResourceManager()).items():
        for path in service.__mapping__():
            found[path.split("/")[1]] = api
    return found


@cache
def is_safety_monitored(method: str) -> bool:
    """Whether a method (`/package.Service/Method`) moves something that must stop when its caller goes silent."""
    _, service, name = method.split("/")
    try:
        descriptor = descriptor_pool.Default().FindServiceByName(service).FindMethodByName(name)
    except KeyError:
        return False
    return bool(descriptor.GetOptions().Extensions[safety_heartbeat_monitored])
