"""A browser that refuses to talk to anyone else, beside the stack that `make demo` starts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Request, sync_playwright

from demo_stack import LOGIN_URL, DemoStack, MachineProcess, free_ports, wait_for

__all__ = [
    "LOGIN_URL",
    "DemoStack",
    "MachineProcess",
    "browser",
    "free_ports",
    "local_page",
    "record_figures",
    "wait_for",
]

CHROMIUM_ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FAILURES = Path(__file__).resolve().parents[2] / "test-results"


@contextmanager
def browser(executable: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGS)
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def local_page(opened: Browser, width: int = 1280, height: int = 800, **options: object) -> Iterator[Page]:
    """A page on which every request to another host, and every uncaught script error, fails the test at the end."""
    context = opened.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
    page = context.new_page()
    strangers: list[str] = []
    problems: list[str] = []

    def check(request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and url.hostname not in ("127.0.0.1", "localhost"):
            strangers.append(request.url)

    page.on("request", check)
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        yield page
    except BaseException:
        FAILURES.mkdir(exist_ok=True)
        page.screenshot(path=FAILURES / "page.png")
        print(f"the page was {page.url}, its picture is {FAILURES / 'page.png'}; problems: {problems}")
        raise
    finally:
        context.close()
    assert not strangers, f"the page asked other hosts: {strangers}"
    assert not problems, f"scripts failed on the page: {problems}"


def record_figures(**figures: float) -> None:
    """Adds to the JSON that `make journey` prints, when it asked for it."""
    if path := os.environ.get("GLEANER_JOURNEY_FIGURES"):
        file = Path(path)
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(known | figures))
