"""The HTTP door of people, fleet, models and packages: cookies, statuses, ranges."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import httpx
import pytest_asyncio
from fleet_world import Fleet

from described_answers import described_answers
from gleaner.app.http.app_factory import create_app
from gleaner.app.services.auth import COOKIE
from gleaner.app.services.packages import NewPackage

ORIGIN = "http://gleaner.test"


@pytest_asyncio.fixture
async def web(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(fleet.context)
    hooks = described_answers(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN, event_hooks=hooks) as client:
        yield client


async def log_in(web: httpx.AsyncClient, fleet: Fleet) -> None:
    answer = await web.get("/login", params={"token": fleet.context.auth.create_login_link()})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_nothing_is_open_without_login(web: httpx.AsyncClient, fleet: Fleet) -> None:
    paths = (await web.get("/api/openapi.json")).json()["paths"]
    opened = []
    for path, methods in paths.items():
        for method in methods:
            answer = await web.request(method, path.replace("{row}", "1").replace("{", "").replace("}", ""))
            if answer.status_code not in (401, 400):
                opened.append((method, path, answer.status_code))
    # Logging out needs no login; a signed link is its own permission, and one that was made up is refused.
    known = {("post", "/api/auth/logout", 200), ("get", "/api/signed/{token}", 403)}
    assert set(opened) <= known


async def test_a_login_link_sets_a_strict_cookie_once(web: httpx.AsyncClient, fleet: Fleet) -> None:
    token = fleet.context.auth.create_login_link()
    cookie = (await web.get("/login", params={"token": token})).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    me = (await web.get("/api/auth/me")).json()
    assert me["organizations"][0] | {"name": ""} == {"id": fleet.organization_id, "name": "", "role": "owner"}
    again = await web.get("/login", params={"token": token})
    assert again.headers["location"] == "/", "already in: the old link does no harm"
    web.cookies.clear()
    refused = await web.get("/login", params={"token": token})
    assert refused.status_code == 401
    assert "gleaner app login-link" in refused.text


async def test_password_login_and_logout(web: httpx.AsyncClient, fleet: Fleet) -> None:
    await log_in(web, fleet)
    before = web.cookies[COOKIE]
    assert (await web.put("/api/auth/password", json={"password": "four random words"})).status_code == 200
    await web.post("/api/auth/logout")
    web.cookies.set(COOKIE, before)
    assert error(await web.get("/api/auth/me"))[0] == 401, "the old session ended with the new password"
    web.cookies.clear()
    wrong = await web.post("/api/auth/login", json={"email": "owner@localhost", "password": "no"})
    assert error(wrong) == (401, "unauthenticated")
    good = await web.post("/api/auth/login", json={"email": "owner@localhost", "password": "four random words"})
    assert good.json()["user"]["has_password"] is True


async def test_another_sites_page_cannot_act_for_the_user(web: httpx.AsyncClient, fleet: Fleet) -> None:
    await log_in(web, fleet)
    body = {"name": "evil", "location_id": fleet.location_id}
    refused = await web.post("/api/machines", json=body, headers={"origin": "https://evil.example"})
    assert error(refused) == (403, "permission_denied")
    assert (await web.post("/api/machines", json=body, headers={"origin": ORIGIN})).status_code == 200


async def test_machines_configurations_and_secrets(web: httpx.AsyncClient, fleet: Fleet) -> None:
    await log_in(web, fleet)
    [machine] = (await web.get("/api/machines", params={"organization_id": fleet.organization_id})).json()
    assert (machine["online_state"], machine["items_48h"]) == ("awaiting_setup", 0)
    url = f"/api/parts/{fleet.part_id}"
    base = (await web.get(f"{url}/config")).json()["revision"]
    bad = await web.put(f"{url}/config", json={"config": {"components": [{"name": "a b"}]}, "base_revision": base})
    assert error(bad) == (422, "config_rejected")
    assert {p["path"] for p in bad.json()["error"]["problems"]} == {"components[0].name", "components[0].api"}
    saved = await web.put(f"{url}/config", json={"config": {"components": []}, "base_revision": base})
    assert saved.json()["config"] == {"components": []}
    stale = await web.put(f"{url}/config", json={"config": {}, "base_revision": base})
    assert error(stale) == (409, "conflict")
    assert [one["edited_by"] for one in (await web.get(f"{url}/history")).json()] == ["Owner"]
    cloud = (await web.post(f"{url}/secret")).json()["machine_json"]["cloud"]
    assert len(base64.b64decode(cloud["package_key"])) == 32
    headers = {"part_id": cloud["id"], "secret": cloud["secret"]}
    web.cookies.clear()
    assert (await web.get(f"{url}/status", headers=headers)).json()["online_state"] == "awaiting_setup"
    assert error(await web.post(f"{url}/restart", headers=headers)) == (403, "permission_denied")


async def test_keys_are_shown_once(web: httpx.AsyncClient, fleet: Fleet) -> None:
    await log_in(web, fleet)
    url = f"/api/organizations/{fleet.organization_id}/keys"
    made = (await web.post(url, json={"name": "script", "role": "operator"})).json()
    [listed] = (await web.get(url)).json()
    assert "key" not in listed
    assert (listed["id"], listed["role"], listed["resource_type"]) == (made["id"], "operator", "organization")
    web.cookies.clear()
    headers = {"key_id": made["id"], "key": made["key"]}
    assert (await web.get("/api/machines", headers=headers)).status_code == 200
    assert error(await web.delete(f"/api/machines/{fleet.machine.id}", headers=headers))[0] == 403
    await log_in(web, fleet)
    await web.delete(f"/api/keys/{made['id']}")
    web.cookies.clear()
    assert error(await web.get("/api/machines", headers=headers))[0] == 401


async def test_packages_are_downloaded_whole_in_pieces_or_not_at_all(web: httpx.AsyncClient, fleet: Fleet) -> None:
    content = bytes(range(256)) * 1000
    fleet.context.packages.register(NewPackage(fleet.organization_id, "m", "1.0"), [content])
    url = f"/api/packages/{fleet.organization_id}/m/1.0.tar.gz"
    assert error(await web.get(url))[0] == 401
    await log_in(web, fleet)
    whole = await web.get(url)
    assert (whole.content, whole.headers["content-type"]) == (content, "application/x-gzip")
    assert whole.headers["x-goog-hash"].startswith("crc32c=")
    for asked, start, end in (
        ("0-9", 0, 10),
        ("255990-", 255990, 256000),
        ("-7", 255993, 256000),
        ("9-999999", 9, 256000),
    ):
        part = await web.get(url, headers={"range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, content[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/256000"
    beyond = await web.get(url, headers={"range": "bytes=256000-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */256000")
    changed = await web.get(url, headers={"range": "bytes=0-9", "if-range": '"another"'})
    assert (changed.status_code, len(changed.content)) == (200, 256000)
    head = await web.head(url)
    assert (head.content, head.headers["content-length"]) == (b"", "256000")


async def test_models_are_listed_deployed_and_deleted(web: httpx.AsyncClient, fleet: Fleet) -> None:
    await log_in(web, fleet)
    fleet.context.packages.register(NewPackage(fleet.organization_id, "m", "1"), [b"not an archive"])
    query = {"organization_id": fleet.organization_id}
    [model] = (await web.get("/api/ml_models", params=query)).json()
    assert (model["name"], [v["version"] for v in model["versions"]]) == ("m", ["1"])
    made = await web.post("/api/ml_models/m/deploy", json={"part_id": fleet.part_id})
    assert made.json()["state"] == "offline"
    config = (await web.get(f"/api/parts/{fleet.part_id}/config")).json()["config"]
    assert config["packages"][0]["version"] == "latest"
    await web.delete(f"/api/ml_models/m/deployments/{fleet.part_id}")
    assert (await web.get("/api/ml_models/m", params=query)).json()["deployments"] == []
    assert (await web.delete("/api/ml_models/m", params=query)).json() == {"deleted": 1}
    assert error(await web.get("/api/ml_models/m", params=query)) == (404, "not_found")
