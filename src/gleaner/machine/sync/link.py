"""One connection to the app's `/api/sync`: requests with answers, a window, and what can end it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException

from gleaner.machine.dial import StraightConnect, certificate_problem, portal_words, proxy_for
from gleaner.machine.sync.settings import SyncSettings
from gleaner.wire.sync_frames import (
    MAX_FRAME_BYTES,
    WINDOW_BYTES,
    WINDOW_FRAMES,
    Ack,
    ClientFrame,
    FrameError,
    Offset,
    PieceAck,
    SlowDown,
    decode,
    encode,
)

OPEN_TIMEOUT_S = 10.0
# A connection that lies dead without a word (a router that forgot it) is noticed after at most the sum of these.
PING_INTERVAL_S = 10.0
PING_TIMEOUT_S = 20.0
# The app answers after its durable commit, seconds at worst; longer means that it hangs.
ANSWER_TIMEOUT_S = 120.0

Answer = Ack | Offset | PieceAck


class LinkError(Exception):
    """The app cannot be reached or the connection ended; the message is for people. Everything unanswered is resent."""


class Refused(LinkError):
    """The app is there and does not let this part in. Files stay; somebody has to act."""


class Window:
    """Keeps at most WINDOW_FRAMES and WINDOW_BYTES unanswered; a frame bigger than the rest waits for an empty window."""

    def __init__(self, frames: int = WINDOW_FRAMES, size_bytes: int = WINDOW_BYTES) -> None:
        self._max_frames = frames
        self._max_bytes = size_bytes
        self._frames = 0
        self._bytes = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def room(self, size_bytes: int) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: self._fits(size_bytes))
            self._frames += 1
            self._bytes += size_bytes
        try:
            yield
        finally:
            async with self._changed:
                self._frames -= 1
                self._bytes -= size_bytes
                self._changed.notify_all()

    def _fits(self, size_bytes: int) -> bool:
        if self._frames == 0:
            return True
        return self._frames < self._max_frames and self._bytes + size_bytes <= self._max_bytes


class Link:
    """Frames out, answers in. `receive` must run while requests wait; it ends by raising LinkError."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._window = Window()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._sequence = 0
        self._clear = asyncio.Event()
        self._clear.set()
        self.slow_down_message = ""

    async def receive(self) -> None:
        try:
            async for message in self._connection:
                self._dispatch(message)
            raise LinkError("the app closed the connection")
        except WebSocketException as error:
            raise LinkError(f"the connection broke: {error}") from error
        except FrameError as error:
            raise LinkError(f"the app sent what this version does not understand: {error}") from error

    async def request(self, frame: ClientFrame, payload_bytes: int = 0) -> Answer:
        """Sends when the window has room and the app asks for no pause; waits for the answer."""
        async with self._window.room(payload_bytes):
            await self._clear.wait()
            self._sequence += 1
            numbered = replace(frame, seq=self._sequence)
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self._waiting[numbered.seq] = future
            try:
                await self._connection.send(encode(numbered))
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    return await future
            except TimeoutError as error:
                raise LinkError(f"the app has not answered for {ANSWER_TIMEOUT_S:.0f} s") from error
            except WebSocketException as error:
                raise LinkError(f"the connection broke: {error}") from error
            finally:
                self._waiting.pop(numbered.seq, None)

    def _dispatch(self, message: bytes | str) -> None:
        frame = decode(message)
        if isinstance(frame, SlowDown):
            self._pause(frame)
        elif isinstance(frame, (Ack, Offset, PieceAck)):
            future = self._waiting.get(frame.seq)
            if future is not None and not future.done():
                future.set_result(frame)  # an answer to nothing (sent twice, say) is no reason to delete anything

    def _pause(self, frame: SlowDown) -> None:
        self.slow_down_message = frame.message
        if frame.seconds > 0:
            self._clear.clear()
            asyncio.get_running_loop().call_later(frame.seconds, self._clear.set)


@asynccontextmanager
async def open_link(settings: SyncSettings) -> AsyncIterator[Link]:
    """Raises LinkError in words that a person can act on."""
    try:
        connection = await StraightConnect(
            settings.url,
            additional_headers={"part_id": settings.part_id, "secret": settings.secret},
            ssl=tls_context(settings),
            compression=None,
            max_size=MAX_FRAME_BYTES,
            open_timeout=OPEN_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            close_timeout=2,
            proxy=proxy_for(settings.url),
        )
    except InvalidStatus as error:
        raise _status_error(error.response.status_code, settings) from error
    except ssl.SSLError as error:
        raise Refused(await certificate_problem(settings.web_address, error)) from error
    except InvalidURI as error:
        raise Refused(f"web_address {settings.web_address!r} is not an address: {error}") from error
    except socket.gaierror as error:
        host = urlsplit(settings.web_address).hostname
        raise LinkError(
            f"the name {host} cannot be looked up ({error.strerror}): is there a network, and a DNS server?"
        ) from error
    except (OSError, TimeoutError, WebSocketException) as error:
        raise LinkError(f"{settings.web_address} cannot be reached: {_why(error)}") from error
    except ImportError as error:
        raise Refused(f"the proxy that the environment names cannot be used: {error}") from error
    try:
        yield Link(connection)
    finally:
        await connection.close()


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {OPEN_TIMEOUT_S:.0f} s"
    return str(error) or type(error).__name__


def _status_error(status: int, settings: SyncSettings) -> LinkError:
    if status in (401, 403):
        return Refused(
            f"the app at {settings.web_address} refuses this part's secret ({status}): "
            "make a new secret on the machine's page and put it into the machine's configuration"
        )
    if status == 404:
        return Refused(f"{settings.web_address} has no /api/sync: is web_address the address of a Gleaner app?")
    if status < 400:
        return LinkError(portal_words(settings.web_address, status))
    return LinkError(f"the app at {settings.web_address} answers {status}, it may be starting or overloaded")


def tls_context(settings: SyncSettings) -> ssl.SSLContext | None:
    """Trusts the app's own authority and no other, when the configuration pins one."""
    if not settings.url.startswith("wss:"):
        return None
    return ssl.create_default_context(cadata=settings.ca_certificate or None)
