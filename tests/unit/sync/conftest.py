from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gleaner.machine.sync import process as process_module
from stand_in_app import StandInApp, running_app


@pytest.fixture
async def app() -> AsyncIterator[StandInApp]:
    async with running_app() as app:
        yield app


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the process told the machine."""
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(process_module, "emit", lambda text: lines.append(json.loads(text)))
    return lines


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gleaner.machine.sync.backoff.FIRST_S", 0.02)
    monkeypatch.setattr("gleaner.machine.sync.backoff.LONGEST_S", 0.1)
