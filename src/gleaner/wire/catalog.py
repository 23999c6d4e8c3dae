"""The machine models as data: what the web page's forms, the app's checks and `gleaner catalog` read.

`model_catalog.json` is generated from the models (`python -m gleaner.machine.catalog`); a test keeps it current. It is a
list of `{api, model, aliases, title, description, icon, attributes: JSON Schema, capture: [{method, title, default_hz,
params: JSON Schema or null}]}`.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

FILE_NAME = "model_catalog.json"


def load_catalog() -> list[dict[str, Any]]:
    """Every model that this version knows, as it was generated."""
    content: list[dict[str, Any]] = json.loads(files("gleaner.wire").joinpath(FILE_NAME).read_text(encoding="utf-8"))
    return content


def catalog_path() -> Path:
    return Path(__file__).with_name(FILE_NAME)
