"""`viam.app.v1.AppService`: the fleet as SDK clients see it, put together from one file per subject."""

from __future__ import annotations

from viam.gen.app.v1.app_grpc import UnimplementedAppServiceBase

from gleaner.app.rpc.app_fleet import FleetMethods
from gleaner.app.rpc.app_keys import KeyMethods
from gleaner.app.rpc.app_parts import PartMethods
from gleaner.app.rpc.app_registry import RegistryMethods


class AppRpc(FleetMethods, PartMethods, KeyMethods, RegistryMethods, UnimplementedAppServiceBase):
    pass
