"""Stopping what moves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from gleaner.machine.graph import ResourceGraph
from gleaner.machine.names import ResourceKey

#: A stop that takes longer has failed for whoever asked for it.
_STOP_TIMEOUT_S = 5.0


async def stop_resource(graph: ResourceGraph, key: ResourceKey, extra: Mapping[str, Any] | None = None) -> None:
    """Does nothing for resources that cannot move, or are gone. Raises what the resource raises, or TimeoutError."""
    stop = getattr(graph.resource(key.name, key.subtype), "stop", None)
    if stop is None:
        return
    async with asyncio.timeout(_STOP_TIMEOUT_S):
        await (stop(extra=dict(extra)) if extra else stop())


async def stop_everything(graph: ResourceGraph, extra: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Stop every resource that can, all at once, and say which did not: `name: reason`."""
    keys = [node.key for node in graph.nodes if callable(getattr(node.instance, "stop", None))]
    results = await asyncio.gather(
        *(stop_resource(graph, key, extra.get(key.name)) for key in keys), return_exceptions=True
    )
    return [
        f"{key.name}: {result or type(result).__name__}"
        for key, result in zip(keys, results, strict=True)
        if isinstance(result, BaseException)
    ]
