from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running_app import RunningApp, running_app


@pytest.fixture
def app(tmp_path: Path) -> Iterator[RunningApp]:
    with running_app(tmp_path / "data") as running:
        yield running
