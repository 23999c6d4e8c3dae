"""Writes `wire/model_catalog.json` from the models: `python -m gleaner.machine.catalog`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from gleaner.machine import models
from gleaner.machine.models.base import CaptureMethod, ModelSpec
from gleaner.wire.catalog import catalog_path


def describe(spec: ModelSpec) -> dict[str, Any]:
    return {
        "api": spec.api,
        "model": spec.model,
        "aliases": list(spec.aliases),
        "title": spec.title,
        "description": spec.description,
        "icon": spec.icon,
        "attributes": spec.attributes.model_json_schema(),
        "capture": [_describe_capture(method) for method in spec.capture],
    }


def render(specs: Iterable[ModelSpec]) -> str:
    """The file's text: in a fixed order, so that it only changes when a model does."""
    catalog = sorted((describe(spec) for spec in specs), key=lambda entry: (entry["api"], entry["model"]))
    return json.dumps(catalog, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> int:
    """Writes the models that can be imported; names those that cannot and fails then."""
    specs, problems = [], []
    for name in models.NAMES:
        try:
            specs.append(models.load(name))
        except ImportError as error:
            problems.append(f"{name}: {error}")
    catalog_path().write_text(render(specs), encoding="utf-8")
    sys.stderr.write("".join(f"not in the catalogue: {problem}\n" for problem in problems))
    return 1 if problems else 0


def _describe_capture(method: CaptureMethod) -> dict[str, Any]:
    params = method.params.model_json_schema() if method.params is not None else None
    return {"method": method.method, "title": method.title, "default_hz": method.default_hz, "params": params}


if __name__ == "__main__":
    sys.exit(main())
