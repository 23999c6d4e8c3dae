"""Closes what viam-sdk leaves open: its dial does not close the channel of an attempt that was refused or came too late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpclib.protocol import H2Protocol


@pytest.fixture(autouse=True)
async def _close_connections_of_failed_dials(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Without it, the garbage collector finds them during some later test, which then fails."""
    transports: list[asyncio.Transport] = []
    connected = H2Protocol.connection_made

    def remember_transport(protocol: H2Protocol, transport: Any) -> None:
        transports.append(transport)
        connected(protocol, transport)

    monkeypatch.setattr(H2Protocol, "connection_made", remember_transport)
    yield
    for transport in transports:
        transport.abort()  # also one that waits for the other side's goodbye, as TLS does
    sockets = [transport.get_extra_info("socket") for transport in transports]
    async with asyncio.timeout(5):
        while any(one is not None and one.fileno() >= 0 for one in sockets):  # noqa: ASYNC110 (nothing tells that a socket was closed)
            await asyncio.sleep(0.001)
