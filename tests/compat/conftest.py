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
    transports: list[Any] = []
    connected = H2Protocol.connection_made

    def remember_transport(protocol: H2Protocol, transport: Any) -> None:
        tls = getattr(transport, "_ssl_protocol", None)
        transports.append(transport if tls is None else tls._transport)  # the one that holds the socket
        connected(protocol, transport)

    monkeypatch.setattr(H2Protocol, "connection_made", remember_transport)
    yield
    here = asyncio.get_running_loop()
    for transport in transports:
        if transport._loop is here:
            transport.abort()  # also one that waits for the other side's goodbye, as TLS does
    async with asyncio.timeout(5):
        while not all(_is_ended(transport) for transport in transports):  # noqa: ASYNC110 (a socket tells nobody that it was closed)
            await asyncio.sleep(0.001)


def _is_ended(transport: Any) -> bool:
    if transport._sock is not None and (transport._loop is None or transport._loop.is_closed()):
        # Of the SDK's heartbeat, whose thread had a loop of its own and has left it.
        transport._sock.close()
        transport._sock = None
    return transport._sock is None
