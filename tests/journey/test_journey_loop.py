"""The whole loop on what `make demo` starts: a rover is driven, its pictures tagged, a model trained, deployed and watched."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from journey_pages import SECONDS, Pages
from journey_rover import Driver, Trace, iso, nanoseconds, runs_of, visits, wait_until_traced, what_is_in_view
from journey_stack import DemoStack, local_page, record_figures, wait_for
from journey_vision import accuracy_on
from playwright.sync_api import Browser, Page, expect

from gleaner.sim import views

LABELS = ("red_star", "blue_star", "black_triangle")
PICTURES_PER_LABEL = 24
MODEL = "shapes"


def first_picture(pages: Pages, demo: DemoStack) -> float:
    """Seconds from the start of a warm demo to a picture in the gallery that was captured after it."""
    started = time.time() - (time.monotonic() - demo.started_at)
    pages.log_in(demo.login_url)
    pages.open_data(start=iso(int(started * 1e9)))
    pages.cells().first.locator("img.in").wait_for(timeout=20 * SECONDS)
    return time.monotonic() - demo.started_at


def capture_at(pages: Pages, machine_id: str, hz: float) -> None:
    """Through the Configure tab, as a person would: another frequency, Save, and the machine picks it up."""
    page = pages.page
    page.goto(f"{pages.web}/machines/{machine_id}/configure")
    rows = page.get_by_role("region", name="Data capture of cam")
    rows.get_by_label("Frequency (hz)").fill(str(hz))
    pages.picture("configure")
    page.keyboard.press("Control+s")
    expect(
        page.get_by_text(re.compile("machine runs it|is running it|up to date|Running this", re.I)).first
    ).to_be_visible(timeout=15 * SECONDS)


def drive_past_the_signs(pages: Pages, machine_id: str, trace: Trace) -> None:
    pages.open_control(machine_id)
    expect(pages.live("cam")).to_have_attribute("data-state", "live", timeout=10 * SECONDS)
    pages.picture("control-driving")
    driver = Driver(pages.page, trace)
    for label in (*LABELS, None):
        for pose in visits(label, 7, seed=11, start=trace.now()):
            driver.go_to(pose)
            pages.page.wait_for_timeout(700)


def captured_moments(page: Page, web: str) -> list[int]:
    rows = page.request.get(f"{web}/api/items/index?kind=image").body()
    numbers = [int.from_bytes(rows[i : i + 4], "little") for i in range(0, len(rows), 4)]
    items = page.request.post(f"{web}/api/items/lookup", data={"rows": numbers[:500]}, headers={"Origin": web}).json()[
        "items"
    ]
    return [nanoseconds(item["captured_at"]) for item in items]


def tag_what_was_seen(pages: Pages, trace: Trace) -> None:
    """Stretches of time that show one sign are selected with the time filter and tagged with the keyboard."""
    seen = trace.seen_at(captured_moments(pages.page, pages.web))
    for label in (*LABELS, ""):
        tagged = 0
        for first, last, count in runs_of(label, seen, at_most=3):
            if tagged >= PICTURES_PER_LABEL:
                break
            pages.open_data(start=iso(first - 1000), end=iso(last + 1000))
            pages.select_everything(count)
            if label:
                pages.tag_selected(label)
            pages.add_selected_to_dataset("arena")
            tagged += count
        assert tagged >= PICTURES_PER_LABEL // 2, f"only {tagged} pictures of {label or 'nothing'} were captured"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_journey_loop_from_driving_to_recognising(demo: DemoStack, trace_file: Path, chromium: Browser) -> None:
    with local_page(chromium) as page:
        pages = Pages(page, demo.web)
        first_picture_s = first_picture(pages, demo)
        machine = page.request.get(f"{demo.web}/api/machines").json()[0]
        trace = wait_until_traced(trace_file)

        capture_at(pages, machine["id"], 3)
        drive_past_the_signs(pages, machine["id"], trace)
        page.wait_for_timeout(4 * SECONDS)  # one interval of sync
        tag_what_was_seen(pages, trace)
        pages.open_data()
        pages.cells().nth(20).locator("img.in").wait_for()
        pages.picture("data")

        begun = time.monotonic()
        pages.train("arena", MODEL, "Single", "60 s")
        page.wait_for_timeout(25 * SECONDS)
        pages.picture("training")
        pages.wait_until_trained(120)
        train_s = time.monotonic() - begun
        pages.picture("trained")
        page.goto(f"{demo.web}/models/{MODEL}")
        page.get_by_role("region", name="Summary").wait_for()
        pages.picture("report")

        park_in_front_of("red_star", pages, machine["id"], trace)
        begun = time.monotonic()
        pages.deploy(MODEL, "rover").get_by_role("link", name="Watch it live").click(timeout=30 * SECONDS)
        expect(pages.recognised("cam")).to_contain_text("red_star", timeout=20 * SECONDS)
        deploy_to_label_s = time.monotonic() - begun
        pages.picture("control")
        expect(page.get_by_role("region", name="Recognition")).to_contain_text(" ms")

        take_pictures_of_every_page(pages, machine["id"])
        captures_add_up(pages, machine["id"])

        report = page.request.get(f"{demo.web}/api/ml_models?organization_id={machine['organization_id']}").json()[0]
        threshold = report["versions"][0]["suggested_threshold"]
        sim_accuracy = accuracy_on(demo.data_dir / "rover", f"{MODEL}-vision", held_out_views(), threshold)

    record_figures(
        first_picture_s=round(first_picture_s, 1),
        train_s=round(train_s, 1),
        deploy_to_label_s=round(deploy_to_label_s, 1),
        sim_accuracy=round(sim_accuracy, 3),
    )
    assert sim_accuracy >= 0.9


def park_in_front_of(label: str, pages: Pages, machine_id: str, trace: Trace) -> None:
    pages.open_control(machine_id)
    expect(pages.live("cam")).to_have_attribute("data-state", "live", timeout=10 * SECONDS)
    for pose in visits(label, 6, seed=5, start=trace.now()):
        Driver(pages.page, trace).go_to(pose, near_mm=80)
        pages.page.wait_for_timeout(500)
        if what_is_in_view(trace.now()) == label:
            return
    pytest.fail(f"the rover could not be parked so that it sees {label} alone")


def captures_add_up(pages: Pages, machine_id: str) -> None:
    """What the Capture tab shows: captured = synced + waiting + dropped, all read in one moment."""
    pages.page.goto(f"{pages.web}/machines/{machine_id}/capture")
    camera = pages.page.get_by_role("region", name=re.compile("^Captures of cam"))
    shown = camera.get_by_label("Sum")
    expect(shown).to_contain_text("captured", timeout=10 * SECONDS)
    captured, synced, waiting, dropped = (int(n.replace(",", "")) for n in re.findall(r"[\d,]+", shown.inner_text()))
    assert captured == synced + waiting + dropped
    assert synced > 0
    expect(camera).to_contain_text("per hour", timeout=10 * SECONDS)  # asked of the machine itself
    pages.page.wait_for_timeout(700)
    pages.picture("capture")


def take_pictures_of_every_page(pages: Pages, machine_id: str) -> None:
    """For the documentation, and for a person to look at; each page must at least come up."""
    page = pages.page
    for name, path, landmark in (
        ("machines", "/machines", "rover"),
        ("logs", f"/machines/{machine_id}/logs", "is ready"),
        ("datasets", "/datasets", "arena"),
        ("train", "/train", MODEL),
        ("models", "/models", MODEL),
        ("sensors", "/data?kind=reading", "computer"),
        ("settings", "/settings", "API keys"),
    ):
        page.goto(f"{pages.web}{path}")
        expect(page.get_by_text(landmark).first).to_be_visible(timeout=10 * SECONDS)
        page.wait_for_timeout(700)
        pages.picture(name)
    page.goto(f"{pages.web}/datasets")
    page.get_by_role("link", name="Dataset arena", exact=True).click()
    pages.cells().first.locator("img.in").wait_for()
    pages.picture("dataset")
    pages.open_data(tag="red_star")
    pages.cells().first.click()
    page.get_by_role("dialog", name="Picture").wait_for()
    page.wait_for_timeout(700)
    pages.picture("picture")


def held_out_views() -> list[tuple[bytes, str]]:
    """Views and moments that the rover never captured."""
    found = [(view.jpeg, label) for label in LABELS for view in views.labelled_views(label, 14, seed=2024)]
    return found + [(view.jpeg, "") for view in views.labelled_views(None, 14, seed=2024)]


@pytest.mark.timeout(180)
def test_the_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    import psutil

    stack = DemoStack(tmp_path / "demo").start()
    assert stack.process is not None
    wait_for(lambda: json.dumps(stack.output).count("login"), 5, "the URL")
    family = [stack.process.pid, *(child.pid for child in psutil.Process(stack.process.pid).children(recursive=True))]
    assert len(family) >= 3
    stack.stop()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in family), 10, f"{family} to end")
