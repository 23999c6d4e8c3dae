"""An app with a gallery in it, and the ways into its pages."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import numpy as np
from journey_stack import LOGIN_URL, local_page, wait_for
from playwright.sync_api import Browser, Locator, Page

SECONDS = 1000
COLOURS = {"red": (40, 50, 220), "green": (60, 180, 60), "blue": (220, 90, 40)}


def picture(colour: str, seed: int) -> bytes:
    """A coloured disc on noise: no two are equal, since equal files would be one item."""
    image = np.random.default_rng(seed).integers(90, 160, (120, 160, 3), dtype=np.uint8)
    cv2.circle(image, (80, 60), 40, COLOURS[colour], -1, cv2.LINE_AA)
    return bytes(cv2.imencode(".jpg", image)[1])


@dataclass
class Server:
    """A running `gleaner app` and a logged-in REST client of it."""

    web: str
    rest: httpx.Client
    organization_id: str

    def upload(self, files: dict[str, bytes], tags: list[str] | None = None) -> list[int]:
        parts = [("files", (name, data, "image/jpeg")) for name, data in files.items()]
        answer = self.rest.post("/api/items/upload", files=parts, data={"tags": tags or []})
        assert answer.status_code == 200 and not answer.json()["failed"], answer.text
        return [one["row"] for one in answer.json()["items"]]

    def count(self, **filters: str) -> int:
        answer = self.rest.get("/api/items/facets", params={"organization_id": self.organization_id, **filters})
        return int(answer.json()["total"])


@contextmanager
def running_server(folder: Path, web: int, grpc: int) -> Iterator[Server]:
    command = [sys.executable, "-m", "gleaner.cli.main", "app", "--data-dir", str(folder)]
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
            made = Server(address, rest, rest.get("/api/auth/me").json()["organizations"][0]["id"])
            yield made
    finally:
        process.terminate()
        process.wait(20)
        reader.join(5)
        process.stdout.close()


@contextmanager
def logged_in_page(chromium: Browser, server: Server) -> Iterator[Page]:
    with local_page(chromium) as opened:
        cookies = [{"name": c.name, "value": c.value or "", "url": server.web} for c in server.rest.cookies.jar]
        opened.context.add_cookies(cookies)  # type: ignore[arg-type]
        opened.set_default_timeout(10 * SECONDS)
        yield opened


def open_gallery(page: Page, server: Server, query: str = "") -> Locator:
    page.goto(f"{server.web}/data{query}")
    grid = page.get_by_role("listbox", name="Images")
    grid.get_by_role("option").first.wait_for()
    return grid
