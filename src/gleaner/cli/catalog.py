"""`gleaner catalog`: the machine models with their JSON Schemas, as the web page's forms and the app's checks use them."""

from __future__ import annotations

import json

import typer


def catalog() -> None:
    """Print every machine model this version knows: API, model, attributes (JSON Schema) and what it can capture."""
    from gleaner.wire.catalog import load_catalog

    typer.echo(json.dumps(load_catalog(), indent=2, ensure_ascii=False))
