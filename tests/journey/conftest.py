from __future__ import annotations

from collections.abc import Iterator

import pytest
from journey_stack import browser
from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def chromium(chromium_path: str) -> Iterator[Browser]:
    with browser(chromium_path) as opened:
        yield opened
