"""Holds real JSON answers against `/api/openapi.json`: what the web pages' types say must be what crosses the wire."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import jsonschema
from fastapi import FastAPI


def described_answers(app: FastAPI) -> dict[str, list[Callable[[httpx.Response], Awaitable[None]]]]:
    """httpx event hooks under which every JSON answer of the app must fit its description, with no field besides."""
    description = _closed(app.openapi())

    async def check(response: httpx.Response) -> None:
        path = response.request.url.path
        if path.startswith("/api/") and response.headers.get("content-type") == "application/json":
            await response.aread()
            schema = _schema(description, response.request.method.lower(), path, response.status_code)
            if schema is not None:
                jsonschema.validate(
                    response.json(),
                    {**schema, "components": description["components"]},
                    cls=jsonschema.Draft202012Validator,
                )

    return {"response": [check]}


def _schema(description: dict[str, Any], method: str, path: str, status: int) -> dict[str, Any] | None:
    """None for an address that nothing answers."""
    # Most words first: /items/lookup is not /items/{row}.
    for template in sorted(description["paths"], key=lambda template: template.count("{")):
        pattern = re.sub(r"\\\{[^}]+\\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method in description["paths"][template]:
            responses = description["paths"][template][method]["responses"]
            described = responses.get(str(status)) or responses["default"]
            schema: dict[str, Any] = described["content"]["application/json"]["schema"]
            return schema
    return None


def _closed(value: Any) -> Any:
    """The description with every object that lists its fields closed to others."""
    if isinstance(value, list):
        return [_closed(one) for one in value]
    if not isinstance(value, dict):
        return value
    closed = {name: _closed(one) for name, one in value.items()}
    return {**closed, "additionalProperties": False} if isinstance(value.get("properties"), dict) else closed
