"""What is generated and committed is what `make docs` would write now."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HINT = "run `make docs` and commit what it writes"


def test_generated_files_are_current() -> None:
    docs = runpy.run_path(str(ROOT / "scripts" / "docs.py"))
    assert [str(path.relative_to(ROOT)) for path in docs["stale"](docs["wanted"]())] == [], HINT


def test_the_pages_types_are_of_this_openapi() -> None:
    """Without Node only names can be compared; `scripts/docs.py --check` compares everything."""
    description = json.loads((ROOT / "web" / "openapi.json").read_text(encoding="utf-8"))
    types = (ROOT / "web" / "src" / "lib" / "api" / "schema.d.ts").read_text(encoding="utf-8")
    missing = [path for path in description["paths"] if f'\n    "{path}": {{' not in types]
    for name, schema in description["components"]["schemas"].items():
        found = re.search(rf"\n        {name}: (\{{\n.*?\n        \}};|[^\n]*;)", types, re.DOTALL)
        fields = schema.get("properties", {})
        missing += [f"{name}.{field}" for field in fields if not found or not re.search(rf"\b{field}\??:", found[1])]
    assert missing == [], HINT
