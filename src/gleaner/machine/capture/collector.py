"""One captured method of one resource: asks on schedule, encodes, hands the records to the writer."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.struct_pb2 import Value
from grpclib import GRPCError, Status
from viam.errors import NoCaptureToStoreError
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture.blame import where_is
from gleaner.machine.capture.channel import Channel, Record
from gleaner.machine.capture.directory import collector_path
from gleaner.machine.capture.methods import Call, Captured, Method, is_instant
from gleaner.machine.capture.schedule import CLOSEST_SHARE, Lateness
from gleaner.machine.capture.scheduler import Scheduler
from gleaner.machine.capture.writer import Writer
from gleaner.wire.capture_file import encode_header
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary, encode_value
from gleaner.wire.world_pose import Frames

QUEUE_SIZE = 250
VETO_TEXT = "no capture from filter module"
# A driver that is silent for so long is shown as stuck. Nothing else happens: it may answer yet.
STUCK_AFTER_S = 10.0
STOP_TIMEOUT_S = 2.0
# An instant read that takes longer, three times running, goes on in a thread of its own: it would cost the others ticks.
SLOW_INSTANT_NS = 10_000_000
SLOW_READS = 3
# A coroutine that keeps the event loop for so long is named: everything on the machine waits for it.
BLOCKING_AFTER_S = 1.0


@dataclass(frozen=True)
class CollectorSettings:
    """Everything that makes a collector what it is. Equal settings and the same resource: the collector goes on."""

    api: str
    resource: str
    method: str
    frequency_hz: float
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    queue_size: int = QUEUE_SIZE
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
    """`start() → running → stop()`, both on the machine's event loop.

    A tick runs where it disturbs nobody: instant reads (`Method.read_now`) in the scheduler's clock thread, viam-sdk's
    coroutines on the event loop, and an instant read that turned out slow in a thread of its own. At most one at a time.
    """

    def __init__(
        self,
        settings: CollectorSettings,
        resource: Any,
        method: Method,
        writer: Writer,
        scheduler: Scheduler,
        log: logging.Logger,
        frames: Callable[[], Frames] = dict,
    ) -> None:
        self.settings = settings
        self.resource = resource
        self.error = ""
        self.skipped_ticks = 0
        """Left out because the driver or the machine was late."""
        self.vetoed = 0
        """Readings that the driver's own filter did not want kept."""
        self.lateness = Lateness()
        self._method = method
        self._read_now = method.read_now if is_instant(resource) else None
        self._writer = writer
        self._scheduler = scheduler
        self._log = log
        self._clock = Clock()
        self._interval_s = 1 / settings.frequency_hz
        self._call = Call(resource, settings.params, self._interval_s, frames, settings.lookup or settings.resource)
        self._closest_s = self._interval_s * CLOSEST_SHARE
        self._encoder = ReadingEncoder()
        self._headers: dict[tuple[str, str], bytes] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._task: asyncio.Task[None] | None = None
        self._own_thread: ThreadPoolExecutor | None = None
        self._is_busy = False
        self._is_stopped = False
        self._began_s = -math.inf
        self._asking_since_s: float | None = None
        self._blocks = ""
        self._slow_reads = 0
        self._channel: Channel = writer.open_channel(
            settings.directory,
            is_binary=method.is_binary,
            rotate_bytes=settings.rotate_bytes,
            queue_limit=max(1, settings.queue_size),
        )

    def start(self) -> None:
        if self._loop is None:
            self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
            self._scheduler.add(self, self._interval_s)

    async def stop(self) -> None:
        """Ends capturing and completes the open file. A driver that ignores its cancellation is left behind."""
        if not self._is_stopped:
            self._is_stopped = True
            # Waits for an instant read that is under way, a moment at most.
            self._scheduler.remove(self)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=STOP_TIMEOUT_S)
        if self._own_thread is not None:
            self._own_thread.shutdown(wait=False, cancel_futures=True)
        await asyncio.wrap_future(self._writer.finish(self._channel))

    @property
    def last_error(self) -> str:
        since_s = self._asking_since_s
        if since_s is not None:
            silent_s = self._clock.monotonic_s() - since_s
            if silent_s > max(STUCK_AFTER_S, 3 * self._interval_s):
                return (
                    f"the driver of {self.settings.resource} has not answered for {silent_s:.0f} s: "
                    "check its cable or power, or restart the machine"
                )
        return self._blocks or self.error or self._writer.error_of(self.settings.directory)

    # --- in the scheduler's threads ----------------------------------------------------------------------------------

    def due(self, at_s: float) -> None:
        if self._is_busy:
            self.skip(1)
            return
        self._is_busy = True
        if self._read_now is not None and self._own_thread is None:
            self._instant_tick(at_s)
            return
        try:
            if self._own_thread is not None:
                self._own_thread.submit(self._instant_tick, at_s)
            elif self._loop is not None:
                self._loop.call_soon_threadsafe(self._begin, at_s)
        except RuntimeError:  # the loop or the thread has ended: so has this collector, or it is about to
            self._is_busy = False

    def skip(self, ticks: int) -> None:
        self.skipped_ticks += ticks

    def hung(self) -> None:
        # Busy already, until the read returns. That may be now: set here, the flag could stay for ever.
        self._move_to_own_thread()

    def watch(self, now_s: float) -> None:
        """Names the driver that keeps the whole event loop from running: its coroutine computes or waits in it."""
        since_s = self._asking_since_s
        if since_s is None or now_s - since_s < BLOCKING_AFTER_S or self._read_now is not None:
            return
        where = where_is(self._loop_thread, self)
        if where is None:
            return
        if not self._blocks:
            self._blocks = (
                f"the driver of {self.settings.resource} blocks the whole machine in {where}: "
                "it must await there, or use asyncio.to_thread"
            )
            self._log.error("%s", self._blocks)

    def _move_to_own_thread(self) -> None:
        if self._own_thread is None and not self._is_stopped:
            self._own_thread = ThreadPoolExecutor(1, f"capture-{self.settings.resource}")
            self._log.warning(
                "reading %s of %s takes long: it goes on in a thread of its own",
                self.settings.method,
                self.settings.resource,
            )

    def _instant_tick(self, at_s: float) -> None:
        now_s = self._clock.monotonic_s()
        if self._is_stopped or self._read_now is None or now_s - self._began_s < self._closest_s:
            self._is_busy = False
            self.skip(1)
            return
        self._note_begin(at_s, now_s)
        requested_ns = self._clock.wall_ns()
        try:
            captured = self._read_now(self._call)
            received_ns = self._clock.wall_ns()
            self._submit(requested_ns, received_ns, captured)
            if self.error:
                self._worked()
            self._slow_reads = self._slow_reads + 1 if received_ns - requested_ns > SLOW_INSTANT_NS else 0
            if self._slow_reads == SLOW_READS:
                self._move_to_own_thread()
        except Exception as error:  # noqa: BLE001 (the top of this tick: whatever a driver raises, the next one tries again)
            self._note_error(error)
        finally:
            self._asking_since_s = None
            self._is_busy = False

    # --- on the loop -------------------------------------------------------------------------------------------------

    def _begin(self, at_s: float) -> None:
        now_s = self._clock.monotonic_s()
        if self._is_stopped or now_s - self._began_s < self._closest_s:
            self._is_busy = False
            self.skip(not self._is_stopped)
            return
        self._note_begin(at_s, now_s)
        self._task = asyncio.get_running_loop().create_task(self._tick(), name=f"capture {self.settings.directory}")

    def _note_begin(self, at_s: float, now_s: float) -> None:
        self._began_s = self._asking_since_s = now_s
        self.lateness.note(now_s - at_s)

    async def _tick(self) -> None:
        requested_ns = self._clock.wall_ns()
        try:
            captured = await self._method.read(self._call)
            self._submit(requested_ns, self._clock.wall_ns(), captured)
        except asyncio.CancelledError as error:
            if self._is_stopped:
                raise
            self._note_error(RuntimeError(f"the driver was cancelled {error}".rstrip()))
        except Exception as error:  # noqa: BLE001 (the top of this task: whatever a driver raises, the next tick tries again)
            self._note_error(error)
        else:
            self._worked()
        finally:
            self._blocks = ""
            self._asking_since_s = None
            self._is_busy = False

    def _note_error(self, error: Exception) -> None:
        """A veto is the driver's filter: there was nothing worth keeping this time."""
        if isinstance(error, NoCaptureToStoreError) or _is_veto(error):
            self.vetoed += 1
        else:
            self._failed(error)

    # --- both --------------------------------------------------------------------------------------------------------

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
