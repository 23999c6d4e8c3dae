"""The app as one process: both doors on one event loop, ingest threads beside it, and a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import uvicorn

from gleaner.app.assembly import build_context, start_parts, stop_parts
from gleaner.app.context import Addresses, AppContext
from gleaner.app.http.app_factory import create_app
from gleaner.app.settings import Settings
from gleaner.app.tls import ServerTls, server_tls
from gleaner.app.tls_renewal import TlsRenewal, utc_now

if TYPE_CHECKING:
    from grpclib.server import Server as GrpcServer

log = logging.getLogger("gleaner.app")

# A sync frame holds at most 16 MiB of payload beside its header.
_WEBSOCKET_MESSAGE_BYTES = 24 << 20
_STOP_S = 5
_ANSWER_S = 1.0
WEB_ADDRESS_FILE = "web_address"
"""In the data folder while the app runs: where its pages are."""


class CannotStart(Exception):
    """The app cannot run as asked; the message is one line that says what to do."""


class AppServer:
    """start() → running → stop(), both idempotent. Addresses are in `context.addresses` once started."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.context: AppContext
        self.renewal: TlsRenewal | None = None
        """Once started, where TLS is served."""
        self._resources = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Raises CannotStart or KeyProblem; leaves nothing behind when it does."""
        try:
            await self._start()
        except BaseException:
            await self._resources.aclose()
            raise

    async def _start(self) -> None:
        settings, stack = self.settings, self._resources
        prepare_data_dir(settings.data_dir)
        stack.enter_context(only_app_of(settings.data_dir))
        web_socket = stack.enter_context(_listen(settings.host, settings.port, "--port"))
        grpc_socket = stack.enter_context(_listen(settings.host, settings.grpc_port, "--grpc-port"))
        names = _names(settings)
        tls = server_tls(settings, names, utc_now())

        self.context = context = build_context(settings)
        stack.callback(context.workers.shutdown, cancel_futures=True)
        stack.callback(context.computing.shutdown, cancel_futures=True)
        stack.callback(context.database.close)
        context.events.attach(asyncio.get_running_loop())
        context.addresses = _addresses(settings, web_socket, grpc_socket, tls)
        await asyncio.to_thread(start_parts, context)
        stack.push_async_callback(asyncio.to_thread, stop_parts, context)

        contexts = (tls.context(http2=True), tls.context()) if tls else (None, None)
        grpc = await _serve_grpc(context, grpc_socket, contexts[0])
        stack.push_async_callback(_close_grpc, grpc)
        web = _WebServer(context, tls, contexts[1])
        task = asyncio.create_task(web.serve(sockets=[web_socket]), name="web server")
        stack.push_async_callback(_close_web, web, task)
        note = settings.data_dir / WEB_ADDRESS_FILE
        await asyncio.to_thread(note.write_text, context.addresses.web)
        stack.callback(note.unlink, missing_ok=True)
        if tls:
            self.renewal = TlsRenewal(settings, names, tls, [one for one in contexts if one])
            renewing = asyncio.create_task(self.renewal.run(), name="certificate renewal")
            stack.push_async_callback(_end, renewing)

    async def stop(self) -> None:
        await self._resources.aclose()

    async def __aenter__(self) -> AppServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


async def serve(settings: Settings, stop: asyncio.Event, on_ready: Callable[[AppContext], None]) -> None:
    """Runs the app until `stop` is set."""
    async with AppServer(settings) as server:
        on_ready(server.context)
        await stop.wait()


class _WebServer(uvicorn.Server):
    """uvicorn without its own signal handlers: the process has one place for those."""

    def __init__(self, context: AppContext, tls: ServerTls | None, tls_context: ssl.SSLContext | None) -> None:
        config = uvicorn.Config(
            create_app(context),
            ws="websockets-sansio",
            ws_max_size=_WEBSOCKET_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_S,
            ssl_certfile=tls.cert_file if tls else None,
            ssl_keyfile=tls.key_file if tls else None,
        )
        config.load()
        config.ssl = tls_context  # ours, which can be given another certificate while it serves
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve_grpc(context: AppContext, sock: socket.socket, tls: ssl.SSLContext | None) -> GrpcServer:
    from grpclib.server import Server

    # `build_handlers(context)` returns every service of the gRPC door.
    from gleaner.app.rpc.handlers import build_handlers

    server = Server(build_handlers(context))
    await server.start(sock=sock, ssl=tls)
    return server


async def _close_grpc(server: GrpcServer) -> None:
    server.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.wait_closed(), _STOP_S)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def _close_web(server: uvicorn.Server, task: asyncio.Task[None]) -> None:
    server.should_exit = True
    await task


def prepare_data_dir(data_dir: Path) -> None:
    """Makes the folder (0700) if it is not there yet. Raises CannotStart when the app could not write in it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "this user may not write there")
    except OSError as err:
        raise CannotStart(
            f"The data folder {data_dir} cannot be used: {err.strerror}. "
            "Choose another --data-dir, or make it a folder that belongs to the user who runs the app."
        ) from err


@contextlib.contextmanager
def only_app_of(data_dir: Path) -> Iterator[None]:
    """Two apps on one folder would both write packs and adopt each other's."""
    handle = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise CannotStart(
                f"Another gleaner app is already using {data_dir}. Stop it first, or choose another --data-dir."
            ) from err
        yield
    finally:
        os.close(handle)


def _listen(host: str, port: int, flag: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named protocol: asyncio turns Nagle off only then, and a small answer would wait 40 ms for the other side's ack.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as err:
        sock.close()
        is_address = isinstance(err, socket.gaierror) or err.errno == errno.EADDRNOTAVAIL
        if is_address:
            hint = "Choose an address of this computer with --host (0.0.0.0 is all of them)."
        elif err.errno == errno.EACCES:
            hint = f"Choose a port above 1023 with {flag}, or allow this user to use low ports."
        else:
            hint = f"Choose another port with {flag}, or stop what uses it."
        raise CannotStart(f"Cannot listen on {host}:{port}: {err.strerror}. {hint}") from err
    sock.setblocking(False)
    return sock


def _names(settings: Settings) -> list[str]:
    """Every name and address clients may use to reach this app, for the certificate."""
    names = {"localhost", "127.0.0.1", socket.gethostname(), settings.public_host, settings.host} - {
        "",
        "0.0.0.0",
        "::",
    }
    return sorted(names | {_outward_address()})


def _outward_address() -> str:
    """This machine's address on its network, found without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: connect on UDP only picks a route
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def running_address(data_dir: Path) -> str:
    """Where the app of this data folder has its pages now; empty if it does not run."""
    try:
        address = (data_dir / WEB_ADDRESS_FILE).read_text().strip()
        parts = urlsplit(address)
        socket.create_connection((parts.hostname or "", parts.port or 0), _ANSWER_S).close()
    except (OSError, ValueError):  # none, or left by one that was killed
        return ""
    return address


def reachable_host(settings: Settings) -> str:
    """What machines and browsers put into the address, also when the app listens on every address."""
    host = settings.public_host or (settings.host if settings.host not in ("0.0.0.0", "::") else _outward_address())
    return f"[{host}]" if ":" in host else host


def _addresses(settings: Settings, web: socket.socket, grpc: socket.socket, tls: ServerTls | None) -> Addresses:
    host = reachable_host(settings)
    scheme = "https" if tls else "http"
    return Addresses(
        web=f"{scheme}://{host}:{web.getsockname()[1]}",
        grpc=f"{scheme}://{host}:{grpc.getsockname()[1]}",
        ca_certificate=tls.ca_certificate if tls else "",
        fingerprint=tls.fingerprint if tls else "",
    )
