"""The loop again on real photos: a machine added in the browser plays a folder of hand signs, three digits with twenty photos each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journey_pages import SECONDS, Pages
from journey_rover import Seen, iso, nanoseconds, runs_of
from journey_stack import DemoStack, MachineProcess, free_ports, local_page, record_figures
from journey_vision import accuracy_on
from playwright.sync_api import Browser, Page, expect

DIGITS = ("0", "1", "2")
MODEL = "signs"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[MachineProcess]:
    process = MachineProcess(tmp_path / "machine")
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
def folder(photos: Path, tmp_path: Path) -> Path:
    """The first twenty photos of each digit. Neighbours are often the same hand, so held-out photos come from the other end."""
    for digit in DIGITS:
        target = tmp_path / "photos" / f"digit_{digit}"
        target.mkdir(parents=True)
        for photo in sorted((photos / "signs" / digit).glob("*.jpg"))[:20]:
            shutil.copy(photo, target)
    return tmp_path / "photos"


def setup_file(command: str) -> dict[str, Any]:
    """The JSON inside the command that the page gives to paste."""
    found: dict[str, Any] = json.loads(command[command.index("{") : command.rindex("}") + 1])
    return found


def configure(pages: Pages, folder: Path) -> None:
    page = pages.page
    page.get_by_role("navigation", name="Machine pages").get_by_role("link", name="Configure").click()
    card = pages.add_resource("folder", "Folder of photos", "photos")
    expect(card.get_by_label("Folder", exact=True)).to_be_focused()
    page.keyboard.type(str(folder))
    card.get_by_label("Frame rate").fill("4")
    capture = page.get_by_role("region", name="Data capture of photos")
    capture.get_by_role("button", name="Add method").click()
    capture.get_by_label("Frequency (hz)").fill("4")
    capture.get_by_label("Kept in the app").click()
    page.get_by_role("option", name="some days").click()
    capture.get_by_label("For", exact=True).fill("30")
    capture.get_by_role("button", name="Add a data manager").click()
    pages.picture("configure-new")
    pages.save_configuration()
    page.reload()
    expect(capture.get_by_label("For", exact=True)).to_have_value("30")


def label_of_each_picture(page: Page, web: str, part_id: str, folder: Path) -> list[Seen]:
    """By content: the camera passes the files on as they are."""
    labels = {photo.read_bytes(): photo.parent.name for photo in folder.rglob("*.jpg")}
    rows = page.request.get(f"{web}/api/items/index?kind=image&part_id={part_id}").body()
    numbers = [int.from_bytes(rows[i : i + 4], "little") for i in range(0, len(rows), 4)]
    items = page.request.post(f"{web}/api/items/lookup", data={"rows": numbers}, headers={"Origin": web}).json()[
        "items"
    ]
    return [
        Seen(
            nanoseconds(item["captured_at"]), labels[page.request.get(f"{web}/api/items/{item['row']}/content").body()]
        )
        for item in items
    ]


def held_out(photos: Path) -> list[tuple[bytes, str]]:
    return [
        (photo.read_bytes(), f"digit_{digit}")
        for digit in DIGITS
        for photo in sorted((photos / "signs" / digit).glob("*.jpg"))[40:]
    ]


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_journey_signs_on_photos_of_a_folder(
    demo: DemoStack, machine: MachineProcess, folder: Path, photos: Path, chromium: Browser
) -> None:
    with local_page(chromium) as page:
        pages = Pages(page, demo.web)
        pages.log_in(demo.new_login_link())
        setup = setup_file(pages.add_machine("sign-reader"))
        machine.start({**setup, "network": {"bind_address": f"127.0.0.1:{free_ports(1)[0]}"}})
        expect(page.get_by_text("sign-reader is connected")).to_be_visible(timeout=20 * SECONDS)
        configure(pages, folder)

        part_id = setup["cloud"]["id"]
        page.goto(f"{demo.web}/data?part_id={part_id}")
        pages.cells().first.wait_for(timeout=15 * SECONDS)
        page.wait_for_timeout(20 * SECONDS)  # sixty photos, four a second, and one interval of sync
        seen = label_of_each_picture(page, demo.web, part_id, folder)
        for digit in DIGITS:
            first, last, count = runs_of(f"digit_{digit}", seen)[0]
            assert count >= 12
            pages.open_data(part_id=part_id, start=iso(first - 1000), end=iso(last + 1000))
            pages.select_everything(count)
            pages.tag_selected(f"digit_{digit}")
            pages.add_selected_to_dataset("hand-signs")

        pages.train("hand-signs", MODEL, "Single", "60 s")
        pages.wait_until_trained(150)
        dialog = pages.deploy(MODEL, "sign-reader")
        dialog.get_by_role("link", name="Watch it live").click(timeout=30 * SECONDS)
        expect(pages.recognised("photos")).to_contain_text("digit_", timeout=20 * SECONDS)
        pages.picture("control-signs")
        signs_accuracy = accuracy_on(machine.home, f"{MODEL}-vision", held_out(photos), threshold=0.0)

    record_figures(signs_accuracy=round(signs_accuracy, 3))
    assert signs_accuracy >= 0.95
