"""Saved views and near-duplicates, in a real browser against a real app."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from journey_gallery import Server, logged_in_page, open_gallery, picture, running_server
from journey_stack import wait_for
from playwright.sync_api import Browser, Page, expect


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("app"), *free_ports(2)) as made:
        made.upload({f"red_{i}.jpg": picture("red", 1000 + i) for i in range(3)}, tags=["red"])
        made.upload({"blue.jpg": picture("blue", 1)})
        yield made


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    with logged_in_page(chromium, server) as opened:
        yield opened


def test_a_view_is_saved_opened_renamed_and_deleted(page: Page, server: Server) -> None:
    grid = open_gallery(page, server, "?tag=red")
    views = page.get_by_role("navigation", name="Saved views")
    views.get_by_role("button", name="Save this view").click()
    page.get_by_role("dialog").get_by_label("Name").fill("Red discs")
    page.keyboard.press("Enter")
    expect(views.get_by_role("link", name="Red discs")).to_have_attribute("aria-current", "page")
    expect(views.get_by_role("button", name="Save this view")).to_be_hidden()

    open_gallery(page, server)
    views.get_by_role("link", name="Red discs").click()
    expect(grid.get_by_role("option")).to_have_count(3)
    assert page.url.endswith("/data?tag=red")  # the address is what is shared
    views.get_by_role("button", name="Change the view Red discs").click()
    page.get_by_role("menuitem", name="Rename").click()
    page.get_by_role("dialog").get_by_label("Name").fill("Discs in red")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(views.get_by_role("link", name="Discs in red")).to_be_visible()
    views.get_by_role("button", name="Change the view Discs in red").click()
    page.get_by_role("menuitem", name="Delete").click()
    expect(views.get_by_role("link")).to_have_count(0)


def test_near_duplicates_are_found_and_hidden(page: Page, server: Server) -> None:
    views = [cv2.imdecode(np.frombuffer(picture("blue", 7000 + n), np.uint8), 1) for n in range(2)]
    shapes = [cv2.rectangle(view, (10, 10 + 60 * n), (150, 40 + 60 * n), (0, 0, 0), -1) for n, view in enumerate(views)]
    copies = {
        f"shape_{n}_{q}.jpg": bytes(cv2.imencode(".jpg", s, [1, q])[1])
        for n, s in enumerate(shapes)
        for q in (95, 70, 50)
    }
    rows = server.upload(copies, tags=["shape"])
    wait_for(lambda: server.count(near=str(rows[0])) == 3 and server.count(near=str(rows[3])) == 3, 60, "the hashes")
    grid = open_gallery(page, server, "?tag=shape")
    expect(grid.get_by_role("option")).to_have_count(6)
    page.get_by_role("switch", name="Hide near-duplicates").click()
    expect(grid.get_by_role("option")).to_have_count(2)
    expect(page.get_by_role("group", name="Active filters")).to_contain_text("Near-duplicates hidden")
    grid.get_by_role("option").first.click()
    page.get_by_role("dialog", name="Picture").get_by_role("link", name="Near-duplicates of this one").click()
    expect(grid.get_by_role("option")).to_have_count(3)
    assert "near=" in page.url and "item=" not in page.url
