"""Boxes drawn in a real browser with mouse and keyboard, and read back with Viam's own client."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from journey_pages import Pages
from journey_stack import LOGIN_URL, local_page, wait_for
from playwright.sync_api import Browser, Page, Route, expect
from viam.app.viam_client import ViamClient
from viam.proto.app.data import BoundingBox
from viam.rpc.dial import DialOptions

from gleaner.sim import truth, views
from gleaner.sim.geometry import Lens, Pose

SECONDS = 1000


#: A place in the arena with three signs in full view.
POSE = Pose(1136, -1474, -147)


def picture(seed: int) -> bytes:
    if seed == 0:
        return bytes(cv2.imencode(".jpg", views.render(POSE, lens=Lens(1280, 960)))[1])
    image = np.random.default_rng(seed).integers(90, 160, (600, 800, 3), dtype=np.uint8)
    cv2.rectangle(image, (200, 150), (400, 300), (40, 50, 220), -1)
    return bytes(cv2.imencode(".jpg", image)[1])


@dataclass
class Server:
    web: str
    grpc: str
    rest: httpx.Client
    organization_id: str
    rows: list[int]
    """Of three pictures, in the order of the gallery."""

    def item(self, row: int) -> dict[str, Any]:
        item: dict[str, Any] = self.rest.post("/api/items/lookup", json={"rows": [row]}).json()["items"][0]
        return item

    def labels(self, row: int) -> list[str]:
        return sorted(box["label"] for box in self.item(row)["boxes"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Iterator[Server]:
    web, grpc = free_ports(2)
    command = [sys.executable, "-m", "gleaner.cli.main", "app", "--data-dir", str(tmp_path_factory.mktemp("app"))]
    command += ["--port", str(web), "--grpc-port", str(grpc)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(iter(process.stdout.readline, "")), name="app output")  # type: ignore[union-attr]
    reader.start()
    address = f"http://127.0.0.1:{web}"
    try:
        wait_for(lambda: LOGIN_URL.search("".join(said)) or process.poll() is not None, 60, "the app's login link")
        link = LOGIN_URL.search("".join(said))
        assert link, "the app ended:\n" + "".join(said)
        with httpx.Client(base_url=address, headers={"origin": address}, timeout=60, follow_redirects=True) as rest:
            rest.get(link.group(0))
            organization_id = rest.get("/api/auth/me").json()["organizations"][0]["id"]
            rows = []
            for seed in range(3):
                files = [("files", (f"scene_{seed}.jpg", picture(seed), "image/jpeg"))]
                rows.append(rest.post("/api/items/upload", files=files).json()["items"][0]["row"])
            yield Server(address, f"127.0.0.1:{grpc}", rest, organization_id, rows[::-1])
    finally:
        process.terminate()
        process.wait(20)
        reader.join(5)
        process.stdout.close()


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    with local_page(chromium) as opened:
        cookies = [{"name": c.name, "value": c.value or "", "url": server.web} for c in server.rest.cookies.jar]
        opened.context.add_cookies(cookies)  # type: ignore[arg-type]
        opened.set_default_timeout(10 * SECONDS)
        yield opened


class Canvas:
    """The opened picture, with the mouse in shares of it."""

    def __init__(self, page: Page, server: Server, row: int) -> None:
        self.page = page
        page.goto(f"{server.web}/data?item={row}")
        page.get_by_role("dialog", name="Picture").wait_for()
        self.sheet = page.locator(".stage .sheet")
        self.sheet.locator("img:not(.thumb)").evaluate("image => image.decode()")
        expect(self.sheet.locator("img.thumb")).to_have_count(0)
        page.get_by_role("button", name="Draw boxes").click()
        self.panel = page.get_by_role("region", name="Boxes")

    def at(self, x: float, y: float) -> tuple[float, float]:
        place = self.sheet.bounding_box()
        assert place
        return place["x"] + x * place["width"], place["y"] + y * place["height"]

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=4)
        self.page.mouse.up()

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.at(x, y))

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def saved(self) -> None:
        expect(self.page.get_by_role("status", name="Boxes")).to_have_text(re.compile("Saved"))


def edges(box: dict[str, Any]) -> tuple[float, float, float, float]:
    return box["x_min"], box["y_min"], box["x_max"], box["y_max"]


def close_to(*expected: float) -> Any:
    return pytest.approx(expected, abs=0.006)


def test_boxes_are_drawn_moved_resized_labelled_undone_and_stored(page: Page, server: Server) -> None:
    first, second, _ = server.rows
    canvas = Canvas(page, server, first)

    canvas.drag((0.25, 0.25), (0.5, 0.5))
    page.keyboard.type("red block")
    page.keyboard.press("Enter")
    wait_for(lambda: server.labels(first) == ["red block"], 10, "the first box on the server")

    # The next one has the last label, and is drawn inside the first.
    canvas.drag((0.3, 0.3), (0.4, 0.4))
    wait_for(lambda: server.labels(first) == ["red block"] * 2, 10, "the box inside the box")
    canvas.keys("l")
    page.keyboard.type("hole")
    page.keyboard.press("Enter")
    wait_for(lambda: server.labels(first) == ["hole", "red block"], 10, "the other label")
    canvas.keys("1")
    wait_for(lambda: server.labels(first) == ["red block"] * 2, 10, "the label of the first key")
    canvas.keys("2")

    # Taken hold of by a click, moved, pulled at its corner, pushed against the picture's edge.
    canvas.click(0.35, 0.35)
    canvas.drag((0.35, 0.35), (0.75, 0.85))
    canvas.drag((0.8, 0.9), (1.2, 1.2))
    wait_for(lambda: server.labels(first) == ["hole", "red block"], 10, "the label of the second key")
    canvas.saved()
    hole = next(box for box in server.item(first)["boxes"] if box["label"] == "hole")
    assert edges(hole) == close_to(0.7, 0.8, 1, 1)
    canvas.keys("Control+z")
    wait_for(lambda: edges(server.item(first)["boxes"][0]) != edges(hole), 10, "the pull taken back")

    # A slip of the hand draws nothing; the next picture gets boxes of its own.
    canvas.keys("Escape")
    canvas.drag((0.1, 0.9), (0.101, 0.901))
    canvas.keys("ArrowRight")
    expect(page.get_by_role("dialog", name="Picture")).to_contain_text("2 of 3")
    canvas.drag((0, 0), (0.1, 0.2))
    wait_for(lambda: server.labels(second) == ["hole"], 10, "the box on the next picture")
    # Undo follows to the picture before.
    canvas.keys("Control+z", "Control+z")
    expect(page.get_by_role("dialog", name="Picture")).to_contain_text("1 of 3")
    wait_for(lambda: server.labels(second) == [], 10, "the next picture's box to be gone")
    canvas.keys("Control+Shift+z", "Control+Shift+z")
    wait_for(lambda: server.labels(second) == ["hole"], 10, "the next picture's box to be back")
    canvas.saved()

    with ThreadPoolExecutor(1) as aside:  # this thread's event loop is Playwright's
        stored = aside.submit(asyncio.run, boxes_by_sdk(server, server.item(first)["id"])).result()
    page.goto(f"{server.web}/data?item={first}")
    expect(page.locator(".stage .name", has_text="red block")).to_be_visible()
    expect(page.locator(".stage rect")).to_have_count(2)
    assert sorted(box.label for box in stored) == ["hole", "red block"]
    block = next(box for box in stored if box.label == "red block")
    found = (block.x_min_normalized, block.y_min_normalized, block.x_max_normalized, block.y_max_normalized)
    assert found == close_to(0.25, 0.25, 0.5, 0.5)


async def boxes_by_sdk(server: Server, binary_data_id: str) -> list[BoundingBox]:
    wanted = {"name": "boxes", "role": "owner"}
    wanted |= {"resource_type": "organization", "resource_id": server.organization_id}
    key = server.rest.post(f"/api/organizations/{server.organization_id}/keys", json=wanted).json()
    options = DialOptions.with_api_key(key["key"], key["id"])
    options.insecure = True
    client = await ViamClient.create_from_dial_options(options, server.grpc)
    try:
        (found,) = await client.data_client.binary_data_by_ids([binary_data_id])
        return list(found.metadata.annotations.bboxes)
    finally:
        client.close()


def test_what_a_model_saw_is_accepted_by_keys(page: Page, server: Server) -> None:
    row = server.rows[2]
    signs = truth.visible(POSE, Lens(1280, 960))[:3]
    left, middle, right = sorted(signs, key=lambda sign: sign.x_min)
    for sign, sure in ((left, 0.94), (middle, 0.88), (right, 0.41)):
        place = {name: getattr(sign, name) for name in ("x_min", "y_min", "x_max", "y_max")}
        box = place | {"label": sign.label, "confidence": sure}
        server.rest.post(f"/api/items/{row}/boxes", json=box).raise_for_status()
    canvas = Canvas(page, server, row)
    expect(page.locator(".stage .sheet rect.suggested")).to_have_count(3)
    expect(page.locator(".stage")).to_contain_text(re.compile(rf"{left.label}\s*94\s*%"))
    canvas.keys("a")
    expect(page.locator(".stage .sheet rect.suggested")).to_have_count(1)  # the next one is selected now
    wait_for(lambda: len([b for b in server.item(row)["boxes"] if b["confidence"] is None]) == 1, 10, "the surest")
    Pages(page, server.web).picture("boxes")
    canvas.click((right.x_min + right.x_max) / 2, (right.y_min + right.y_max) / 2)
    canvas.keys("Delete", "Shift+A")
    wait_for(lambda: server.labels(row) == sorted([left.label, middle.label]), 10, "the wrong box to be gone")
    wait_for(lambda: {box["confidence"] for box in server.item(row)["boxes"]} == {None}, 10, "both accepted")


def test_the_surest_boxes_of_a_dataset_are_accepted_at_once(page: Page, server: Server) -> None:
    made = server.rest.post("/api/datasets", json={"name": "seen", "organization_id": server.organization_id}).json()
    path = f"/api/datasets/{made['id']}"
    server.rest.post(f"{path}/items", json={"rows": server.rows[:2], "action": "add"}).raise_for_status()
    for n, sure in enumerate((0.97, 0.9, 0.85, 0.42, 0.1)):
        box = {"label": "crate", "x_min": 0.1 * n, "y_min": 0.8, "x_max": 0.1 * n + 0.08, "y_max": 0.95}
        row = server.rows[n % 2]
        server.rest.post(f"/api/items/{row}/boxes", json=box | {"confidence": sure}).raise_for_status()
    page.goto(f"{server.web}/datasets/{made['id']}")
    panel = page.get_by_role("group", name="Boxes from a model")
    expect(panel).to_contain_text("5 boxes from a model")
    expect(panel.get_by_role("button", name="Accept 3")).to_be_enabled()
    slider = panel.get_by_role("slider")
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    expect(panel.get_by_role("button", name="Accept 2")).to_be_enabled()
    Pages(page, server.web).picture("boxes-suggested")
    panel.get_by_role("button", name="Accept 2").click()
    expect(page.get_by_text("2 boxes on 2 pictures accepted")).to_be_visible()
    expect(panel.get_by_role("button", name="Accept 0")).to_be_disabled()
    panel.get_by_role("button", name="Dismiss 3").click()
    dialog = page.get_by_role("dialog", name="Dismiss 3 boxes?")
    dialog.get_by_role("button", name="Dismiss").click()
    expect(panel).to_have_count(0)
    crates = [one for one in server.rest.get(path).json()["box_labels"] if one["label"] == "crate"]
    assert crates == [{"label": "crate", "pictures": 2, "boxes": 2, "suggested": 0}]


def test_boxes_drawn_while_the_app_is_away_are_sent_when_it_is_back(page: Page, server: Server) -> None:
    row = server.rows[1]
    before = server.labels(row)
    canvas = Canvas(page, server, row)
    is_away = True

    def answer(route: Route) -> None:
        route.abort() if is_away and route.request.method != "GET" else route.continue_()

    page.route("**/api/items/*/boxes/**", answer)
    canvas.drag((0.5, 0.5), (0.6, 0.6))
    if page.get_by_role("combobox", name="Label of the box").is_visible():
        page.keyboard.type("hole")
        page.keyboard.press("Enter")
    canvas.drag((0.7, 0.5), (0.8, 0.6))
    expect(page.get_by_role("status", name="Boxes")).to_have_text(re.compile("2 changes not saved"))
    # The page is closed and opened again: the boxes are still there, and still unsaved.
    page.reload()
    expect(page.locator(".stage rect")).to_have_count(len(before) + 2)
    assert server.labels(row) == before
    expect(page.get_by_role("status", name="Boxes")).to_have_text(re.compile("2 changes not saved"))
    is_away = False
    page.get_by_role("button", name="2 changes not saved").click()
    expect(page.get_by_text("2 changes not saved")).to_have_count(0)
    assert len(server.labels(row)) == len(before) + 2


def test_a_turned_picture_is_boxed_as_it_is_seen(page: Page, server: Server) -> None:
    """EXIF says a quarter turn: the page shows it upright, and boxes count from the upright picture's corner."""
    image = np.random.default_rng(9).integers(0, 255, (200, 400, 3), dtype=np.uint8)
    jpeg = bytes(cv2.imencode(".jpg", image)[1])
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    files = [("files", ("turned.jpg", turned, "image/jpeg"))]
    row = server.rest.post("/api/items/upload", files=files).json()["items"][0]["row"]
    canvas = Canvas(page, server, row)
    place = canvas.sheet.bounding_box()
    assert place and place["height"] == pytest.approx(2 * place["width"], rel=0.02)
    canvas.drag((0, 0), (0.5, 0.25))
    if page.get_by_role("combobox", name="Label of the box").is_visible():
        page.keyboard.type("corner")
        page.keyboard.press("Enter")
    wait_for(lambda: len(server.labels(row)) == 1, 10, "the box")
    assert edges(server.item(row)["boxes"][0]) == close_to(0, 0, 0.5, 0.25)
