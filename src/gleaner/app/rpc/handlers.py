"""Every gRPC service of the app: Viam's `viam.app.*` as unmodified SDK clients and machines call it."""

from __future__ import annotations

from typing import Any

# The generated bases name their messages' modules without importing them.
import viam.gen.app.mlinference.v1.ml_inference_pb2
import viam.gen.app.v1.billing_pb2
import viam.gen.app.v1.end_user_pb2  # noqa: F401
from viam.gen.app.mlinference.v1.ml_inference_grpc import UnimplementedMLInferenceServiceBase
from viam.gen.app.v1.billing_grpc import UnimplementedBillingServiceBase
from viam.gen.app.v1.end_user_grpc import UnimplementedEndUserServiceBase

from gleaner.app.context import AppContext
from gleaner.app.rpc.adapter import named
from gleaner.app.rpc.app import AppRpc
from gleaner.app.rpc.auth import AuthRpc
from gleaner.app.rpc.data import DataRpc
from gleaner.app.rpc.data_pipelines import DataPipelinesRpc
from gleaner.app.rpc.datasets import DatasetRpc
from gleaner.app.rpc.datasync import DataSyncRpc
from gleaner.app.rpc.packages import PackageRpc
from gleaner.app.rpc.robot import RobotRpc
from gleaner.app.rpc.training import TrainingRpc

_SERVICES = (AuthRpc, RobotRpc, AppRpc, DataSyncRpc, DataRpc, DataPipelinesRpc, DatasetRpc, TrainingRpc, PackageRpc)
# Known to clients, not to us: registered so that the answer names the method.
_MISSING = (
    UnimplementedBillingServiceBase,
    UnimplementedEndUserServiceBase,
    UnimplementedMLInferenceServiceBase,
)


def build_handlers(context: AppContext) -> list[Any]:
    return [named(service(context)) for service in _SERVICES] + [named(base()) for base in _MISSING]
