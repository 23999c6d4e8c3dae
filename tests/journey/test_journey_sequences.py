"""A dataset of sequences in a real browser: found, looked into, taken out, and not offered where pictures are needed."""

from __future__ import annotations

import asyncio
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from journey_gallery import Server, logged_in_page, picture, running_server
from journey_pages import Pages
from playwright.sync_api import Browser, Page, expect
from viam.app.viam_client import ViamClient
from viam.proto.app.data import SequenceResourceFilter
from viam.proto.app.dataset import DatasetType
from viam.rpc.dial import DialOptions

START = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


async def capture(server: Server, grpc: int) -> None:
    """Two grasps of which the first has two pictures, in the dataset *grasps*."""
    organization = server.organization_id
    location = server.rest.get(f"/api/organizations/{organization}/locations").json()[0]["id"]
    machine = server.rest.post("/api/machines", json={"name": "gripper", "location_id": location}).json()
    part_id = machine["parts"][0]["id"]
    grant = {"name": "test", "resource_type": "organization", "resource_id": organization, "role": "owner"}
    key = server.rest.post(f"/api/organizations/{organization}/keys", json=grant).json()
    options = DialOptions.with_api_key(key["key"], key["id"])
    options.insecure = True
    client = await ViamClient.create_from_dial_options(options, app_url=f"http://127.0.0.1:{grpc}")
    try:
        data = client.data_client
        for at, colour in ((1, "red"), (2, "green"), (40, "blue")):
            moment = START + timedelta(seconds=at)
            times = (moment, moment)
            await data.binary_data_capture_upload(
                picture(colour, at), part_id, "camera", "cam", "GetImages", ".jpg", data_request_times=times
            )
        resources = [SequenceResourceFilter(resource_name="cam", method_name="GetImages")]
        ids = [
            await data.create_sequence(part_id, resources, START + timedelta(seconds=at), START + timedelta(seconds=at + 12.5), [tag])
            for at, tag in ((0, "held"), (60, "dropped"))
        ]  # fmt: skip
        dataset = await data.create_dataset("grasps", organization, DatasetType.DATASET_TYPE_SEQUENCE_DATA)
        await data.add_sequences_to_dataset(dataset, ids)
    finally:
        client.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Iterator[Server]:
    web, grpc = free_ports(2)
    with running_server(tmp_path_factory.mktemp("app"), web, grpc) as made:
        sent = threading.Thread(target=lambda: asyncio.run(capture(made, grpc)))
        sent.start()  # of its own: Playwright's loop is this thread's
        sent.join()
        yield made


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    with logged_in_page(chromium, server) as opened:
        opened.set_viewport_size({"width": 1280, "height": 800})
        opened.goto(f"{server.web}/datasets")
        yield opened


def test_what_a_machine_did_is_found_and_taken_out(page: Page) -> None:
    card = page.get_by_role("link", name="Dataset grasps")
    expect(card).to_contain_text("2 sequences")
    card.click()
    rows = page.get_by_role("table", name="Sequences of grasps").get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text("dropped")
    expect(rows.nth(2)).to_contain_text("held")
    expect(rows.nth(2)).to_contain_text("gripper")
    Pages(page, "").picture("sequences")
    with page.expect_download() as taken:
        page.get_by_role("link", name="Parquet").click()
    with zipfile.ZipFile(taken.value.path()) as files:
        assert "binary_data.parquet" in files.namelist()
    page.get_by_role("button", name="More about grasps").click()
    expect(page.get_by_role("menuitem", name="Rename")).to_be_visible()
    expect(page.get_by_role("menuitem", name="Import…")).to_have_count(0)
    page.keyboard.press("Escape")
    rows.nth(2).get_by_role("link", name="Show").click()
    expect(page.get_by_role("option", name=re.compile("^cam, Mar 4, 2026"))).to_have_count(2)
    Pages(page, "").picture("sequence-shown")


def test_it_fits_a_narrow_window(page: Page) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    page.get_by_role("link", name="Dataset grasps").click()
    expect(page.get_by_role("table", name="Sequences of grasps")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    Pages(page, "").picture("sequences-narrow")


def test_only_scripts_are_offered_it(page: Page, server: Server) -> None:
    server.rest.post("/api/datasets", json={"name": "birds", "organization_id": server.organization_id})
    server.rest.post("/api/datasets", json={"name": "cats", "organization_id": server.organization_id})
    page.goto(f"{server.web}/train")
    for button, offered in (("Train model", ["birds", "cats"]), ("Run a script", ["birds", "cats", "grasps"])):
        page.get_by_role("button", name=button).first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Dataset").click()
        expect(page.get_by_role("option")).to_have_count(len(offered))
        for name in offered:
            expect(page.get_by_role("option", name=re.compile(f"^{name}"))).to_be_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
