"""Everyday work in the gallery, in a real browser against a real app: find, select, tag, collect, delete, upload, download."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from journey_gallery import Server, logged_in_page, open_gallery, picture, running_server
from journey_stack import wait_for
from playwright.sync_api import Browser, Locator, Page, expect


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("app"), *free_ports(2)) as made:
        for start in range(0, 480, 60):
            made.upload({f"disc_{i:03}.jpg": picture("green", i) for i in range(start, start + 60)})
        made.upload({f"red_{i}.jpg": picture("red", 1000 + i) for i in range(12)}, tags=["red"])
        made.upload({f"blue_{i}.jpg": picture("blue", 2000 + i) for i in range(8)}, tags=["blue"])
        yield made


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    with logged_in_page(chromium, server) as opened:
        yield opened


def select(grid: Locator, index: int) -> None:
    cell = grid.get_by_role("option").nth(index)
    cell.hover()
    cell.locator("[data-check]").click()


def selected(page: Page, count: int) -> None:
    expect(page.get_by_role("toolbar", name="Selected pictures")).to_contain_text(f"{count:,} selected")


def test_filters_show_counts_and_stay_in_the_address(page: Page, server: Server) -> None:
    grid = open_gallery(page, server)
    filters = page.get_by_role("search", name="Filters")
    expect(filters.locator("label", has_text="red")).to_contain_text("12")
    filters.get_by_role("checkbox", name=re.compile("^red")).check()
    expect(grid.get_by_role("option")).to_have_count(12)
    filters.get_by_role("checkbox", name=re.compile("^blue")).check()
    expect(grid.get_by_role("option")).to_have_count(20)
    assert "tag=red" in page.url and "tag=blue" in page.url

    page.reload()
    expect(grid.get_by_role("option")).to_have_count(20)
    page.get_by_role("button", name="Remove filter blue").click()
    expect(grid.get_by_role("option")).to_have_count(12)
    filters.get_by_role("button", name="Last hour").click()
    expect(grid.get_by_role("option")).to_have_count(12)
    assert "time=1h" in page.url
    page.get_by_role("button", name="Clear all").click()
    expect(page.get_by_role("tab", name="Images")).to_contain_text(str(server.count()))
    assert "?" not in page.url


def test_filters_that_match_nothing_say_so_and_can_be_cleared(page: Page, server: Server) -> None:
    page.goto(f"{server.web}/data?tag=no_such_tag")
    expect(page.get_by_role("heading", name="Nothing matches these filters")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(page.get_by_role("listbox", name="Images").get_by_role("option").first).to_be_visible()


def test_shift_selects_across_pictures_that_were_never_loaded(page: Page, server: Server) -> None:
    grid = open_gallery(page, server)
    select(grid, 0)
    selected(page, 1)
    page.keyboard.press("End")
    last = grid.locator(f'[aria-posinset="{server.count()}"]')
    last.click(modifiers=["Shift"])
    selected(page, server.count())
    page.keyboard.press("Escape")
    expect(page.get_by_role("toolbar")).to_have_count(0)


def test_dragging_and_control_a_select(page: Page, server: Server) -> None:
    grid = open_gallery(page, server)
    cells = grid.get_by_role("option")
    start, end = cells.nth(1).bounding_box(), cells.nth(7).bounding_box()
    assert start and end
    page.mouse.move(start["x"] + 50, start["y"] + 50)
    page.mouse.down()
    page.mouse.move(end["x"] + 50, end["y"] + 50, steps=5)
    selected(page, 7)
    page.mouse.up()
    selected(page, 7)
    page.keyboard.press("Control+a")
    selected(page, server.count())


def test_a_tag_is_typed_once_and_then_offered_completed_and_on_a_number_key(page: Page, server: Server) -> None:
    grid = open_gallery(page, server)
    select(grid, 2)
    grid.get_by_role("option").nth(5).click(modifiers=["Shift"])
    selected(page, 4)
    page.keyboard.press("t")
    box = page.get_by_role("combobox", name="Tags")
    box.fill("shiny disc")
    expect(page.get_by_role("alert")).to_contain_text("A tag cannot contain a space")
    box.fill("shiny_disc")
    expect(page.get_by_role("option", name="Add as new tag shiny_disc")).to_be_visible()
    box.press("Enter")
    expect(grid.get_by_role("option", name=re.compile("shiny_disc"))).to_have_count(4)
    expect(page.get_by_role("search", name="Filters").locator("label", has_text="shiny_disc")).to_contain_text("4")
    assert server.count(tag="shiny_disc") == 4

    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    select(grid, 8)
    page.keyboard.press("t")
    box.fill("shi")
    expect(page.get_by_role("option", name=re.compile("^shiny_disc"))).to_be_visible()
    box.press("Enter")
    expect(grid.get_by_role("option", name=re.compile("shiny_disc"))).to_have_count(5)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")

    select(grid, 9)
    page.keyboard.press("1")
    expect(grid.get_by_role("option", name=re.compile("shiny_disc"))).to_have_count(6)
    wait_for(lambda: server.count(tag="shiny_disc") == 6, 10, "the tag on the server")


def test_one_tag_goes_on_hundreds_of_pictures_and_off_again(page: Page, server: Server) -> None:
    open_gallery(page, server)
    page.keyboard.press("Control+a")
    everything = server.count()
    selected(page, everything)
    page.keyboard.press("t")
    page.get_by_role("combobox", name="Tags").fill("all_of_them")
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"“all_of_them” is on {everything} pictures")).to_be_visible()
    assert server.count(tag="all_of_them") == everything
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Remove tag").click()
    page.get_by_role("combobox", name="Tags to remove").fill("all_of")
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"“all_of_them” is off {everything} pictures")).to_be_visible()
    assert server.count(tag="all_of_them") == 0


def test_one_picture_is_tagged_untagged_and_walked_from(page: Page, server: Server) -> None:
    grid = open_gallery(page, server, "?tag=blue")
    grid.get_by_role("option").first.click()
    viewer = page.get_by_role("dialog", name="Picture")
    details = viewer.get_by_role("complementary", name="Details")
    expect(details).to_contain_text("160 × 120")
    expect(details).to_contain_text("image/jpeg")
    page.keyboard.press("t")
    page.keyboard.type("looked_at")
    page.keyboard.press("Enter")
    expect(details.get_by_role("button", name="Remove tag looked_at")).to_be_visible()
    details.get_by_role("button", name="Remove tag looked_at").click()
    expect(details.get_by_role("button", name="Remove tag looked_at")).to_have_count(0)
    wait_for(lambda: server.count(tag="looked_at") == 0, 10, "the tag to be gone on the server")

    viewer.get_by_role("button", name="Next picture").click()
    expect(viewer).to_contain_text("2 of 8")
    page.keyboard.press("ArrowRight")
    expect(viewer).to_contain_text("3 of 8")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)
    assert "item=" not in page.url


def test_untagged_pictures_are_tagged_one_after_the_other_in_the_viewer(page: Page, server: Server) -> None:
    """The list is of untagged pictures: tagging one must not pull it away under the person who looks at it."""
    grid = open_gallery(page, server, "?tagged=untagged")
    untagged = server.count(tagged="untagged")
    grid.get_by_role("option").first.click()
    viewer = page.get_by_role("dialog", name="Picture")
    for place in (1, 2):
        expect(viewer).to_contain_text(f"{place} of {untagged}")
        page.keyboard.press("t")
        page.keyboard.type("one_by_one")
        page.keyboard.press("Enter")
        expect(viewer.get_by_role("button", name="Remove tag one_by_one")).to_be_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowRight")
    expect(viewer).to_contain_text(f"3 of {untagged}")
    page.keyboard.press("Escape")
    expect(grid.get_by_role("option").first).to_have_attribute("aria-setsize", str(untagged - 2))


def test_pictures_go_into_a_new_dataset_and_out_of_it(page: Page, server: Server) -> None:
    open_gallery(page, server, "?tag=red&tag=blue")
    page.keyboard.press("Control+a")
    selected(page, 20)
    page.keyboard.press("d")
    page.get_by_role("combobox", name="Dataset").fill("discs of two colours")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name="discs of two colours")).to_be_visible()
    grid = page.get_by_role("listbox", name="Pictures of discs of two colours")
    expect(grid.get_by_role("option")).to_have_count(20)
    summary = page.get_by_role("complementary").filter(has_text="Versions")
    expect(summary.get_by_role("button", name=re.compile("^red"))).to_contain_text("12")

    select(grid, 0)
    page.get_by_role("button", name="Remove from dataset").click()
    expect(grid.get_by_role("option")).to_have_count(19)
    page.get_by_role("button", name="Undo").click()
    expect(grid.get_by_role("option")).to_have_count(20)

    page.goto(f"{server.web}/datasets")
    expect(page.get_by_role("link", name="Dataset discs of two colours")).to_contain_text("20 pictures")
    page.get_by_role("button", name="More about discs of two colours").click()
    page.get_by_role("menuitem", name="Delete dataset").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="No datasets yet")).to_be_visible()
    assert server.count(tag="red") == 12


def test_deleted_pictures_come_back_with_undo(page: Page, server: Server) -> None:
    before = server.count()
    grid = open_gallery(page, server)
    rows = [grid.get_by_role("option").nth(i).get_attribute("data-row") for i in range(3)]
    select(grid, 0)
    grid.get_by_role("option").nth(2).click(modifiers=["Shift"])
    page.keyboard.press("Delete")
    expect(page.get_by_text("3 items deleted")).to_be_visible()
    expect(grid.get_by_role("option").first).not_to_have_attribute("data-row", str(rows[0]))
    wait_for(lambda: server.count() == before - 3, 10, "the server to have hidden them")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("3 items restored")).to_be_visible()
    expect(grid.get_by_role("option").first).to_have_attribute("data-row", str(rows[0]))
    assert server.count() == before


def test_deleting_in_the_viewer_shows_the_next_picture(page: Page, server: Server) -> None:
    grid = open_gallery(page, server, "?tag=blue")
    grid.get_by_role("option").nth(1).click()
    viewer = page.get_by_role("dialog", name="Picture")
    expect(viewer).to_contain_text("2 of 8")
    page.keyboard.press("Delete")
    expect(viewer).to_contain_text("2 of 7")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Undo").click()
    expect(grid.get_by_role("option")).to_have_count(8)


def test_the_keyboard_alone_walks_selects_and_opens(page: Page, server: Server) -> None:
    grid = open_gallery(page, server)
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", " "):
        page.keyboard.press(key)
    selected(page, 1)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    selected(page, 3)
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Picture")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    expect(grid.locator(".cursor")).to_have_attribute("aria-posinset", "2")


def test_new_pictures_wait_above_while_older_ones_are_looked_at(page: Page, server: Server) -> None:
    grid = open_gallery(page, server)
    grid.hover()
    page.mouse.wheel(0, 1500)
    expect(grid.locator('[aria-posinset="1"]')).to_have_count(0)
    before = server.count()
    server.upload({"late.jpg": picture("red", 9001)})
    pill = page.get_by_role("button", name="1 new")
    expect(pill).to_be_visible()
    expect(grid.get_by_role("option").first).to_have_attribute("aria-setsize", str(before))
    expect(grid.locator('[aria-posinset="1"]')).to_have_count(0)
    pill.click()
    expect(grid.locator('[aria-posinset="1"]')).to_have_attribute("aria-label", re.compile("late.jpg"))


def test_new_pictures_appear_on_top_while_the_newest_are_looked_at(page: Page, server: Server) -> None:
    grid = open_gallery(page, server)
    page.mouse.move(5, 5)
    server.upload({"live.jpg": picture("red", 9002)})
    expect(grid.locator('[aria-posinset="1"]')).to_have_attribute("aria-label", re.compile("live.jpg"))


def test_files_are_uploaded_from_the_page(page: Page, server: Server) -> None:
    before = server.count()
    grid = open_gallery(page, server)
    files = [{"name": f"mine_{i}.jpg", "mimeType": "image/jpeg", "buffer": picture("blue", 9100 + i)} for i in range(3)]
    files.append({"name": "mine_0 again.jpg", "mimeType": "image/jpeg", "buffer": files[0]["buffer"]})
    page.get_by_label("Files to upload").set_input_files(files)  # type: ignore[arg-type]
    uploads = page.get_by_role("region", name="Uploads")
    expect(uploads).to_contain_text("uploaded")
    expect(grid.get_by_role("option", name=re.compile("mine_"))).not_to_have_count(0)
    assert server.count() >= before + 3
    uploads.get_by_role("button", name="Close").click()
    expect(uploads).to_have_count(0)


def test_a_selection_downloads_as_a_zip_with_its_tags(page: Page, server: Server) -> None:
    open_gallery(page, server, "?tag=blue")
    page.keyboard.press("Control+a")
    selected(page, 8)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download").click()
    with zipfile.ZipFile(io.BytesIO(Path(waiting.value.path()).read_bytes())) as archive:
        assert archive.testzip() is None
        lines = [json.loads(line) for line in archive.read("items.jsonl").splitlines()]
        assert len(lines) == 8 and all("blue" in line["tags"] for line in lines)
        sizes = {archive.read(f"data/{line['file']}") for line in lines}
        assert sizes == {picture("blue", 2000 + i) for i in range(8)}


def test_a_dataset_is_exported_and_imported_on_its_page(page: Page, server: Server) -> None:
    made = server.rest.post("/api/datasets", json={"name": "moved", "organization_id": server.organization_id}).json()
    server.rest.post(f"/api/datasets/{made['id']}/items", json={"filter": {"tag": ["red"]}, "action": "add"})
    page.goto(f"{server.web}/datasets/{made['id']}")
    page.get_by_role("button", name="Export", exact=True).click()
    with page.expect_download() as waiting:
        page.get_by_role("dialog").get_by_role("link", name="Export").click()
    assert waiting.value.suggested_filename == "moved-v1-coco.zip"
    content = Path(waiting.value.path()).read_bytes()
    page.get_by_role("button", name="Import", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.locator("input").set_input_files({"name": "x.zip", "mimeType": "application/zip", "buffer": content})
    dialog.get_by_role("button", name="Import", exact=True).click()
    expect(dialog.get_by_role("status")).to_contain_text("12 were here already")
