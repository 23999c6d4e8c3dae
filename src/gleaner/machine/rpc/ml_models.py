"""The ML model service of viam-sdk, imported with the first request for one: it brings numpy, eleven megabytes."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from viam.proto.service.mlmodel import MLModelServiceBase
from viam.resource.manager import ResourceManager

MLMODEL_API = "rdk:service:mlmodel"
_MODULE = "viam.services.mlmodel"


def import_mlmodel() -> Any:
    """Registers the API with viam-sdk, at the latest when a machine gets its first ML model."""
    return import_module(_MODULE)


class MLModels(MLModelServiceBase):
    def __init__(self, resources: ResourceManager) -> None:
        self._resources = resources
        self._service: MLModelServiceBase | None = None

    async def Infer(self, stream: Any) -> None:
        await (await self._real()).Infer(stream)

    async def Metadata(self, stream: Any) -> None:
        await (await self._real()).Metadata(stream)

    async def GetStatus(self, stream: Any) -> None:
        await (await self._real()).GetStatus(stream)

    async def _real(self) -> MLModelServiceBase:
        service = self._service
        if service is None:
            module = await asyncio.to_thread(import_mlmodel)
            service = self._service = module.MLModelRPCService(self._resources)
        return service
