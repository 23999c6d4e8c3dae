"""The machine's end of the link, against a real WebSocket server and real unix sockets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from machine_fake_app import PART, SECRET, fake_app, next_json
from machine_fakes import running, until

from gleaner.machine.cloud import link as link_module
from gleaner.machine.cloud.link import Link
from gleaner.machine.cloud.pipes import MAX_QUEUED_BYTES, Pipes
from gleaner.wire.link import EMPTY_LEDGER, pack_pipe, unpack_pipe
from gleaner.wire.link import Status as LinkStatus


def status() -> LinkStatus:
    return {
        "type": "status",
        "revision": "r1",
        "resources": [],
        "packages": [],
        "elsewhere": [],
        "capture": EMPTY_LEDGER,
    }


@pytest.fixture
async def echo_socket(tmp_path: Path) -> AsyncIterator[Path]:
    """Stands in for the machine's own gRPC server: answers every byte with itself."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    path = tmp_path / "echo.sock"
    server = await asyncio.start_unix_server(echo, str(path))
    yield path
    server.close()
    await server.wait_closed()


async def test_the_link_says_hello_and_reports(echo_socket: Path) -> None:
    async with fake_app() as app:
        notices: list[dict[str, Any]] = []
        link = Link(app.cloud, echo_socket, status, notices.append)
        async with running(link.run()), asyncio.timeout(20):
            websocket = await app.links.get()
            assert (app.link_headers[0]["part_id"], app.link_headers[0]["secret"]) == (PART, SECRET)
            hello = json.loads(await websocket.recv())
            assert set(hello) == {"type", "version", "platform", "hostname"}
            assert await next_json(websocket, "status") == status()
            link.status_changed()
            await next_json(websocket, "status")
            await websocket.send('{"type": "config_changed", "revision": "r2"}')
            await websocket.send('{"type": "of a newer app"}')
            await websocket.send("not json")
            await websocket.send(b"x")
            await websocket.send('{"type": "restart"}')
            await until(lambda: len(notices) == 2)
            assert [notice["type"] for notice in notices] == ["config_changed", "restart"]


async def test_pipes_carry_bytes_both_ways_side_by_side(echo_socket: Path) -> None:
    async with fake_app() as app:
        link = Link(app.cloud, echo_socket, status, lambda _notice: None)
        async with running(link.run()), asyncio.timeout(20):
            websocket = await app.links.get()
            sent = {1: b"a" * 300_000, 2: b"b" * 10}
            for pipe_id, payload in sent.items():
                await websocket.send(pack_pipe(pipe_id, payload))
            got = {1: b"", 2: b""}
            while got != sent:
                frame = await websocket.recv()
                if isinstance(frame, bytes):
                    pipe_id, payload = unpack_pipe(frame)
                    got[pipe_id] += payload
            await websocket.send(pack_pipe(1))
            while True:
                frame = await websocket.recv()
                if isinstance(frame, bytes):
                    assert unpack_pipe(frame) == (1, b"")
                    break
            await websocket.send(pack_pipe(2, b"still open"))
            frame = ""
            while not isinstance(frame, bytes):
                frame = await websocket.recv()
            assert unpack_pipe(frame) == (2, b"still open")


async def test_a_pipe_to_nowhere_is_closed(tmp_path: Path) -> None:
    sent: list[bytes] = []

    async def send(frame: bytes) -> None:
        sent.append(frame)

    pipes = Pipes(tmp_path / "nothing.sock", send)
    pipes.receive(pack_pipe(7, b"hello"))
    await until(lambda: sent)
    assert unpack_pipe(sent[0]) == (7, b"")
    pipes.receive(pack_pipe(9))  # closing what was never open is nothing
    with pytest.raises(ValueError, match="at least 4 bytes"):
        pipes.receive(b"abc")
    await pipes.close()


async def test_a_stuck_pipe_is_closed_instead_of_growing(tmp_path: Path) -> None:
    path, release = tmp_path / "stuck.sock", asyncio.Event()

    async def never_reads(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_unix_server(never_reads, str(path))
    sent: list[bytes] = []

    async def send(frame: bytes) -> None:
        sent.append(frame)

    pipes = Pipes(path, send)
    for _ in range(MAX_QUEUED_BYTES // 1_000_000 + 8):
        pipes.receive(pack_pipe(3, b"x" * 1_000_000))
    await until(lambda: sent)
    assert unpack_pipe(sent[0]) == (3, b"")
    release.set()
    await pipes.close()
    server.close()
    await server.wait_closed()


async def test_a_lost_link_comes_back(
    echo_socket: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(link_module, "backoff_s", lambda _attempt, **_limits: 0.01)
    async with fake_app() as app:
        link = Link(app.cloud, echo_socket, status, lambda _notice: None)
        async with running(link.run()), asyncio.timeout(20):
            for _ in range(3):
                websocket = await app.links.get()
                await websocket.close()
            await app.links.get()
    assert "the app closed it" in caplog.text
