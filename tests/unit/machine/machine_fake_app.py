"""A small app for tests of the machine's side: Viam's RPCs on a real gRPC port, packages over real HTTP, the link."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import ssl
import tarfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import google_crc32c
from grpclib import GRPCError, Status
from grpclib.server import Server
from viam.proto.app import AppServiceBase, GetRobotPartResponse
from viam.proto.app.packages import GetPackageResponse, Package, PackageInfo, PackageServiceBase
from viam.proto.app.robot import (
    CertificateResponse,
    ConfigResponse,
    LogResponse,
    NeedsRestartResponse,
    RobotServiceBase,
)
from viam.proto.rpc.auth import AuthenticateResponse, UnimplementedAuthServiceBase
from websockets.asyncio.server import ServerConnection, serve

from gleaner.wire.machine_config import CloudConfig
from gleaner.wire.robot_config import to_proto

PART, SECRET = "part-1", "part-secret"


def tarball(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


class FakeApp:
    def __init__(self) -> None:
        self.config: dict[str, Any] = {"revision": "r1"}
        self.config_error: GRPCError | None = None
        self.must_restart = False
        self.api_keys: dict[str, str] = {}
        self.key_sees_part = True
        self.logs: list[Any] = []
        self.log_error: GRPCError | None = None
        self.valid_token = "token-1"
        self.authentications = 0
        self.config_requests: list[Any] = []
        self.packages: dict[str, bytes] = {}
        self.seals: dict[str, dict[str, str]] = {}
        """Of a package: what its metadata says of the signature."""
        self.cut_after: int | None = None
        self.hash_header: str | None = None
        self.requests: list[dict[str, str]] = []
        self.links: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.link_headers: list[Any] = []
        self.ca_certificate = ""
        self.grpc_port = self.http_port = self.link_port = 0

    @property
    def scheme(self) -> str:
        return "https" if self.ca_certificate else "http"

    @property
    def cloud(self) -> CloudConfig:
        return CloudConfig(
            id=PART,
            secret=SECRET,
            app_address=f"{self.scheme}://127.0.0.1:{self.grpc_port}",
            web_address=f"{self.scheme}://127.0.0.1:{self.link_port}",
            ca_certificate=self.ca_certificate,
            refresh_interval_s=0.05,
        )

    def check(self, stream: Any) -> None:
        if stream.metadata.get("authorization") != f"Bearer {self.valid_token}":
            raise GRPCError(Status.UNAUTHENTICATED, "who are you?")


@asynccontextmanager
async def fake_app(tls: tuple[ssl.SSLContext, str] | None = None) -> AsyncIterator[FakeApp]:
    """`tls` is the servers' context and the PEM of the authority that machines pin."""
    app = FakeApp()
    context, app.ca_certificate = tls or (None, "")
    grpc = Server([_Auth(app), _Robot(app), _Packages(app), _Apps(app)])
    await grpc.start("127.0.0.1", 0, ssl=context)
    app.grpc_port = _port(grpc)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _http_handler(app))
    http.daemon_threads = False
    app.http_port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()

    async def link(websocket: ServerConnection) -> None:
        app.link_headers.append(websocket.request.headers if websocket.request else {})
        app.links.put_nowait(websocket)
        await websocket.wait_closed()

    try:
        # Tests may leave frames unread; a full queue would hold back the closing handshake.
        async with serve(link, "127.0.0.1", 0, max_queue=None, ssl=context) as server:
            app.link_port = next(iter(server.sockets)).getsockname()[1]
            yield app
    finally:
        await asyncio.to_thread(http.shutdown)
        http.server_close()
        thread.join()
        grpc.close()
        await grpc.wait_closed()


async def next_json(websocket: ServerConnection, kind: str) -> dict[str, Any]:
    """The next text frame of that type."""
    async for frame in websocket:
        if isinstance(frame, str) and json.loads(frame)["type"] == kind:
            found: dict[str, Any] = json.loads(frame)
            return found
    raise AssertionError("the link was closed")


def _port(server: Server) -> int:
    listening: Any = server._server
    return int(listening.sockets[0].getsockname()[1])


class _Auth(UnimplementedAuthServiceBase):
    def __init__(self, app: FakeApp) -> None:
        self.app = app

    async def Authenticate(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.app.authentications += 1
        known = {PART: SECRET, **self.app.api_keys}
        if known.get(request.entity) != request.credentials.payload:
            raise GRPCError(Status.UNAUTHENTICATED, "wrong secret")
        await stream.send_message(AuthenticateResponse(access_token=self.app.valid_token))


class _Robot(RobotServiceBase):
    def __init__(self, app: FakeApp) -> None:
        self.app = app

    async def Config(self, stream: Any) -> None:
        self.app.config_requests.append(await stream.recv_message())
        self.app.check(stream)
        if self.app.config_error is not None:
            raise self.app.config_error
        await stream.send_message(ConfigResponse(config=to_proto(self.app.config)))

    async def Certificate(self, stream: Any) -> None:
        await stream.send_message(CertificateResponse())

    async def Log(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.app.check(stream)
        if self.app.log_error is not None:
            raise self.app.log_error
        self.app.logs.append(request)
        await stream.send_message(LogResponse())

    async def NeedsRestart(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(NeedsRestartResponse(must_restart=self.app.must_restart))


class _Packages(PackageServiceBase):
    def __init__(self, app: FakeApp) -> None:
        self.app = app

    async def GetPackage(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.app.check(stream)
        version = "2" if request.version == "latest" else request.version
        name = f"{request.id}-{version}".replace("/", "-")
        if name not in self.app.packages:
            raise GRPCError(Status.NOT_FOUND, f"no package {name}")
        info = PackageInfo(name=request.id, version=version)
        info.metadata.update(self.app.seals.get(name, {}))
        url = f"http://127.0.0.1:{self.app.http_port}/{name}.tar.gz"
        await stream.send_message(GetPackageResponse(package=Package(info=info, url=url)))

    async def CreatePackage(self, stream: Any) -> None: ...

    async def DeletePackage(self, stream: Any) -> None: ...

    async def ListPackages(self, stream: Any) -> None: ...


class _Apps:
    """Only GetRobotPart of the 90 methods of AppService."""

    def __init__(self, app: FakeApp) -> None:
        self.app = app

    def __mapping__(self) -> dict[str, Any]:
        path = "/viam.app.v1.AppService/GetRobotPart"
        original = AppServiceBase.__mapping__(self)  # type: ignore[arg-type]
        return {path: original[path]}

    async def GetRobotPart(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.app.check(stream)
        assert request.id == PART
        if not self.app.key_sees_part:
            raise GRPCError(Status.PERMISSION_DENIED, "not yours")
        await stream.send_message(GetRobotPartResponse())

    def __getattr__(self, name: str) -> Any:
        return None


def _http_handler(app: FakeApp) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

        def do_GET(self) -> None:
            app.requests.append({name.lower(): value for name, value in self.headers.items()})
            body = app.packages.get(self.path.strip("/").removesuffix(".tar.gz"))
            if body is None:
                self.send_error(404)
                return
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_error(416)
                return
            checksum = google_crc32c.Checksum(body)
            digest = base64.b64encode(checksum.digest()).decode() if app.hash_header is None else app.hash_header
            self.send_response(206 if start else 200)
            self.send_header("x-goog-hash", f"crc32c={digest}, md5=abc")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            cut, app.cut_after = app.cut_after, None
            self.wfile.write(body[start:] if cut is None else body[start:cut])

    return Handler
