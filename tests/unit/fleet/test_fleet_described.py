"""OpenAPI says exactly what the fleet's answers hold; the client of these tests holds every answer against it."""

from __future__ import annotations

import tarfile
import time
from collections.abc import AsyncIterator
from io import BytesIO

import httpx
import pytest
import pytest_asyncio
from fleet_world import Fleet

from described_answers import described_answers
from gleaner.app.http.app_factory import create_app
from gleaner.app.http.models_learning import JobModel
from gleaner.app.services.auth import COOKIE
from gleaner.app.services.jobs_store import JobStore, Status
from gleaner.app.services.logs import NewLine
from gleaner.app.services.packages import ML_MODEL, NewPackage

SECOND_NS = 1_000_000_000
METRICS = {
    "t_s": 1.5,
    "step": 1,
    "train_loss": 0.5,
    "train_accuracy": 0.7,
    "validation_loss": None,
    "validation_accuracy": None,
}
STATUS = {
    "revision": "1-abc",
    "resources": [{"name": "cam", "api": "rdk:component:camera", "model": "m", "state": "ready", "error": ""}],
    "packages": [{"name": "m", "version": "1", "state": "ready", "error": ""}],
    "capture": {
        "collectors": [
            {
                "component": "cam",
                "method": "GetImages",
                "captured": 3,
                "stored": 3,
                "waiting": 1,
                "synced": 1,
                "dropped": {"disk full": 1},
                "frequency_hz": 0.5,
                "last_error": "",
            }
        ],
        "backlog_files": 1,
        "backlog_bytes": 10,
        "oldest_unsent": None,
        "sync_error": "",
    },
}


@pytest_asyncio.fixture
async def web(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(fleet.context)
    session = fleet.context.auth.redeem_login_link(fleet.context.auth.create_login_link())
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://gleaner.test",
        cookies={COOKIE: session.token},
        event_hooks=described_answers(app),
    ) as client:
        yield client


def good(answer: httpx.Response) -> httpx.Response:
    assert answer.status_code == 200, answer.text
    return answer


async def test_every_answer_is_described(web: httpx.AsyncClient) -> None:
    paths = good(await web.get("/api/openapi.json")).json()["paths"]
    vague = [
        f"{method} {path}"
        for path, methods in paths.items()
        for method, operation in methods.items()
        for kind, content in operation["responses"]["200"].get("content", {}).items()
        if kind == "application/json" and not ({"$ref", "items"} & content["schema"].keys())
    ]
    # The report is the training's own format, told apart by its field `format` and described in docs/architecture.md.
    assert vague == ["get /api/ml_models/{name}/versions/{version}/report"]


async def test_people_and_places(web: httpx.AsyncClient, fleet: Fleet) -> None:
    organization = f"/api/organizations/{fleet.organization_id}"
    good(await web.put("/api/auth/password", json={"password": "four random words"}))
    good(await web.post("/api/auth/login", json={"email": "owner@localhost", "password": "four random words"}))
    assert good(await web.get("/api/auth/me")).json()["user"]["has_password"] is True
    assert good(await web.patch(organization, json={"name": "Farm"})).json()["name"] == "Farm"
    made = good(await web.post(f"{organization}/locations", json={"name": "barn"})).json()
    assert made in good(await web.get(f"{organization}/locations")).json()
    assert good(await web.patch(f"/api/locations/{made['id']}", json={"name": "shed"})).json()["name"] == "shed"
    assert good(await web.delete(f"/api/locations/{made['id']}")).json() == {}
    key = good(await web.post(f"{organization}/keys", json={"role": "operator"})).json()
    assert [one["id"] for one in good(await web.get(f"{organization}/keys")).json()] == [key["id"]]
    assert good(await web.delete(f"/api/keys/{key['id']}")).json() == {}
    assert good(await web.post("/api/auth/logout")).json() == {}
    assert (await web.get("/api/auth/me")).status_code == 401


async def test_machines_and_what_they_say(web: httpx.AsyncClient, fleet: Fleet) -> None:
    url = f"/api/parts/{fleet.part_id}"
    unheard = good(await web.get(f"{url}/status")).json()
    assert (unheard["capture"], unheard["resources"], unheard["info"]["host"]) == (None, [], "")
    fleet.context.fleet.heard_from(fleet.part_id, {"host": "pi", "ips": ["10.0.0.2"], "surprise": 1})
    fleet.context.fleet.reported(fleet.part_id, STATUS)
    status = good(await web.get(f"{url}/status")).json()
    assert {name: status[name] for name in ("resources", "packages", "capture")} == {
        name: STATUS[name] for name in ("resources", "packages", "capture")
    }
    machine = f"/api/machines/{fleet.machine.id}"
    changed = good(await web.patch(machine, json={"name": "digger"})).json()
    assert good(await web.get("/api/machines")).json() == [good(await web.get(machine)).json()] == [changed]
    assert (changed["online_state"], changed["parts"][0]["info"]["ips"]) == ("online", ["10.0.0.2"])
    config = good(await web.put(f"{url}/config", json={"config": {"components": []}})).json()
    assert good(await web.get(f"{url}/config")).json() == config
    assert good(await web.get(f"{url}/history")).json()[0]["config"] == {"components": []}
    cloud = good(await web.post(f"{url}/secret")).json()["machine_json"]["cloud"]
    assert {"id", "secret", "app_address", "web_address"} <= cloud.keys()
    assert len(good(await web.get("/api/models/catalog")).json()) > 10
    lines = [NewLine(time.time_ns(), "info", "cam", message) for message in ("older", "newer")]
    fleet.context.logs.append(fleet.part(), fleet.part_id, lines)
    page = good(await web.get(f"{url}/logs", params={"limit": 1})).json()
    assert (page["logs"][0]["message"], page["next"]) == ("newer", page["logs"][0]["id"])
    assert good(await web.post(f"{url}/restart")).json() == {}
    assert good(await web.post(f"{url}/sync")).json() == {}
    assert (await web.get(f"{url}/cameras/cam/image.jpg")).status_code == 503
    assert good(await web.delete(machine)).json() == {}


async def test_a_word_that_only_a_newer_machine_knows_hides_nothing(web: httpx.AsyncClient, fleet: Fleet) -> None:
    fleet.context.fleet.reported(fleet.part_id, {"revision": "1", "resources": None, "packages": None, "capture": None})
    assert good(await web.get(f"/api/parts/{fleet.part_id}/status")).json()["packages"] == []
    web.event_hooks = {}
    newer = [{**STATUS["resources"][0], "state": "dreaming"}]  # type: ignore[index]
    fleet.context.fleet.reported(fleet.part_id, {**STATUS, "resources": newer})
    assert good(await web.get(f"/api/parts/{fleet.part_id}/status")).json()["resources"] == newer


def queued_job(fleet: Fleet) -> str:
    JobStore(fleet.context.database).insert(
        {
            "id": "job1",
            "organization_id": fleet.organization_id,
            "status": Status.PENDING.value,
            "model_name": "m",
            "model_version": "1",
            "model_type": "object_detection",
            "labels": ["a"],
            "dataset_id": "d",
            "dataset_name": "shapes",
            "dataset_version": 1,
            "dataset_version_id": "v",
            "dataset_hash": "abc",
            "item_count": 4,
            "time_budget_s": 60.0,
            "created_ns": SECOND_NS,
            "attempts": 0,
            "progress": {"fraction": 0.0, "phase": "waiting", "eta_s": None},
            "metrics": [METRICS],
            "warnings": ["few pictures"],
        }
    )
    return "job1"


async def test_training_jobs(web: httpx.AsyncClient, fleet: Fleet) -> None:
    job = f"/api/training_jobs/{queued_job(fleet)}"
    JobStore(fleet.context.database).add_lines("job1", [(SECOND_NS, "info", "hello")])
    listed = good(await web.get("/api/training_jobs", params={"organization_id": fleet.organization_id})).json()
    told = good(await web.get(job)).json()
    assert listed == [told] and told["metrics"] == [METRICS]
    assert JobModel.model_validate(told).model_dump(mode="json") == told
    assert good(await web.get(f"{job}/logs")).json()["logs"][0]["message"] == "hello"
    assert good(await web.post(f"{job}/cancel")).json()["status"] == "canceled"
    assert good(await web.delete(job)).json() == {}


async def test_training_scripts(web: httpx.AsyncClient, fleet: Fleet) -> None:
    query = {"organization_id": fleet.organization_id}
    fleet.context.spool.start()
    for version in ("1.0", "1.1"):
        sent = {**query, "name": "mine", "version": version}
        made = good(await web.post("/api/training_jobs/scripts", params=sent, content=b"an archive")).json()
        assert made["versions"] == [version]
    (script,) = good(await web.get("/api/training_jobs/scripts", params=query)).json()
    assert script["name"] == "mine" and script["versions"] == ["1.1", "1.0"]
    again = await web.post("/api/training_jobs/scripts", params=sent, content=b"an archive")
    assert again.status_code == 409
    body = {"dataset_id": "none", "script": "mine", "model_name": "m", "arguments": {"--x": "1"}}
    refused = await web.post("/api/training_jobs/custom", params=query, json=body)
    assert refused.status_code == 400 and "'--x' cannot be an argument" in refused.json()["error"]["message"]


async def test_models_trained_and_uploaded(web: httpx.AsyncClient, fleet: Fleet) -> None:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("report.json")
        member.size = 2
        archive.addfile(member, BytesIO(b"{}"))
    trained = {
        "model_type": "object_detection",
        "labels": ["a"],
        "accuracy": 1,
        "suggested_threshold": 0.4,
        "job_id": "job1",
        "dataset": {"id": "d", "name": "shapes", "version": 1, "item_count": 4},
    }
    uploaded = {"model_type": None, "labels": "a", "accuracy": "good", "job_id": 5, "dataset": {"id": "d"}}
    for version, about in (("1", uploaded), ("2", trained)):
        new = NewPackage(fleet.organization_id, "m", version, ML_MODEL, about)
        fleet.context.packages.register(new, [buffer.getvalue()])
    query = {"organization_id": fleet.organization_id}
    [model] = good(await web.get("/api/ml_models", params=query)).json()
    by_version = {one["version"]: one for one in model["versions"]}
    assert by_version["2"]["dataset"] == trained["dataset"]
    assert [by_version["1"][name] for name in ("accuracy", "job_id", "dataset")] == [None, None, None]
    assert good(await web.get("/api/ml_models/m/versions/2/report", params=query)).json() == {}
    deployed = good(await web.post("/api/ml_models/m/deploy", json={"part_id": fleet.part_id, **query})).json()
    assert good(await web.get("/api/ml_models/m", params=query)).json()["deployments"] == [deployed]
    assert good(await web.delete(f"/api/ml_models/m/deployments/{fleet.part_id}")).json() == {}
    assert good(await web.delete("/api/ml_models/m", params=query)).json() == {"deleted": 2}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/auth/login", {"email": "a", "password": "b"}),
        ("POST", "/api/machines", {"name": "a", "location_id": "b"}),
        ("PUT", "/api/parts/x/config", {"config": {}}),
        ("POST", "/api/training_jobs", {"dataset_id": "d", "model_name": "m", "labels": ["a"]}),
        ("POST", "/api/ml_models/m/deploy", {"part_id": "x"}),
        ("POST", "/api/parts/x/command", {"resource": "r", "api": "a"}),
    ],
)
async def test_unknown_fields_are_refused_by_name(
    web: httpx.AsyncClient, method: str, path: str, body: dict[str, object]
) -> None:
    answer = await web.request(method, path, json={**body, "colour": "red"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["message"] == "body.colour: is not known here: check its spelling, or remove it"
    assert error["problems"] == [
        {"path": "body.colour", "message": "is not known here: check its spelling, or remove it", "hint": ""}
    ]
