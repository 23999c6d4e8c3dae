"""The machine's end of the link: status out, notices in, byte pipes both ways (docs/architecture.md)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from gleaner import __version__
from gleaner.machine.cloud.configuration import platform_name
from gleaner.machine.cloud.connection import client_tls, http_credentials
from gleaner.machine.cloud.pipes import Pipes
from gleaner.machine.cloud.reachability import Reachability, backoff_s
from gleaner.machine.dial import StraightConnect, certificate_problem, is_portal, portal_words, proxy_for
from gleaner.wire.link import MAX_FRAME_BYTES, PATH, STATUS_INTERVAL_S, Hello, Status, is_notice
from gleaner.wire.machine_config import CloudConfig, ConfigProblem

_LOG = logging.getLogger("gleaner.cloud.link")

#: Changes closer together than this travel in one status.
_MIN_STATUS_GAP_S = 0.1
#: A person watching the page sees the machine back within this time after the app is back.
_MOST_WAIT_S = 5.0
#: An app that no longer reads must not delay the end of the machine.
_CLOSE_TIMEOUT_S = 1.0
#: A connection that lived this long was a good one: the next wait starts small again.
_STABLE_S = 30.0


class Link:
    """`run` until cancelled; `status_changed` when there is news."""

    def __init__(
        self,
        cloud: CloudConfig,
        socket_path: Path,
        status: Callable[[], Status],
        on_notice: Callable[[dict[str, Any]], None],
    ) -> None:
        self._cloud = cloud
        self._socket_path = socket_path
        self._status = status
        self._on_notice = on_notice
        self._changed = asyncio.Event()
        self.on_connect: Callable[[], None] = lambda: None
        self._url, self._tls = _endpoint(cloud)
        self._state = Reachability(_LOG, f"link to {self._url}")

    def status_changed(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        attempt = 0
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await self._connect_once()
                self._state.bad("the app closed it")
            except InvalidStatus as error:
                self._state.bad(_explain_status(error, self._cloud.web_address))
            except ssl.SSLError as error:
                self._state.bad(await certificate_problem(self._cloud.web_address, error))
            except (ImportError, OSError, TimeoutError, InvalidHandshake, WebSocketException) as error:
                self._state.bad(getattr(error, "strerror", None) or str(error) or "no answer")
            attempt = 0 if loop.time() - started > _STABLE_S else attempt + 1
            await asyncio.sleep(backoff_s(attempt, most_s=_MOST_WAIT_S))

    async def _connect_once(self) -> None:
        headers = http_credentials(self._cloud)
        async with StraightConnect(
            self._url,
            additional_headers=headers,
            ssl=self._tls,
            max_size=MAX_FRAME_BYTES,
            compression=None,
            ping_interval=10,
            ping_timeout=10,
            close_timeout=_CLOSE_TIMEOUT_S,
            proxy=proxy_for(self._url),
        ) as websocket:
            self._state.good()
            self.on_connect()
            pipes = Pipes(self._socket_path, websocket.send)
            reporter = asyncio.create_task(self._report(websocket), name="link status")
            try:
                await self._receive(websocket, pipes)
            finally:
                reporter.cancel()
                await asyncio.wait([reporter])
                await pipes.close()

    async def _receive(self, websocket: ClientConnection, pipes: Pipes) -> None:
        async for frame in websocket:
            try:
                if isinstance(frame, bytes):
                    pipes.receive(frame)
                elif is_notice(notice := json.loads(frame)):
                    self._on_notice(notice)
            except ValueError as error:
                _LOG.warning("the app sent a frame that cannot be read: %s", error)

    async def _report(self, websocket: ClientConnection) -> None:
        hello: Hello = {
            "type": "hello",
            "version": __version__,
            "platform": platform_name(),
            "hostname": socket.gethostname(),
        }
        try:
            await websocket.send(json.dumps(hello))
            while True:
                self._changed.clear()
                await websocket.send(json.dumps(self._status()))
                await asyncio.sleep(_MIN_STATUS_GAP_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STATUS_INTERVAL_S - _MIN_STATUS_GAP_S):
                        await self._changed.wait()
        except ConnectionClosed:
            return


def _endpoint(cloud: CloudConfig) -> tuple[str, ssl.SSLContext | None]:
    parts = urlsplit(cloud.web_address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problem = (
            f"{cloud.web_address!r} is not an address: write it like http://127.0.0.1:8090 or https://app.example:8090"
        )
        raise ConfigProblem([("cloud.web_address", problem)])
    tls = parts.scheme == "https"
    return f"{'wss' if tls else 'ws'}://{parts.netloc}{parts.path.rstrip('/')}{PATH}", client_tls(
        cloud
    ) if tls else None


def _explain_status(error: InvalidStatus, address: str) -> str:
    code = error.response.status_code
    if code in (401, 403):
        return (
            "the app does not accept this machine's credentials: make a new secret on its CONNECT page and replace "
            "machine.json (an api_key must have the owner's role on this machine)"
        )
    if is_portal(code):
        return portal_words(address, code)
    return f"the app answers HTTP {code}"
