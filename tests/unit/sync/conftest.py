from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from stand_in_app import StandInApp, running_app


@pytest.fixture
async def app() -> AsyncIterator[StandInApp]:
    async with running_app() as app:
        yield app
