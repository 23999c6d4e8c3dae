"""Questions asked, saved and scheduled in a real browser, on readings of a real app."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from journey_gallery import SECONDS, Server, logged_in_page, picture, running_server
from journey_pages import Pages
from playwright.sync_api import Browser, Page, expect
from viam.app.viam_client import ViamClient
from viam.rpc.dial import DialOptions


async def send_readings(server: Server, grpc: int) -> None:
    organization = server.organization_id
    location = server.rest.get(f"/api/organizations/{organization}/locations").json()[0]["id"]
    machine = server.rest.post("/api/machines", json={"name": "kitchen", "location_id": location}).json()
    grant = {"name": "test", "resource_type": "organization", "resource_id": organization, "role": "owner"}
    key = server.rest.post(f"/api/organizations/{organization}/keys", json=grant).json()
    options = DialOptions.with_api_key(key["key"], key["id"])
    options.insecure = True
    client = await ViamClient.create_from_dial_options(options, app_url=f"http://127.0.0.1:{grpc}")
    try:
        when = datetime.now(UTC)
        await client.data_client.tabular_data_capture_upload(
            tabular_data=[{"readings": {"celsius": 21.5, "door": {"is open": False}}}],
            part_id=machine["parts"][0]["id"],
            component_type="rdk:component:sensor",
            component_name="oven",
            method_name="Readings",
            data_request_times=[(when, when)],
        )
    finally:
        client.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Iterator[Server]:
    web, grpc = free_ports(2)
    with running_server(tmp_path_factory.mktemp("app"), web, grpc) as made:
        sent = threading.Thread(target=lambda: asyncio.run(send_readings(made, grpc)))
        sent.start()  # of its own: Playwright's loop is this thread's
        sent.join()
        made.upload({f"{colour}.jpg": picture(colour, seed) for seed, colour in enumerate(("red", "green", "blue"))})
        yield made


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    with logged_in_page(chromium, server) as opened:
        opened.set_viewport_size({"width": 1280, "height": 900})
        opened.goto(f"{server.web}/query")
        yield opened


def run(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="SQL").fill(text)
    page.keyboard.press("Control+Enter")


def test_pictures_are_counted_saved_and_taken_out(page: Page) -> None:
    when = "TIMESTAMPTZ '2026-01-01 00:00:00Z' + INTERVAL 1 HOUR * length(file_name) AS at"
    run(page, f"SELECT file_name, size_bytes, {when} FROM items ORDER BY file_name")
    rows = page.get_by_role("region", name="Rows")
    expect(rows).to_contain_text("3 rows")
    expect(rows.get_by_role("row").nth(1)).to_contain_text("blue.jpg")
    rows.get_by_role("button", name="Chart").click()
    expect(rows.get_by_role("figure", name="The numbers of the rows over time")).to_be_visible()
    with page.expect_download() as taken:
        rows.get_by_role("button", name="CSV").click()
    lines = taken.value.path().read_text().splitlines()
    assert lines[0] == "file_name,size_bytes,at"
    assert [line.partition(",")[0] for line in lines[1:]] == ["blue.jpg", "green.jpg", "red.jpg"]
    Pages(page, "").picture("query")

    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("dialog", name="Save this query").get_by_label("Name").fill("files by name")
    page.keyboard.press("Enter")
    saved = page.get_by_role("region", name="Saved queries")
    expect(saved.get_by_role("button", name=re.compile("^files by name"))).to_be_visible()
    page.get_by_role("textbox", name="SQL").fill("SELECT 1")
    saved.get_by_role("button", name=re.compile("^files by name")).click()
    expect(page.get_by_role("textbox", name="SQL")).to_have_value(re.compile("ORDER BY file_name"))


ENDLESS = "SELECT count(*) FROM range(100000000000) AS one(a) WHERE a % 7 = hash(a) % 11"


def test_a_query_that_takes_too_long_is_stopped(page: Page) -> None:
    run(page, ENDLESS)
    expect(page.get_by_role("timer")).to_be_visible()
    Pages(page, "").picture("query-running")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("The query was stopped")).to_be_visible()
    expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)
    # Two may run at once: were these still running, the next would have to wait for a minute.
    for _ in range(2):
        run(page, ENDLESS)
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)
    run(page, "SELECT 41 + 1 AS answer")
    expect(page.get_by_role("region", name="Rows")).to_contain_text("42")


def test_a_mistake_is_shown_where_it_is(page: Page) -> None:
    def chosen() -> str:
        return str(page.evaluate("(e => e.value.slice(e.selectionStart, e.selectionEnd))(document.activeElement)"))

    run(page, "SELECT file_name\nFROM items\nWHERE size_bytes = FROM 3")
    expect(page.get_by_role("alert")).to_contain_text("(line 3, column 20)")
    assert chosen() == "FROM"
    run(page, "SELECT file_name, colour FROM items")
    expect(page.get_by_role("alert")).to_contain_text("colour")
    assert chosen() == "colour"
    Pages(page, "").picture("query-mistake")


def test_a_large_answer_comes_whole_as_a_file(page: Page) -> None:
    run(page, "SELECT i, 'row ' || i AS name FROM range(30000) AS r(i) ORDER BY i")
    rows = page.get_by_role("region", name="Rows")
    expect(rows).to_contain_text("30,000 rows")
    expect(rows).to_contain_text("the first 10,000 are shown, the files have all")
    with page.expect_download() as taken:
        rows.get_by_role("button", name="CSV").click()
    lines = taken.value.path().read_text().splitlines()
    assert (len(lines), lines[0], lines[-1]) == (30_001, "i,name", "29999,row 29999")
    run(page, "SELECT repeat('x', 10000) AS x FROM range(8000)")
    expect(page.get_by_role("alert")).to_contain_text("more than 64 MB")
    Pages(page, "").picture("query-too-large")
    with page.expect_download() as taken:
        page.get_by_role("button", name="JSON lines").click()
    assert taken.value.path().stat().st_size == 8000 * 10_009
    run(page, "SELECT repeat('x', 100000) AS x FROM range(10000000)")
    expect(page.get_by_role("alert")).to_contain_text("more than 64 MB")
    page.get_by_role("button", name="JSON lines").click()
    page.get_by_role("button", name="Stop the download").click()
    expect(page.get_by_text("The download was stopped")).to_be_visible()
    run(page, "SELECT 41 + 1 AS answer")
    expect(page.get_by_role("region", name="Rows")).to_contain_text("42")


def test_a_saved_query_is_changed_and_renamed(page: Page, server: Server) -> None:
    area, saved = page.get_by_role("textbox", name="SQL"), page.get_by_role("region", name="Saved queries")

    def listed() -> list[tuple[str, str]]:
        found = json.loads(server.rest.get(f"/api/organizations/{server.organization_id}/queries").content)
        return sorted((one["name"], one["text"]) for one in found if one["name"] != "files by name")

    area.fill("SELECT 1 AS one")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("dialog", name="Save this query").get_by_label("Name")).to_be_focused()
    page.keyboard.type("first")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Save", exact=True)).to_be_disabled()
    area.fill("SELECT 2 AS two WHERE false")
    expect(page.get_by_text("first, changed")).to_be_visible()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("button", name="Save", exact=True)).to_be_disabled()
    assert listed() == [("first", "SELECT 2 AS two WHERE false")]
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("first, changed")).to_be_visible()
    assert listed() == [("first", "SELECT 1 AS one")]
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("button", name="Save", exact=True)).to_be_disabled()
    page.get_by_role("button", name="Save as").click()
    page.get_by_role("dialog").get_by_label("Name").fill("first")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("first")  # taken: said in the dialog, which stays
    page.get_by_role("dialog").get_by_label("Name").fill("second")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    saved.get_by_role("button", name="Rename first").click()
    dialog = page.get_by_role("dialog", name="Rename this query")
    expect(dialog.get_by_label("Name")).to_have_value("first")
    dialog.get_by_label("Name").fill("third")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(saved.get_by_role("button", name=re.compile("^third"))).to_be_visible()
    assert listed() == [("second", "SELECT 2 AS two WHERE false"), ("third", "SELECT 2 AS two WHERE false")]

    page.get_by_role("button", name="Run", exact=True).click()
    rows = page.get_by_role("region", name="Rows")
    expect(rows.get_by_role("columnheader", name="two")).to_be_visible()
    expect(rows).to_contain_text("Nothing was found")
    Pages(page, "").picture("query-saved")


def test_what_is_wrong_is_said_and_the_question_stays(page: Page) -> None:
    run(page, "SELECT nothing FROM nowhere")
    expect(page.get_by_role("alert")).to_contain_text("nowhere")
    expect(page.get_by_role("textbox", name="SQL")).to_have_value("SELECT nothing FROM nowhere")
    run(page, "SELECT count(*) AS n FROM items")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("region", name="Rows")).to_contain_text("1 row")


def test_every_example_and_every_column_shown_can_be_asked(page: Page) -> None:
    def answered() -> None:
        with page.expect_response("**/api/queries") as came:
            page.get_by_role("button", name="Run", exact=True).click()
        assert came.value.ok, came.value.text()

    examples = page.get_by_role("region", name="Examples").get_by_role("button")
    expect(examples).not_to_have_count(0)
    for example in examples.all():
        example.click()
        answered()
    page.get_by_role("tab", name="SQL").click()
    tables = page.get_by_role("region", name="Tables").get_by_role("group")
    expect(tables).to_have_count(3)
    for table in tables.all():
        name = table.locator("summary").inner_text()
        columns = table.locator(".columns button").all_text_contents()
        page.get_by_role("textbox", name="SQL").fill(f"SELECT {', '.join(columns)} FROM {name}")
        answered()


def test_what_sensors_say_is_listed_and_put_into_the_question(page: Page) -> None:
    page.get_by_role("tab", name="SQL").click()
    readings = page.get_by_role("region", name="Tables").get_by_role("group").first
    readings.locator("summary").click()
    expect(readings).to_contain_text("oven kitchen")
    Pages(page, "").picture("query-keys")
    page.get_by_role("textbox", name="SQL").fill("SELECT  AS value FROM readings")
    page.get_by_role("textbox", name="SQL").evaluate("e => e.setSelectionRange(7, 7)")
    readings.get_by_role("button", name='door."is open"').click()
    expect(page.get_by_role("textbox", name="SQL")).to_have_value(
        'SELECT data.readings.door."is open" AS value FROM readings'
    )
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("region", name="Rows")).to_contain_text("false")


def test_a_pipeline_is_made_of_the_question_and_asked(page: Page, server: Server) -> None:
    page.get_by_role("tab", name="MQL").click()
    pipelines = page.get_by_role("region", name="Data pipelines")
    pipelines.get_by_role("button", name="Make one of this query").click()
    dialog = page.get_by_role("dialog", name="New data pipeline")
    dialog.get_by_label("Name").fill("each hour")
    dialog.get_by_role("button", name="Make it").click()
    one = pipelines.get_by_role("button", name=re.compile("^each hour"))
    expect(one).to_be_visible()
    expect(pipelines).to_contain_text("has not run yet")
    Pages(page, "").picture("query-pipelines")
    one.click()
    expect(page.get_by_text("Asking what each hour found")).to_be_visible()
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("region", name="Rows")).to_contain_text("Nothing was found")
    pipelines.get_by_role("button", name="Delete each hour").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(one).to_have_count(0)
    listed = server.rest.get(f"/api/organizations/{server.organization_id}/pipelines")
    assert json.loads(listed.content) == []


def test_it_fits_a_narrow_window(page: Page) -> None:
    page.set_viewport_size({"width": 400, "height": 900})
    run(page, "SELECT * FROM items")
    expect(page.get_by_role("region", name="Rows")).to_contain_text("3 rows", timeout=20 * SECONDS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    Pages(page, "").picture("query-narrow")
