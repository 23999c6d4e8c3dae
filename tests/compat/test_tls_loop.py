"""The whole loop over TLS, as a machine on another computer has it: configuration, link, sync, packages, SDK, browser."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import re
import ssl
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from grpclib.client import Channel
from playwright.sync_api import sync_playwright
from tls_world import TlsApp, is_refused, speaks_plain_http, tls_app, tls_machine, wait_for
from viam.gen.app.packages.v1.packages_grpc import PackageServiceStub
from viam.gen.app.packages.v1.packages_pb2 import CreatePackageRequest, PackageInfo, PackageType
from viam.proto.rpc.auth import AuthenticateRequest, AuthServiceStub, Credentials

from gleaner.app.settings import Settings
from gleaner.app.tls import server_tls

CAPTURE = {
    "type": "data_manager",
    "attributes": {"capture_methods": [{"method": "GetImages", "capture_frequency_hz": 5.0}]},
}
CAMERA: dict[str, Any] = {
    "name": "cam",
    "api": "rdk:component:camera",
    "model": "gleaner:camera:sim",
    "attributes": {"width_px": 160, "height_px": 120},
    "service_configs": [CAPTURE],
}
MANAGER = {
    "name": "data-manager",
    "api": "rdk:service:data_manager",
    "model": "rdk:builtin:builtin",
    "attributes": {"sync_interval_mins": 0.005},
}
CONFIG: dict[str, Any] = {
    "components": [CAMERA],
    "services": [MANAGER],
    "network": {"bind_address": "127.0.0.1:0"},
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsApp]:
    with tls_app(tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture(scope="module")
def key(app: TlsApp) -> dict[str, str]:
    body = {"name": "script", "resource_type": "organization", "resource_id": app.organization(), "role": "owner"}
    return dict(app.client.post(f"/organizations/{app.organization()}/keys", body))


def some_authority(folder: Path) -> str:
    """An authority made by another app: right in form, wrong for this one."""
    made = server_tls(Settings(data_dir=folder, host="127.0.0.3"), ["127.0.0.3"], dt.datetime.now(dt.UTC))
    assert made is not None
    return made.ca_certificate


async def create_package(app: TlsApp, key: dict[str, str], name: str) -> None:
    """An archive package through Viam's own API, over TLS that trusts the app's authority."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        entry = tarfile.TarInfo("readme.txt")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    tls = ssl.create_default_context(cafile=str(app.authority))
    tls.set_alpn_protocols(["h2"])
    where = urlsplit(app.grpc)
    channel = Channel(where.hostname, where.port, ssl=tls)
    try:
        credentials = Credentials(type="api-key", payload=key["key"])
        answer = await AuthServiceStub(channel).Authenticate(
            AuthenticateRequest(entity=key["id"], credentials=credentials)
        )
        info = PackageInfo(
            organization_id=app.organization(), name=name, version="1", type=PackageType.PACKAGE_TYPE_ARCHIVE
        )
        metadata = {"authorization": f"Bearer {answer.access_token}"}
        parts = [CreatePackageRequest(info=info), CreatePackageRequest(contents=archive.getvalue())]
        await PackageServiceStub(channel).CreatePackage(parts, metadata=metadata)
    finally:
        channel.close()


def test_only_tls_answers_and_only_its_authority_vouches_for_it(app: TlsApp, tmp_path: Path) -> None:
    assert app.web.startswith("https://127.0.0.2:")
    assert app.grpc.startswith("https://127.0.0.2:")
    assert app.login_url.startswith(f"{app.web}/login")
    assert app.login_link().startswith(f"{app.web}/login")
    assert not speaks_plain_http(app.web)
    assert not speaks_plain_http(app.grpc)
    assert is_refused(app.web, ssl.create_default_context())
    assert is_refused(app.web, ssl.create_default_context(cadata=some_authority(tmp_path)))
    me = app.client.get("/auth/me")["app"]
    assert me["tls"] is True
    assert len(bytes.fromhex(me["fingerprint"].replace(":", ""))) == 32
    assert not any((app.data_dir / "tls" / name).stat().st_mode & 0o077 for name in ("ca.key", "server.key"))


async def test_a_machine_pins_the_authority_and_does_everything_over_tls(
    app: TlsApp, key: dict[str, str], tmp_path: Path
) -> None:
    await create_package(app, key, "notes")
    package = {"name": "notes", "type": "archive", "package": f"{app.organization()}/notes", "version": "1"}
    part, setup = await asyncio.to_thread(app.machine_json, "rover", {**CONFIG, "packages": [package]})
    assert setup["cloud"]["web_address"] == app.web
    assert setup["cloud"]["app_address"] == app.grpc
    assert setup["cloud"]["ca_certificate"] == app.authority.read_text()

    def is_complete() -> bool:
        status = app.status(part)
        return (
            status["online_state"] == "online"
            and [each["state"] for each in status["packages"]] == ["ready"]
            and app.pictures(part) >= 5
        )

    def see() -> None:
        with tls_machine(tmp_path / "rover", setup) as log:
            wait_for(is_complete, 60, "pictures and the package", log)
            picture = app.client.get_bytes(f"/parts/{part}/cameras/cam/image.jpg")
            assert picture[:2] == b"\xff\xd8", "the picture came through the link"
            text = log.read_text()
        assert "certificate" not in text and "unencrypted" not in text
        [unpacked] = (tmp_path / "rover" / "packages").rglob("readme.txt")
        assert unpacked.read_text() == "hello"

    await asyncio.to_thread(see)


def test_another_authority_is_refused_and_what_was_captured_waits(app: TlsApp, tmp_path: Path) -> None:
    part, setup = app.machine_json("careful", CONFIG)
    with tls_machine(tmp_path / "one", setup) as log:
        wait_for(lambda: app.pictures(part) >= 1, 60, "a picture", log)
    before, seen = app.pictures(part), app.status(part)["last_seen"]
    capture = tmp_path / "one" / "capture"
    wrong = {"cloud": {**setup["cloud"], "ca_certificate": some_authority(tmp_path / "other")}}
    with tls_machine(tmp_path / "one", wrong) as log:
        for what in (r"app 127\.0\.0\.2:\d+: ", r"link to wss://127\.0\.0\.2:\d+/api/link: ", "sync waits: "):
            wait_for(lambda what=what: complaint(log, what), 30, f"the complaint {what}", log)
        wait_for(lambda: len(list(capture.rglob("*.capture"))) >= 3, 30, "pictures that wait", log)
        text = log.read_text()
    assert "Traceback" not in text
    assert app.pictures(part) == before
    assert app.status(part)["last_seen"] == seen, "nobody knocked with this machine's secret"
    with tls_machine(tmp_path / "one", setup) as log:
        wait_for(lambda: app.pictures(part) >= before + 3, 60, "the pictures that waited", log)


def complaint(log: Path, start: str) -> bool:
    """The line says whose certificate, why, and what to do."""
    return any(
        re.search(start, line)
        and "certificate" in line
        and "unable to get local issuer" in line
        and ("machine.json" in line or "configuration from the app again" in line)
        for line in log.read_text().splitlines()
    )


def test_the_unmodified_sdk_and_a_browser_see_the_picture(
    app: TlsApp, key: dict[str, str], tmp_path: Path, chromium_path: str
) -> None:
    part, _ = app.machine_json("sdk", {})
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(jpeg())
    script = Path(__file__).with_name("tls_sdk_client.py")
    command = [sys.executable, str(script), app.grpc, key["id"], key["key"], part, str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["found"] == [told["uploaded"]]
    assert (told["count"], told["same"]) == (1, [True])
    assert told["uri"].startswith(app.web)
    seen_in_browser(app, chromium_path)


def seen_in_browser(app: TlsApp, chromium_path: str) -> None:
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_path, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        try:
            context = browser.new_context(ignore_https_errors=True)
            page = context.new_page()
            page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
            page.on("pageerror", lambda error: problems.append(str(error)))
            with page.expect_websocket(lambda socket: socket.url.endswith("/api/events")) as events:
                page.goto(app.login_link())
            assert events.value.url.startswith("wss://127.0.0.2:")
            page.goto(f"{app.web}/data?tag=by_sdk")
            thumb = page.locator("img[src*='/thumb']").first
            thumb.wait_for()
            assert thumb.evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
            [cookie] = context.cookies()
            assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
        finally:
            browser.close()
    assert not problems


def jpeg() -> bytes:
    pixels = np.random.default_rng(1).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
