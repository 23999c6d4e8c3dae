"""`viam.app.datasync.v1.DataSyncService`: uploads of unmodified clients and of viam-server.

An answer is sent only after the durable commit. A client stream that breaks off raises in grpclib, before anything was
handed to the store: half a file is never stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from grpclib import GRPCError, Status
from grpclib.server import Stream
from viam.gen.app.datasync.v1 import data_sync_pb2 as pb
from viam.gen.app.datasync.v1.data_sync_grpc import UnimplementedDataSyncServiceBase

from gleaner.app.caller import Caller
from gleaner.app.context import AppContext
from gleaner.app.errors import InvalidInput, NotFound
from gleaner.app.lately import Lately
from gleaner.app.rpc.adapter import Handle, Service, answering
from gleaner.app.services.auth import CREDENTIALS
from gleaner.app.services.fleet_values import Place
from gleaner.app.store.ingest import Receipt
from gleaner.app.store.payload import MemoryPayload
from gleaner.app.store.records import Upload
from gleaner.app.store.spool import SpoolFile
from gleaner.app.store.uploads import from_file, from_sensor_contents, from_stream

#: Below this an upload stays in memory, above it goes through the encrypted spool.
_IN_MEMORY_BYTES = 1 << 20
_QUICK_BYTES = 64 << 10


def uploading(method: Callable[[Any, Caller, Stream[Any, Any]], Awaitable[None]]) -> Handle:
    """As `streaming`, with a caller who was known within the last second known again."""

    async def handle(self: DataSyncRpc, stream: Stream[Any, Any]) -> None:
        async with answering(stream):
            await method(self, await self.known_caller(stream), stream)

    return handle


class DataSyncRpc(Service, UnimplementedDataSyncServiceBase):
    def __init__(self, context: AppContext) -> None:
        super().__init__(context)
        self._callers: Lately[tuple[str, ...], Caller] = Lately()
        self._places: Lately[tuple[Caller, str], Place] = Lately()

    async def known_caller(self, stream: Stream[Any, Any]) -> Caller:
        metadata: Mapping[str, Any] = stream.metadata or {}
        key = tuple(str(metadata.get(name, "")) for name in CREDENTIALS)
        caller = self._callers.get(key)
        if caller is None:
            caller = await self.context.call(self.caller, metadata)
            self._callers.put(key, caller)
        return caller

    @uploading
    async def DataCaptureUpload(self, caller: Caller, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        if request is None:
            raise GRPCError(Status.INVALID_ARGUMENT, "nothing was sent")
        place = await self._place(caller, request.metadata.part_id)
        build = partial(from_sensor_contents, request.metadata, request.sensor_contents, place, time.time_ns())
        # A picture is described in less time than a worker thread takes to begin.
        is_quick = len(request.sensor_contents) == 1 and 0 < len(request.sensor_contents[0].binary) <= _QUICK_BYTES
        receipt = await self._store(build() if is_quick else await self.context.call(build))
        await stream.send_message(
            pb.DataCaptureUploadResponse(file_id=receipt.file_id, binary_data_id=receipt.binary_data_id)
        )

    @uploading
    async def FileUpload(self, caller: Caller, stream: Stream[Any, Any]) -> None:
        first = await stream.recv_message()
        if first is None or first.WhichOneof("upload_packet") != "metadata":
            raise InvalidInput("the first packet of a file is its metadata", "Send the metadata, then the contents.")
        metadata = first.metadata
        place = await self._place(caller, metadata.part_id)
        body = _Body(self)
        try:
            async for packet in stream:
                if packet.WhichOneof("upload_packet") == "file_contents":
                    await body.add(packet.file_contents.data)
            upload = from_file(metadata, body.payload(), place, time.time_ns(), digest=body.digest())
        except BaseException:
            await body.discard()
            raise
        receipt = await self._store(upload)
        await stream.send_message(pb.FileUploadResponse(file_id=receipt.file_id, binary_data_id=receipt.binary_data_id))

    @uploading
    async def StreamingDataCaptureUpload(self, caller: Caller, stream: Stream[Any, Any]) -> None:
        first = await stream.recv_message()
        if first is None or first.WhichOneof("upload_packet") != "metadata":
            raise InvalidInput("the first packet of a capture is its metadata", "Send the metadata, then the data.")
        metadata = first.metadata.upload_metadata
        place = await self._place(caller, metadata.part_id)
        body = _Body(self)
        try:
            async for packet in stream:
                if packet.WhichOneof("upload_packet") == "data":
                    await body.add(packet.data)
            sensor = first.metadata.sensor_metadata
            upload = from_stream(metadata, sensor, body.payload(), place, time.time_ns(), digest=body.digest())
        except BaseException:
            await body.discard()
            raise
        receipt = await self._store(upload)
        await stream.send_message(
            pb.StreamingDataCaptureUploadResponse(file_id=receipt.file_id, binary_data_id=receipt.binary_data_id)
        )

    async def _place(self, caller: Caller, part_id: str) -> Place:
        place = self._places.get((caller, part_id))
        if place is None:
            place = await self.context.call(self._allowed_place, caller, part_id)
            self._places.put((caller, part_id), place)
        return place

    def _allowed_place(self, caller: Caller, part_id: str) -> Place:
        """A machine uploads as itself; keys upload for machines on which they have any role."""
        place = self.context.fleet.place(part_id or caller.part_id)
        if place is None:
            raise NotFound(f"there is no machine part {part_id!r}", "Copy the part's id from the machine's page.")
        if caller.part_id != place.part_id:
            caller.require(
                place.organization_id, place.location_id, place.machine_id, what=f"the machine {place.machine_name}"
            )
        return place

    async def _store(self, upload: Upload) -> Receipt:
        return await asyncio.wrap_future(self.context.ingest.submit(upload))


class _Body:
    """The bytes of one streamed upload: in memory while they are few, then in the spool."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._digest = hashlib.sha256()
        self._pieces: list[bytes] = []
        self._size = 0
        self._spooled: SpoolFile | None = None

    async def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _IN_MEMORY_BYTES:
            pieces, self._pieces, self._size = self._pieces, [], 0
            await self._service.context.call(self._spool, pieces)

    def payload(self) -> MemoryPayload | SpoolFile:
        if self._spooled is None:
            data = b"".join(self._pieces)
            self._digest.update(data)
            return MemoryPayload(data)
        self._spool(self._pieces)
        self._pieces = []
        return self._spooled

    def digest(self) -> bytes:
        return self._digest.digest()

    async def discard(self) -> None:
        if self._spooled is not None:
            spooled, self._spooled = self._spooled, None
            await self._service.context.call(spooled.discard)

    def _spool(self, pieces: list[bytes]) -> None:
        if self._spooled is None:
            self._spooled = self._service.context.spool.create()
        # One frame of the spool per piece of at most 1 MiB: it is read back frame by frame.
        for piece in pieces:
            for start in range(0, len(piece), _IN_MEMORY_BYTES):
                self._spooled.append(piece[start : start + _IN_MEMORY_BYTES])
            self._digest.update(piece)
