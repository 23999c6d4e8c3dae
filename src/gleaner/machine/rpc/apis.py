"""Which gRPC service serves which API, and which of its methods move something."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from google.protobuf import descriptor_pool
from viam.gen.common.v1.common_pb2 import safety_heartbeat_monitored
from viam.resource.manager import ResourceManager
from viam.resource.registry import Registry

from gleaner.machine.rpc.data_manager import DATA_MANAGER_API, DATA_MANAGER_SERVICE

# Importing one of these registers its API with viam-sdk.
_COMPONENTS = (
    "arm audio_in audio_out base board button camera encoder gantry generic gripper input motor "
    "movement_sensor pose_tracker power_sensor sensor servo switch"
)
_SERVICES = "discovery generic mlmodel motion navigation slam vision worldstatestore"


@cache
def import_apis() -> None:
    for name in _COMPONENTS.split():
        import_module(f"viam.components.{name}")
    for name in _SERVICES.split():
        import_module(f"viam.services.{name}")


@cache
def service_apis() -> Mapping[str, str]:
    """`viam.component.base.v1.BaseService` → `rdk:component:base`, for everything that this machine can serve."""
    import_apis()
    nothing = ResourceManager()
    found = {DATA_MANAGER_SERVICE: DATA_MANAGER_API}
    for api, registration in Registry.REGISTERED_APIS().items():
        for path in registration.rpc_service(nothing).__mapping__():
            found[path.split("/")[1]] = str(api)
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
