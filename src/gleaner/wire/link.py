"""The link: one WebSocket that a machine keeps to its app (`/api/link`). See docs/architecture.md.

Text frames are the JSON messages below. A binary frame is one piece of a byte pipe to the machine's own gRPC server:
`u32 LE pipe id | bytes`. The app opens a pipe by using a new id; an empty payload closes it, in both directions.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

_PIPE_ID = struct.Struct("<I")

PATH = "/api/link"
WEB_ADDRESS_HEADER = "gleaner-web-address"
"""With the answer to `RobotService.Config`: the app's HTTP door, for a machine that was told of the gRPC one only."""
STATUS_INTERVAL_S = 2.0
#: Largest piece of a pipe in one frame: big enough for a camera frame's share, small enough to interleave pipes.
MAX_PIPE_PIECE_BYTES = 64 * 1024
#: Largest frame either side accepts: a status of a big machine stays far below it.
MAX_FRAME_BYTES = 4 * 1024 * 1024

ResourceState = Literal["unconfigured", "configuring", "ready", "removing", "unhealthy"]
ElsewhereState = Literal["pending", "starting", "ready", "unhealthy", "closing"]
PackageState = Literal["downloading", "loading", "ready", "failed"]


class ResourceStatus(TypedDict):
    name: str
    api: str
    model: str
    state: ResourceState
    error: str
    latency_ms: NotRequired[float]
    """Of an ML model: one inference, measured before it took over."""


class PackageStatus(TypedDict):
    name: str
    version: str
    state: PackageState
    error: str


class ElsewhereStatus(TypedDict):
    """A module or a remote; `error` is empty while it works."""

    name: str
    kind: Literal["module", "remote"]
    state: ElsewhereState
    error: str


class CollectorLedger(TypedDict):
    component: str
    method: str
    captured: int
    stored: int
    waiting: int
    synced: int
    dropped: dict[str, int]
    frequency_hz: float
    last_error: str
    skipped: NotRequired[int]
    vetoed: NotRequired[int]
    late_ms: NotRequired[Mapping[str, float] | None]


class SyncRate(TypedDict):
    files_per_s: float
    bytes_per_s: float


class DiskState(TypedDict):
    size_bytes: int
    free_bytes: int
    state: Literal["ok", "thinning", "full"]


class Ledger(TypedDict):
    """What is not required came later than the first machines."""

    collectors: list[CollectorLedger]
    backlog_files: int
    backlog_bytes: int
    oldest_unsent: str | None
    sync_error: str
    sync_state: NotRequired[Literal["on", "offline", "held", "disabled", "no_app"]]
    rate: NotRequired[SyncRate]
    eta_s: NotRequired[float | None]
    disk: NotRequired[DiskState]
    counting: NotRequired[bool]
    notes: NotRequired[list[str]]


EMPTY_LEDGER: Ledger = {
    "collectors": [],
    "backlog_files": 0,
    "backlog_bytes": 0,
    "oldest_unsent": None,
    "sync_error": "",
}


class Hello(TypedDict):
    type: Literal["hello"]
    version: str
    platform: str
    hostname: str


class Status(TypedDict):
    type: Literal["status"]
    revision: str
    resources: list[ResourceStatus]
    packages: list[PackageStatus]
    elsewhere: list[ElsewhereStatus]
    capture: Ledger
    port: NotRequired[int]
    """Of its robot API; 0 while it has no TCP door."""


class Notice(TypedDict):
    """App to machine."""

    type: Literal["config_changed", "restart", "sync_now"]
    revision: NotRequired[str]


def pack_pipe(pipe_id: int, payload: bytes | bytearray | memoryview = b"") -> bytes:
    """One binary frame; an empty payload closes the pipe."""
    return _PIPE_ID.pack(pipe_id) + payload


def unpack_pipe(frame: bytes) -> tuple[int, bytes]:
    """(pipe id, payload). Raises ValueError when the frame is too short to hold a pipe id."""
    if len(frame) < _PIPE_ID.size:
        raise ValueError(f"a pipe frame has at least {_PIPE_ID.size} bytes, got {len(frame)}")
    return _PIPE_ID.unpack_from(frame)[0], frame[_PIPE_ID.size :]


def is_notice(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in ("config_changed", "restart", "sync_now")
