"""The app as a process: start, stop, ports, TLS, pages and what the browser is told."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from running_app import RunningApp, running_app
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from gleaner.app.http.static import install_pages
from gleaner.app.server import CannotStart


def test_second_app_on_the_same_folder_is_refused(app: RunningApp) -> None:
    with pytest.raises(CannotStart, match="already using"), running_app(app.context.settings.data_dir):
        pass


def test_taken_port_gives_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refusal = pytest.raises(CannotStart, match=f"{port}.*--grpc-port")
        with refusal as refused, running_app(tmp_path, grpc_port=port):
            pass
    assert "\n" not in str(refused.value)
    with running_app(tmp_path):  # nothing was left behind
        pass


def test_everything_is_still_there_after_a_restart(tmp_path: Path) -> None:
    with running_app(tmp_path) as app:
        owner = app.owner.id
        app.client.post("/api/datasets", json={"name": "kept", "organization_id": app.organization_id})
    with running_app(tmp_path) as app:
        assert app.owner.id == owner
        listed = app.client.get(f"/api/datasets?organization_id={app.organization_id}").json()
        assert [one["name"] for one in listed] == ["kept"]


def test_beyond_loopback_only_tls_is_spoken(tmp_path: Path) -> None:
    with running_app(tmp_path, host="0.0.0.0", public_host="127.0.0.1") as app:
        addresses = app.context.addresses
        assert addresses.tls and addresses.grpc.startswith("https://")
        trusted = ssl.create_default_context(cadata=addresses.ca_certificate)
        with httpx.Client(verify=trusted, trust_env=False) as client:
            answer = client.get(f"{addresses.web}/api/items/facets")
        assert answer.status_code == 401
        assert "strict-transport-security" in answer.headers
        with httpx.Client(trust_env=False) as client, pytest.raises(httpx.ConnectError):
            client.get(f"{addresses.web}/api/items/facets")
        with httpx.Client(trust_env=False) as client, pytest.raises(httpx.TransportError):
            client.get(f"{addresses.web.replace('https', 'http')}/api/items/facets")
        for file in (tmp_path / "tls").iterdir():
            assert file.stat().st_mode & 0o077 == 0
        ca = addresses.ca_certificate
    with running_app(tmp_path, host="0.0.0.0", public_host="127.0.0.1") as app:
        assert app.context.addresses.ca_certificate == ca  # machines have pinned it


def test_browser_is_told_to_be_strict(app: RunningApp) -> None:
    for path in ("/", "/api/items/facets", "/api/nothing"):
        headers = app.client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe-eval" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_other_sites_cannot_act_with_our_cookie(app: RunningApp, origin: str) -> None:
    answer = app.client.post("/api/items/delete", json={"filter": {}}, headers={"origin": origin})
    assert answer.status_code == 403
    cookie = "; ".join(f"{name}={value}" for name, value in app.client.cookies.items())
    with pytest.raises(InvalidStatus):
        connect(
            app.web.replace("http", "ws") + "/api/events",
            additional_headers={"cookie": cookie, "origin": origin},
            proxy=None,
        ).close()
    own = app.client.post("/api/items/lookup", json={"rows": []}, headers={"origin": app.web})
    assert own.status_code == 200


def test_openapi_describes_the_answers(app: RunningApp) -> None:
    schema = app.client.get("/api/openapi.json").json()
    assert "ItemModel" in schema["components"]["schemas"]
    assert "/api/items/index" in schema["paths"]


def test_errors_have_one_shape(app: RunningApp) -> None:
    for answer, status in (
        (app.client.get("/api/nothing"), 404),
        (app.client.delete("/api/items/index"), 405),
        (app.client.get("/api/items/x/thumb"), 400),
        (app.client.get("/api/datasets/none"), 404),
    ):
        assert answer.status_code == status
        assert set(answer.json()["error"]) >= {"code", "message", "hint"}


def pages(folder: Path) -> httpx.AsyncClient:
    made = FastAPI(openapi_url=None)
    install_pages(made, folder)
    return httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://app")


async def test_pages_come_from_the_built_files(tmp_path: Path) -> None:
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    (static / "assets" / "app-1234.js").write_text("run()")
    (static / "index.html").write_text("<title>Gleaner</title>")
    (tmp_path / "secret.txt").write_text("secret")
    async with pages(static) as client:
        assert "immutable" in (await client.get("/assets/app-1234.js")).headers["cache-control"]
        assert (await client.get("/machines/1?tab=control")).text == "<title>Gleaner</title>"
        assert (await client.get("/")).headers["cache-control"] == "no-cache"
        assert (await client.get("/assets/gone.js")).status_code == 404
        assert (await client.get("/api/gone")).status_code == 404
        assert "secret" not in (await client.get("/%2e%2e/secret.txt")).text


async def test_missing_pages_say_how_to_build_them(tmp_path: Path) -> None:
    async with pages(tmp_path) as client:
        answer = await client.get("/")
        assert answer.status_code == 503 and "make web" in answer.text
