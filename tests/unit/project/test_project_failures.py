"""docs/failures.md names tests; each of them is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_every_test_that_the_list_of_failures_names_exists() -> None:
    text = (ROOT / "docs" / "failures.md").read_text()
    named = re.findall(r"`([a-z][a-z_]*)`", text)
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"def test_(\w+)\(", sources))
    assert len(named) > 100
    assert sorted(set(named) - known - {"test_"}) == []
