"""The data manager's interface as a Viam service; viam-sdk has only protobuf messages for it.

Its gRPC door is `machine/rpc/data_manager.py`. Errors are gRPC errors, so that their words reach the caller whole.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from grpclib import GRPCError, Status
from viam.resource.types import API as ResourceAPI
from viam.services.service_base import ServiceBase


class NotSynced(GRPCError):
    """A sync or an upload did not happen; the message says why and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(Status.UNAVAILABLE, message)


class NothingToUpload(GRPCError):
    """The upload has no bytes."""

    def __init__(self) -> None:
        super().__init__(Status.INVALID_ARGUMENT, "binary_data is empty: there is nothing to upload")


class DataManagerService(ServiceBase):
    """What `rdk:service:data_manager` offers."""

    API: ClassVar[ResourceAPI] = ResourceAPI("rdk", "service", "data_manager")

    @abc.abstractmethod
    async def sync(self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None) -> None:
        """Sends everything captured so far; returns when the app has it. Raises NotSynced."""

    @abc.abstractmethod
    async def upload_binary_data_to_datasets(
        self,
        binary_data: bytes,
        tags: Sequence[str],
        dataset_ids: Sequence[str],
        mime_type: str,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Puts one picture (or other file) into datasets; returns when the app has it.

        Raises NotSynced, NothingToUpload.
        """

    @abc.abstractmethod
    def ledger(self) -> dict[str, Any]:
        """The Ledger of docs/architecture.md; cheap."""

    @abc.abstractmethod
    def hours(self, hours: int) -> list[dict[str, Any]]:
        """The ledger of the last hours, see `hours.py`. Blocking."""

    async def do_command(
        self, command: Mapping[str, Any], *, timeout: float | None = None, **kwargs: Any
    ) -> Mapping[str, Any]:
        """`{"ledger": {}}` and `{"ledger": {"hours": 24}}`."""
        match command:
            case {"ledger": {"hours": int() | float() as hours}}:
                return {"hours": await asyncio.to_thread(self.hours, int(hours))}
            case {"ledger": _}:
                return {"ledger": self.ledger()}
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f'the data manager does not know the command {dict(command)}: it knows {{"ledger": {{"hours": 24}}}}',
        )
