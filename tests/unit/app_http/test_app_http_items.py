"""The gallery's addresses, against a real app over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from running_app import RunningApp
from websockets.sync.client import connect


def jpeg(seed: int, width: int = 640, height: int = 480) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 16, width // 16, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", cv2.resize(pixels, (width, height)))[1])


def upload(app: RunningApp, *files: tuple[str, bytes], **form: Any) -> dict[str, Any]:
    answer = app.client.post("/api/items/upload", files=[("files", file) for file in files], data=form)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def index(app: RunningApp, query: str = "") -> list[int]:
    answer = app.client.get(f"/api/items/index?{query}")
    assert answer.headers["content-type"] == "application/octet-stream"
    return [int(row) for row in np.frombuffer(answer.content, "<u4")]


def lookup(app: RunningApp, *rows: int) -> list[dict[str, Any]]:
    return list(app.client.post("/api/items/lookup", json={"rows": rows}).json()["items"])


@pytest.fixture
def rows(app: RunningApp) -> list[int]:
    files = [(f"photo-{n}.jpg", jpeg(n)) for n in range(4)]
    return [one["row"] for one in upload(app, *files, tags=["shape", "new"])["items"]]


def test_dropped_files_are_stored_and_the_bad_ones_named(app: RunningApp) -> None:
    answer = upload(
        app, ("a.jpg", jpeg(1)), ("fake.png", b"no picture"), ("empty.txt", b""), ("notes.txt", b"hello"), tags="x"
    )
    assert [one["name"] for one in answer["items"]] == ["a.jpg", "notes.txt"]
    assert {one["name"]: bool(one["message"] and one["hint"]) for one in answer["failed"]} == {
        "fake.png": True,
        "empty.txt": True,
    }
    again = upload(app, ("a.jpg", jpeg(1)), tags="y")
    assert again["items"][0] == answer["items"][0] | {"duplicate": True}
    assert lookup(app, again["items"][0]["row"])[0]["tags"] == ["x", "y"]


def test_upload_for_a_part_is_stamped_with_its_place_and_joins_the_dataset(app: RunningApp) -> None:
    part_id, _ = app.new_part("porch")
    dataset = app.client.post("/api/datasets", json={"name": "d", "organization_id": app.organization_id}).json()
    made = upload(app, ("a.jpg", jpeg(1)), part_id=part_id, dataset_id=dataset["id"])["items"][0]
    item = lookup(app, made["row"])[0]
    assert item["machine"]["name"] == "porch" and item["part"]["id"] == part_id
    assert item["datasets"] == [{"id": dataset["id"], "name": "d"}]
    assert item["id"] == made["id"] == f"{app.organization_id}/{item['location']['id']}/{made['id'].split('/')[2]}"


def test_item_has_every_field_of_the_contract(app: RunningApp, rows: list[int]) -> None:
    item = lookup(app, rows[0])[0]
    wanted = (
        "row id kind file_name file_ext mime_type size_bytes width height captured_at received_at synced_at "
        "organization_id location machine part component_name component_type method tags boxes classifications datasets"
    )
    assert set(item) == set(wanted.split())
    assert (item["kind"], item["file_name"], item["width"], item["height"]) == ("image", "photo-0.jpg", 640, 480)
    assert item["captured_at"].endswith("Z") and item["tags"] == ["new", "shape"]


def test_index_facets_and_tags_agree(app: RunningApp, rows: list[int]) -> None:
    assert index(app) == rows[::-1]
    changed = app.client.post("/api/items/tags", json={"rows": rows[:2], "add": ["star"], "remove": ["new"]})
    assert changed.json() == {"changed": 2}
    assert sorted(index(app, "tag=star&tag=circle")) == rows[:2]
    facets = app.client.get("/api/items/facets?kind=image").json()
    assert facets["total"] == 4
    assert {one["value"]: one["count"] for one in facets["tags"]} == {"shape": 4, "new": 2, "star": 2}
    by_filter = app.client.post("/api/items/tags", json={"filter": {"tag": ["star"]}, "add": ["bright"]})
    assert by_filter.json() == {"changed": 2}


@pytest.mark.parametrize(
    "body",
    [{}, {"rows": [1], "filter": {}}, {"filter": {"tags": ["x"]}}, {"rows": []}, {"filter": {"start": "yesterday"}}],
)
def test_selections_that_say_nothing_clear_are_refused(app: RunningApp, body: dict[str, Any]) -> None:
    answer = app.client.post("/api/items/delete", json=body)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) >= {"code", "message", "hint"}


def test_deleting_can_be_undone(app: RunningApp, rows: list[int]) -> None:
    undo = app.client.post("/api/items/delete", json={"rows": rows[:3]}).json()
    assert undo["deleted"] == 3 and index(app) == rows[3:]
    assert app.client.post("/api/items/undelete", json={"undo": undo["undo"]}).json() == {"changed": 3}
    assert index(app) == rows[::-1]


def test_boxes_are_made_changed_and_removed(app: RunningApp, rows: list[int]) -> None:
    box = {"label": "star", "x_min": 0.1, "y_min": 0.1, "x_max": 0.5, "y_max": 0.5}
    made = app.client.post(f"/api/items/{rows[0]}/boxes", json=box).json()
    moved = app.client.patch(f"/api/items/{rows[0]}/boxes/{made['id']}", json={"x_max": 0.9}).json()
    assert moved == made | {"x_max": 0.9}
    assert lookup(app, rows[0])[0]["boxes"] == [moved]
    assert index(app, "label=star") == [rows[0]]
    assert app.client.delete(f"/api/items/{rows[0]}/boxes/{made['id']}").status_code == 200
    bad = app.client.post(f"/api/items/{rows[0]}/boxes", json=box | {"x_max": 2})
    assert bad.status_code == 400


def test_pictures_with_and_without_boxes_are_found_and_counted(app: RunningApp, rows: list[int]) -> None:
    box = {"label": "moon", "x_min": 0.1, "y_min": 0.1, "x_max": 0.5, "y_max": 0.5, "confidence": 0.4}
    made = [app.client.post(f"/api/items/{rows[1]}/boxes", json=box).json()["id"] for _ in range(2)]
    everything = index(app, "")
    assert index(app, "boxed=boxed") == [rows[1]]
    assert index(app, "boxed=unboxed") == [row for row in everything if row != rows[1]]
    facets = app.client.get("/api/items/facets", params={"boxed": "boxed"}).json()
    assert (facets["total"], facets["unboxed"]) == (1, len(everything) - 1)
    organization_id = app.client.get("/api/auth/me").json()["organizations"][0]["id"]
    dataset = app.client.post("/api/datasets", json={"name": "moons", "organization_id": organization_id}).json()
    app.client.post(f"/api/datasets/{dataset['id']}/items", json={"rows": rows[:3], "action": "add"})
    app.client.patch(f"/api/items/{rows[1]}/boxes/{made[0]}", json={"confidence": None})
    found = app.client.get(f"/api/datasets/{dataset['id']}").json()
    assert found["box_labels"] == [{"label": "moon", "pictures": 1, "boxes": 2, "suggested": 1}]
    assert found["unboxed"] == 2
    app.client.delete(f"/api/datasets/{dataset['id']}")
    for one in made:
        app.client.delete(f"/api/items/{rows[1]}/boxes/{one}")


def test_a_models_boxes_are_settled_in_bulk(app: RunningApp, rows: list[int]) -> None:
    box = {"label": "moon", "x_min": 0.1, "y_min": 0.1, "x_max": 0.5, "y_max": 0.5}
    for row, sure in ((rows[0], 0.9), (rows[1], 0.9), (rows[1], 0.3)):
        app.client.post(f"/api/items/{row}/boxes", json=box | {"confidence": sure})
    path, of = "/api/items/suggested-boxes", {"filter": {"label": ["moon"]}}
    assert app.client.post(path, json=of | {"action": "count"}).json() == {"boxes": 3, "pictures": 2}
    sure = {"action": "accept", "at_least": 0.8}
    assert app.client.post(path, json=of | sure).json() == {"boxes": 2, "pictures": 2}
    assert app.client.post(path, json={"rows": rows[:2], "action": "dismiss"}).json() == {"boxes": 1, "pictures": 1}
    left = [one["boxes"] for one in lookup(app, *rows[:2])]
    assert [[(b["label"], b["confidence"]) for b in boxes] for boxes in left] == [[("moon", None)]] * 2
    for bad in ({"at_least": 2}, {"action": "forget"}, {"rows": rows[:1], "filter": {}}):
        assert app.client.post(path, json=of | {"action": "count"} | bad).status_code == 400
    for row, boxes in zip(rows[:2], left, strict=True):
        app.client.delete(f"/api/items/{row}/boxes/{boxes[0]['id']}")


def test_a_box_that_is_sent_again_is_the_same_box(app: RunningApp, rows: list[int]) -> None:
    """A page that lost the answer sends its box again, and undoes a deletion under the same id."""
    box = {"label": "star", "x_min": 0.1, "y_min": 0.1, "x_max": 0.5, "y_max": 0.5, "confidence": None}
    path = f"/api/items/{rows[0]}/boxes/5f0c1b5e-1d8a-4b4e-9c55-0d9f6f4a8a01"
    made = [app.client.put(path, json=box).json() for _ in range(2)]
    assert lookup(app, rows[0])[0]["boxes"] == [made[0]] == [made[1]]
    changed = app.client.put(path, json=box | {"label": "moon", "x_max": 0.9}).json()
    assert lookup(app, rows[0])[0]["boxes"] == [changed]
    assert changed["label"] == "moon"
    assert app.client.put(path.replace(f"/{rows[0]}/", f"/{rows[1]}/"), json=box).status_code == 409
    assert app.client.put(f"/api/items/{rows[0]}/boxes/no%20id", json=box).status_code == 400
    assert app.client.put(path, json=box | {"x_min": 0.6}).status_code == 400
    app.client.delete(path)
    app.client.put(path, json=box)
    assert lookup(app, rows[0])[0]["boxes"] == [made[0]]
    app.client.delete(path)


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [
        ("", 200, slice(None)),
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=0-999999999", 206, slice(None)),
        ("bytes=999999999-", 416, slice(0, 0)),
        ("lines=1-2", 200, slice(None)),
    ],
)
def test_content_comes_in_ranges(app: RunningApp, rows: list[int], header: str, status: int, part: slice) -> None:
    answer = app.client.get(f"/api/items/{rows[0]}/content", headers={"range": header} if header else {})
    assert answer.status_code == status
    assert answer.content == jpeg(0)[part]


def test_uploaded_pages_never_run_as_ours(app: RunningApp) -> None:
    row = upload(app, ("x.html", b"<script>alert(1)</script>"))["items"][0]["row"]
    answer = app.client.get(f"/api/items/{row}/content")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_picture_that_ends_too_early_is_stored_with_a_warning(app: RunningApp) -> None:
    whole = jpeg(7)
    answer = upload(app, ("whole.jpg", whole + b"a phone's own bytes"), ("cut.jpg", whole[: len(whole) * 2 // 3]))
    assert answer["failed"] == []
    warnings = {one["name"]: one["warning"] for one in answer["items"]}
    assert warnings["whole.jpg"] == ""
    assert "ends too early" in warnings["cut.jpg"]


def test_thumbnails_are_pictures_even_of_broken_ones(app: RunningApp, rows: list[int]) -> None:
    good = app.client.get(f"/api/items/{rows[0]}/thumb")
    assert good.headers["content-type"] == "image/jpeg" and "immutable" in good.headers["cache-control"]
    broken = upload(app, ("broken.jpg", b"\xff\xd8\xff and nothing more"))["items"][0]["row"]
    answer = app.client.get(f"/api/items/{broken}/thumb")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/svg+xml"
    assert app.client.get("/api/items/999/thumb").status_code == 404


def test_datasets_live_over_http(app: RunningApp, rows: list[int]) -> None:
    made = app.client.post("/api/datasets", json={"name": "shapes", "organization_id": app.organization_id}).json()
    url = f"/api/datasets/{made['id']}"
    assert app.client.post(f"{url}/items", json={"rows": rows, "action": "add"}).json() == {"changed": 4}
    assert app.client.post(f"{url}/items", json={"rows": rows[:1], "action": "remove"}).json() == {"changed": 1}
    found = app.client.patch(url, json={"name": "forms"}).json()
    assert (found["name"], found["item_count"], found["versions"]) == ("forms", 3, [])
    check = app.client.get(f"{url}/check?label=shape&label=star").json()
    assert {one["label"]: one["count"] for one in check["counts"]} == {"shape": 3, "star": 0}
    listed = app.client.get(f"/api/datasets?organization_id={app.organization_id}").json()
    assert listed == [found]
    assert app.client.delete(url).json() == {} and app.client.get(url).status_code == 404


def test_changes_are_told_over_the_event_socket(app: RunningApp, rows: list[int]) -> None:
    cookie = "; ".join(f"{name}={value}" for name, value in app.client.cookies.items())
    address = app.web.replace("http", "ws") + "/api/events"
    with connect(address, additional_headers={"cookie": cookie}, proxy=None) as socket:

        def told(kind: str, act: Callable[[], object]) -> dict[str, Any]:
            act()
            while (event := json.loads(socket.recv(20)))["type"] != kind:
                pass
            return dict(event)

        added = told("items_added", lambda: upload(app, ("b.jpg", jpeg(77))))
        assert added["count"] == 1 and index(app)[0] in added["rows"]
        tagged = told("items_changed", lambda: app.client.post("/api/items/tags", json={"rows": rows, "add": ["z"]}))
        assert sorted(tagged["rows"]) == rows


def test_strangers_get_nothing(app: RunningApp, rows: list[int]) -> None:
    with httpx.Client(base_url=app.web, trust_env=False) as stranger:
        for path in ("index", "facets", f"{rows[0]}/thumb", f"{rows[0]}/content"):
            assert stranger.get(f"/api/items/{path}").status_code == 401
        assert stranger.post("/api/items/lookup", json={"rows": rows}).status_code == 401


def test_a_thumbnail_is_for_those_who_may_see_it_whoever_asked_before(app: RunningApp, rows: list[int]) -> None:
    address = f"/api/items/{rows[0]}/thumb"
    seen = app.client.get(address)
    assert seen.headers["content-type"] == "image/jpeg" and "immutable" in seen.headers["cache-control"]
    assert seen.headers["x-content-type-options"] == "nosniff"
    with httpx.Client(base_url=app.web, trust_env=False) as stranger:
        assert stranger.get(address).status_code == 401
        assert stranger.get(address, headers={"cookie": "gleaner_session=made-up"}).status_code == 401


def test_both_ways_to_a_thumbnail_answer_the_same(app: RunningApp, rows: list[int]) -> None:
    # A plain number takes the short way, any other way to write it the documented route.
    short = app.client.get(f"/api/items/{rows[0]}/thumb")
    other = f"{rows[0]}.0"
    long = app.client.get(f"/api/items/{other}/thumb")
    assert (short.status_code, long.status_code) == (200, 200)
    assert short.content == long.content
    for name in ("content-type", "cache-control", "x-content-type-options", "content-security-policy"):
        assert short.headers[name] == long.headers[name]
    assert app.client.get("/api/items/x/thumb").status_code == 400
    assert app.client.post(f"/api/items/{rows[0]}/thumb").status_code == 405
    with httpx.Client(base_url=app.web, trust_env=False) as stranger:
        assert stranger.get(f"/api/items/{other}/thumb").status_code == 401


def test_a_deleted_picture_has_no_thumbnail_also_for_who_just_saw_it(app: RunningApp, rows: list[int]) -> None:
    address = f"/api/items/{rows[0]}/thumb"
    assert app.client.get(address).status_code == 200
    undo = app.client.post("/api/items/delete", json={"rows": rows[:1]}).json()["undo"]
    answer = app.client.get(address)
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"
    app.client.post("/api/items/undelete", json={"undo": undo})
    assert app.client.get(address).status_code == 200


def test_near_and_once_are_filters_of_lists_and_counts(app: RunningApp, rows: list[int]) -> None:
    assert index(app, "once=true") == sorted(rows, reverse=True)
    assert index(app, f"near={rows[0]}") == [rows[0]]
    assert app.client.get("/api/items/facets?once=true").json()["total"] == 4
    assert app.client.get("/api/items/index?near=x").status_code == 400
