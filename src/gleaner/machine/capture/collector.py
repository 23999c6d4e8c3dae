"""One captured method of one resource: asks on schedule, encodes, hands the records to the writer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.struct_pb2 import Value
from grpclib import GRPCError, Status
from viam.errors import NoCaptureToStoreError
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.directory import collector_path
from gleaner.machine.capture.methods import Call, Captured, Method
from gleaner.machine.capture.schedule import next_due
from gleaner.machine.capture.writer import Channel, Record, Writer
from gleaner.wire.capture_file import encode_header
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary, encode_value

VETO_TEXT = "no capture from filter module"
# A driver that is silent for so long is shown as stuck. Nothing else happens: it may answer yet.
STUCK_AFTER_S = 10.0
STOP_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class CollectorSettings:
    """Everything that makes a collector what it is. Equal settings and the same resource: the collector goes on."""

    api: str
    resource: str
    method: str
    frequency_hz: float
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    queue_size: int = 250
    rotate_bytes: int = 262_144
    lookup: str = ""
    """Name of the resource in this machine where it is not `resource`: `r1:cam` for camera `cam` of remote r1."""

    @property
    def directory(self) -> str:
        return collector_path(self.api, self.resource, self.method)


@dataclass(frozen=True)
class Clock:
    wall_ns: Callable[[], int] = time.time_ns
    monotonic_s: Callable[[], float] = time.monotonic


class Collector:
    """Lives on the machine's event loop: `start() → running → stop()`."""

    def __init__(
        self, settings: CollectorSettings, resource: Any, method: Method, writer: Writer, log: logging.Logger
    ) -> None:
        self.settings = settings
        self.resource = resource
        self.error = ""
        self.skipped_ticks = 0
        self._method = method
        self._writer = writer
        self._log = log
        self._clock = Clock()
        self._encoder = ReadingEncoder()
        self._headers: dict[tuple[str, str], bytes] = {}
        self._task: asyncio.Task[None] | None = None
        self._asking_since_s: float | None = None
        self._channel: Channel = writer.open_channel(
            settings.directory,
            is_binary=method.is_binary,
            rotate_bytes=settings.rotate_bytes,
            queue_limit=max(1, settings.queue_size),
        )

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"capture {self.settings.directory}")

    async def stop(self) -> None:
        """Ends capturing and completes the open file. A driver that ignores its cancellation is left behind."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=STOP_TIMEOUT_S)
        await asyncio.wrap_future(self._writer.finish(self._channel))

    @property
    def last_error(self) -> str:
        if self._asking_since_s is not None:
            silent_s = self._clock.monotonic_s() - self._asking_since_s
            if silent_s > max(STUCK_AFTER_S, 3 / self.settings.frequency_hz):
                return f"the driver has not answered for {silent_s:.0f} s"
        return self.error or self._writer.error_of(self.settings.directory)

    # --- on the loop -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        interval_s = 1 / self.settings.frequency_hz
        due_s = self._clock.monotonic_s() + interval_s
        while True:
            await asyncio.sleep(max(0.0, due_s - self._clock.monotonic_s()))
            await self._tick()
            due = next_due(due_s, self._clock.monotonic_s(), interval_s)
            due_s, self.skipped_ticks = due.at_s, self.skipped_ticks + due.skipped

    async def _tick(self) -> None:
        requested_ns = self._clock.wall_ns()
        self._asking_since_s = self._clock.monotonic_s()
        try:
            captured = await self._method.read(Call(self.resource, self.settings.params))
            self._submit(requested_ns, self._clock.wall_ns(), captured)
        except NoCaptureToStoreError:
            return  # the driver's filter: nothing worth keeping this time
        except Exception as error:  # noqa: BLE001 (the top of this task: whatever a driver raises, the next tick tries again)
            if not _is_veto(error):
                self._failed(error)
            return
        finally:
            self._asking_since_s = None
        self._worked()

    def _submit(self, requested_ns: int, now_ns: int, captured: Captured) -> None:
        if isinstance(captured, Mapping):
            body = self._encoder.encode(requested_ns, now_ns, captured)
            self._writer.submit(self._channel, Record(self._header("", ".dat"), (body,), len(body)))
            return
        for blob in captured:
            received_ns = now_ns if blob.received_ns is None else blob.received_ns
            parts = encode_binary(requested_ns, received_ns, bytes(blob.payload), blob.annotations)
            header = self._header(blob.mime_type, blob.extension)
            self._writer.submit(self._channel, Record(header, parts, len(blob.payload)))

    def _header(self, mime_type: str, extension: str) -> bytes:
        header = self._headers.get((mime_type, extension))
        if header is None:
            header = encode_header(capture_metadata(self.settings, self._method.is_binary, mime_type, extension))
            self._headers[mime_type, extension] = header
        return header

    def _failed(self, error: Exception) -> None:
        message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if message != self.error:
            self._log.warning("cannot capture %s of %s: %s", self.settings.method, self.settings.resource, message)
        self.error = message

    def _worked(self) -> None:
        if self.error:
            self._log.info("%s of %s is captured again", self.settings.method, self.settings.resource)
            self.error = ""


def _is_veto(error: Exception) -> bool:
    """The driver's veto as it arrives from a module, over gRPC."""
    return (
        isinstance(error, GRPCError)
        and error.status is Status.FAILED_PRECONDITION
        and VETO_TEXT in (error.message or "")
    )


def capture_metadata(
    settings: CollectorSettings, is_binary: bool, mime_type: str, extension: str
) -> DataCaptureMetadata:
    kind = DataType.DATA_TYPE_BINARY_SENSOR if is_binary else DataType.DATA_TYPE_TABULAR_SENSOR
    metadata = DataCaptureMetadata(
        component_type=settings.api,
        component_name=settings.resource,
        method_name=settings.method,
        type=kind,
        file_extension=extension,
        tags=settings.tags,
        mime_type=mime_type,
    )
    for name, value in settings.params.items():
        packed = AnyMessage()
        packed.Pack(Value.FromString(encode_value(value)))
        metadata.method_parameters[name].CopyFrom(packed)
    return metadata


def combined_tags(*groups: Sequence[str]) -> tuple[str, ...]:
    """The tags of the service, then those of the method, each once."""
    return tuple(dict.fromkeys(tag for group in groups for tag in group))


async def stop_all(collectors: Sequence[Collector]) -> None:
    """Stops them side by side: one that hangs must not delay the others."""
    await asyncio.gather(*(collector.stop() for collector in collectors))
