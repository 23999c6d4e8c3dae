"""A few pictures tagged by hand, the rest by what an instant model says of them; pictures like one; in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from journey_gallery import COLOURS, SECONDS, Server, logged_in_page, open_gallery, picture, running_server
from journey_pages import Pages
from playwright.sync_api import Browser, Page, expect

TAGGED, UNTAGGED = 6, 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("app"), *free_ports(2)) as made:
        yield made


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    with logged_in_page(chromium, server) as opened:
        opened.set_viewport_size({"width": 1280, "height": 900})
        yield opened


@pytest.fixture(scope="module")
def dataset(server: Server) -> str:
    """Six of each colour with their tag, five of each without."""
    body = {"name": "discs", "organization_id": server.organization_id}
    dataset_id: str = server.rest.post("/api/datasets", json=body).json()["id"]
    rows = []
    for number, colour in enumerate(COLOURS):
        for tags, seeds in (([colour], range(TAGGED)), ([], range(100, 100 + UNTAGGED))):
            files = {f"{colour}_{seed}.jpg": picture(colour, 1000 * number + seed) for seed in seeds}
            rows += server.upload(files, tags)
    added = server.rest.post(f"/api/datasets/{dataset_id}/items", json={"rows": rows, "action": "add"})
    assert added.status_code == 200, added.text
    return dataset_id


def test_suggested_tags_are_looked_through_and_put_on_at_once(page: Page, server: Server, dataset: str) -> None:
    page.goto(f"{server.web}/datasets/{dataset}")
    page.get_by_role("button", name="Suggest tags").click()
    dialog = page.get_by_role("dialog", name="Suggested tags")
    expect(dialog).to_contain_text("Nothing is tagged until you say so", timeout=60 * SECONDS)
    dialog.get_by_role("slider", name="At least this sure").fill("0.2")
    expect(dialog.get_by_role("button", name=re.compile("sure$"))).to_have_count(len(COLOURS) * UNTAGGED)
    Pages(page, server.web).picture("suggested-tags")

    dialog.get_by_role("region", name="red").get_by_role("button").last.click()
    everything = len(COLOURS) * UNTAGGED
    assert server.count(dataset_id=dataset, tagged="untagged") == everything
    dialog.get_by_role("button", name=f"Tag {everything - 1} pictures").click()
    expect(page.get_by_text(f"{everything - 1} pictures tagged")).to_be_visible()
    assert server.count(dataset_id=dataset, tagged="untagged") == 1
    reds = server.count(dataset_id=dataset, tag="red")
    assert reds == TAGGED + UNTAGGED - 1, "the discs differ in nothing but their colour"

    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name=re.compile(rf"^Untagged\s*{everything}$"))).to_be_visible()
    assert server.count(dataset_id=dataset, tag="red") == TAGGED


def test_one_kind_of_thing_alone_cannot_be_told_apart(page: Page, server: Server, dataset: str) -> None:
    page.goto(f"{server.web}/datasets/{dataset}")
    page.get_by_role("button", name="Suggest tags").click()
    dialog = page.get_by_role("dialog", name="Suggested tags")
    expect(dialog).to_contain_text("Nothing is tagged until you say so", timeout=60 * SECONDS)
    for tag in ("red", "green"):
        dialog.get_by_role("group", name="Tags to tell apart").get_by_role("button", name=tag).click()
    expect(dialog.get_by_role("alert")).to_contain_text("two tags with two pictures each are the least")
    dialog.get_by_role("group", name="Tags to tell apart").get_by_role("button", name="red").click()
    expect(dialog.get_by_role("alert")).to_have_count(0)
    expect(dialog).to_contain_text("Nothing is tagged until you say so")


def test_pictures_that_show_something_similar_come_the_most_similar_first(
    page: Page, server: Server, dataset: str
) -> None:
    reds = open_gallery(page, server, f"?dataset_id={dataset}&tag=red").get_by_role("option")
    expect(reds).to_have_count(TAGGED)
    reds.first.click()
    page.get_by_role("dialog", name="Picture").get_by_role("link", name="Pictures that show something similar").click()
    expect(page.get_by_role("group", name="Active filters")).to_contain_text("Similar to one picture")
    cells = page.get_by_role("listbox", name="Images").get_by_role("option")
    expect(cells.first).to_be_visible()
    [asked] = re.findall(r"similar=(\d+)", page.url)
    names = page.evaluate(
        """async (row) => {
            const rows = [...new Uint32Array(await (await fetch(`/api/items/index?similar=${row}`)).arrayBuffer())];
            const body = JSON.stringify({ rows: rows.slice(0, 11) });
            const headers = { "content-type": "application/json" };
            const answer = await (await fetch("/api/items/lookup", { method: "POST", headers, body })).json();
            return answer.items.map((item) => [item.row, item.file_name]);
        }""",
        asked,
    )
    assert names[0][0] == int(asked)
    assert [name.partition("_")[0] for _, name in names] == ["red"] * (TAGGED + UNTAGGED)
    Pages(page, server.web).picture("similar-pictures")
