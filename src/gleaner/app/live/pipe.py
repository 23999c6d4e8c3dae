"""An HTTP/2 connection inside the machine's link.

The bytes that grpclib would write to a socket go into link frames and back, without a socket in between: nothing to copy
through the kernel, nothing to close twice. Runs on the event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol

#: A camera frame fits several times, so that flow control never pauses a stream of pictures.
_WINDOW_BYTES = 8 << 20


class PipeTransport(asyncio.Transport):
    """What grpclib writes goes to `send`; what the machine sends comes in by `receive`."""

    def __init__(self, protocol: asyncio.Protocol, send: Callable[[bytes], None], on_close: Callable[[], None]) -> None:
        super().__init__()
        self._protocol = protocol
        self._send = send
        self._on_close = on_close
        self._is_closed = False

    def receive(self, data: bytes) -> None:
        if not self._is_closed:
            self._protocol.data_received(data)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._is_closed and data:
            self._send(bytes(data))

    def close(self) -> None:
        """From our side: tells the machine."""
        if not self._is_closed:
            self._on_close()
            self.lost()

    def abort(self) -> None:
        self.close()

    def lost(self) -> None:
        """From the machine's side, or because the link is gone: every call in flight fails now."""
        if not self._is_closed:
            self._is_closed = True
            self._protocol.connection_lost(None)

    def is_closing(self) -> bool:
        return self._is_closed


class PipeChannel(Channel):
    """A grpclib channel over `open_pipe`; generated stubs use it like any other. Reconnects by opening another pipe."""

    def __init__(self, open_pipe: Callable[[asyncio.Protocol], PipeTransport]) -> None:
        window = Configuration(http2_connection_window_size=_WINDOW_BYTES, http2_stream_window_size=_WINDOW_BYTES)
        super().__init__("machine", 0, config=window)
        self._open_pipe = open_pipe

    async def _create_connection(self) -> H2Protocol:
        protocol: H2Protocol = self._protocol_factory()
        protocol.connection_made(self._open_pipe(protocol))
        return protocol
