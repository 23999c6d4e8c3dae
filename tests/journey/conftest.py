from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from journey_stack import DemoStack, browser
from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def chromium(chromium_path: str) -> Iterator[Browser]:
    with browser(chromium_path) as opened:
        yield opened


@pytest.fixture(scope="session")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trace") / "rover.jsonl"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, trace_file: Path) -> Iterator[DemoStack]:
    """What `make demo` starts. The first start sets the rover up; the one that tests see is a warm one, as a user's second is."""
    stack = DemoStack(tmp_path_factory.mktemp("demo"), {"GLEANER_SIM_TRACE": str(trace_file)})
    try:
        stack.start().stop()
        trace_file.unlink(missing_ok=True)
        yield stack.start()
    finally:
        stack.stop()
