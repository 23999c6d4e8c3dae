"""The capture ledger for Prometheus: `GET /metrics` on this computer's loopback, off unless a port is given.

Written by hand: the format is lines of text (Prometheus exposition format 0.0.4), and a machine without it loads nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from gleaner.wire.link import Ledger

HOST = "127.0.0.1"
READ_TIMEOUT_S = 5.0
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MOST_HEADER_LINES = 100

Sample = tuple[Mapping[str, str], float]


def render(ledger: Ledger, now: datetime) -> str:
    """One text for one scrape. Counters start with the capture folder, not with the process."""
    return "".join(f"{line}\n" for line in _lines(ledger, now))


def _lines(ledger: Ledger, now: datetime) -> Iterator[str]:
    rows: list[tuple[Mapping[str, str], Mapping[str, Any]]] = [
        ({"component": row["component"], "method": row["method"]}, row) for row in ledger["collectors"]
    ]

    def each(key: str) -> list[Sample]:
        return [(labels, row.get(key) or 0) for labels, row in rows]

    yield from _family(
        "captured_records_total", "counter", "Records captured: synced, waiting and dropped.", each("captured")
    )
    yield from _family("synced_records_total", "counter", "Records that the app has.", each("synced"))
    yield from _family("waiting_records", "gauge", "Records that wait on this machine.", each("waiting"))
    dropped = [
        ({**labels, "reason": reason}, count) for labels, row in rows for reason, count in row["dropped"].items()
    ]
    yield from _family("dropped_records_total", "counter", "Records lost or set aside, by reason.", dropped)
    yield from _family("skipped_ticks_total", "counter", "Ticks left out because something was late.", each("skipped"))
    yield from _family(
        "vetoed_readings_total", "counter", "Readings that the driver's filter left out.", each("vetoed")
    )
    late = [
        ({**labels, "quantile": quantile}, row["late_ms"][name] / 1000)
        for labels, row in rows
        if row.get("late_ms")
        for quantile, name in (("0.5", "p50"), ("0.99", "p99"))
    ]
    yield from _family("tick_lateness_seconds", "gauge", "How late the last ticks began.", late)
    oldest, disk, rate = ledger["oldest_unsent"], ledger.get("disk"), ledger.get("rate")
    age_s = 0.0 if oldest is None else max(0.0, (now - datetime.fromisoformat(oldest)).total_seconds())
    yield from _single("backlog_files", "Files that wait.", ledger["backlog_files"])
    yield from _single("backlog_bytes", "Bytes that wait.", ledger["backlog_bytes"])
    yield from _single("oldest_unsent_seconds", "Age of the oldest capture that waits.", age_s)
    is_on = ledger.get("sync_state", "offline" if ledger["sync_error"] else "on") == "on"
    yield from _single("sync_connected", "1 while sync is connected to the app and not held back.", is_on)
    if rate is not None:
        yield from _single("sync_bytes_per_second", "What the app has confirmed lately.", rate["bytes_per_s"])
    if disk is not None:
        yield from _single("disk_free_bytes", "Free space where captures wait.", disk["free_bytes"])
        yield from _single("disk_size_bytes", "Size of that disk.", disk["size_bytes"])


def _single(name: str, text: str, value: float) -> Iterator[str]:
    return _family(name, "gauge", text, [({}, value)])


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    full = f"gleaner_{name}"
    yield f"# HELP {full} {text}"
    yield f"# TYPE {full} {kind}"
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{full}{{{inside}}} {float(value):.15g}" if inside else f"{full} {float(value):.15g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


class MetricsServer:
    """`start() → running → close()` on the machine's event loop. Answers `GET /metrics` and nothing else."""

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        self._ledger = ledger
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, port: int) -> None:
        """0 takes a free port. Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._serve, HOST, port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                method, path = await _request(reader)
                writer.write(self._answer(method, path))
                await writer.drain()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            pass  # whoever asked has gone, or does not speak HTTP
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, method: str, path: str) -> bytes:
        if path.split("?", maxsplit=1)[0] != "/metrics":
            return _response("404 Not Found", "text/plain", "metrics are at /metrics\n")
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", "text/plain", "ask with GET\n")
        text = render(self._ledger(), datetime.now(UTC))
        return _response("200 OK", _CONTENT_TYPE, text, is_head=method == "HEAD")


async def _request(reader: asyncio.StreamReader) -> tuple[str, str]:
    """(method, path). Raises ValueError for what is no HTTP request."""
    method, path, version = (await reader.readline()).decode("latin-1").split()
    if not version.startswith("HTTP/1."):
        raise ValueError(version)
    for _ in range(_MOST_HEADER_LINES):
        if await reader.readline() in (b"\r\n", b"\n", b""):
            return method, path
    raise ValueError("too many headers")


def _response(status: str, content_type: str, text: str, *, is_head: bool = False) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else body)
