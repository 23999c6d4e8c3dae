from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_fixtures import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    opened.ingest.start()
    yield opened
    opened.ingest.stop()
    opened.database.close()
