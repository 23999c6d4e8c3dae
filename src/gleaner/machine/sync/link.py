"""One connection to the app's `/api/sync`: requests with answers, a window, and what can end it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException

from gleaner.machine.dial import StraightConnect, certificate_problem, is_portal, portal_words, proxy_for
from gleaner.machine.sync.flow import Flow, Sent, Throttle
from gleaner.machine.sync.lanes import Lane, Lanes
from gleaner.machine.sync.settings import SyncSettings
from gleaner.wire.sync_frames import (
    COMPRESSION_HEADER,
    KINDS_HEADER,
    MAX_FRAME_BYTES,
    ZLIB,
    Ack,
    ClientFrame,
    EntryKind,
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
_TIMER_SLACK_S = 0.005
# Of WebSocket and TLS on a frame of some 10 kB, for the throttle.
_OVERHEAD_BYTES = 40

Answer = Ack | Offset | PieceAck


class LinkError(Exception):
    """The app cannot be reached or the connection ended; the message is for people. Everything unanswered is resent."""


class Refused(LinkError):
    """The app is there and does not let this part in. Files stay; somebody has to act."""


class _Waiting(NamedTuple):
    future: asyncio.Future[Answer]
    sent: Sent


class Link:
    """Frames out, answers in. `receive` must run while requests wait; it ends by raising LinkError."""

    def __init__(self, connection: ClientConnection, flow: Flow, throttle: Throttle) -> None:
        self._connection = connection
        self.flow = flow
        self._throttle = throttle
        self._lanes = Lanes(flow)
        self._waiting: dict[int, _Waiting] = {}
        self._sequence = 0
        self._broken: LinkError | None = None
        self._paused_until_s = 0.0
        answer = connection.response
        self.compresses = answer is not None and ZLIB in answer.headers.get(COMPRESSION_HEADER, "")
        """Whether the app has said that it takes compressed entries."""
        self.keeps_sequences = answer is not None and EntryKind.SEQUENCE in answer.headers.get(KINDS_HEADER, "")
        self.slow_down_message = ""

    async def receive(self) -> None:
        try:
            async for message in self._connection:
                self._dispatch(message)
            raise LinkError("the app closed the connection")
        except WebSocketException as error:
            raise self._break(f"the connection broke: {error}") from error
        except FrameError as error:
            raise self._break(f"the app sent what this version does not understand: {error}") from error
        finally:
            self._break("the connection ended")

    async def request(self, frame: ClientFrame, lane: Lane) -> Answer:
        """Sends when there is room and the app asks for no pause; waits for the answer."""
        return await self.answer(await self.send(frame, lane))

    async def send(self, frame: ClientFrame, lane: Lane) -> asyncio.Future[Answer]:
        """Returns once the frame is on its way; `answer` waits for its answer."""
        self._sequence += 1
        numbered = replace(frame, seq=self._sequence)
        message = encode(numbered)
        await self._lanes.enter(len(message), lane)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        # Numbers only: a frame that hung on the callback would be kept until it is answered, a window full of them.
        seq, size = numbered.seq, len(message)
        future.add_done_callback(lambda _: self._done(seq, size))
        try:
            if (wait_s := self._throttle.wait_s(len(message) + _OVERHEAD_BYTES, loop.time())) > 0:
                await asyncio.sleep(wait_s)
            if self._broken is not None:
                raise self._broken
            self._waiting[numbered.seq] = _Waiting(future, self.flow.sent(len(message), loop.time()))
            await self._connection.send(message)
        except WebSocketException as error:
            future.cancel()
            raise LinkError(f"the connection broke: {error}") from error
        except BaseException:
            future.cancel()
            raise
        return future

    async def answer(self, future: asyncio.Future[Answer]) -> Answer:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await future
        except TimeoutError as error:
            raise LinkError(f"the app has not answered for {ANSWER_TIMEOUT_S:.0f} s") from error

    def _done(self, seq: int, size: int) -> None:
        self._waiting.pop(seq, None)
        self._lanes.leave(size)

    def _break(self, why: str) -> LinkError:
        """Nothing unanswered will be answered any more."""
        if self._broken is None:
            self._broken = LinkError(why)
            for waiting in list(self._waiting.values()):
                if not waiting.future.done():
                    waiting.future.set_exception(self._broken)
                    waiting.future.exception()  # whoever waits gets it; nobody may
        return self._broken

    def _dispatch(self, message: bytes | str) -> None:
        frame = decode(message)
        if isinstance(frame, SlowDown):
            self._pause(frame)
        elif isinstance(frame, (Ack, Offset, PieceAck)):
            waiting = self._waiting.get(frame.seq)
            if waiting is not None and not waiting.future.done():
                # An answer to nothing (sent twice, say) is no reason to delete anything.
                now_s = asyncio.get_running_loop().time()
                self.flow.answered(waiting.sent, frame.held_ms / 1000, now_s, is_pressed=self._lanes.is_pressed)
                waiting.future.set_result(frame)

    def _pause(self, frame: SlowDown) -> None:
        self.slow_down_message = frame.message
        if frame.seconds > 0:
            loop = asyncio.get_running_loop()
            self._paused_until_s = max(self._paused_until_s, loop.time() + frame.seconds)
            self._lanes.pause()
            loop.call_at(self._paused_until_s, self._resume)

    def _resume(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._paused_until_s:
            self._lanes.resume()
        else:  # another pause came meanwhile, or the timer was a moment early, as uvloop's may be
            loop.call_at(self._paused_until_s + _TIMER_SLACK_S, self._resume)


@asynccontextmanager
async def open_link(settings: SyncSettings, flow: Flow, throttle: Throttle) -> AsyncIterator[Link]:
    """Raises LinkError in words that a person can act on."""
    try:
        connection = await StraightConnect(
            settings.url,
            additional_headers=settings.credentials,
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
    flow.new_line()
    try:
        yield Link(connection, flow, throttle)
    finally:
        await connection.close()


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {OPEN_TIMEOUT_S:.0f} s"
    return str(error) or type(error).__name__


def _status_error(status: int, settings: SyncSettings) -> LinkError:
    if status in (401, 403):
        if not settings.secret:
            return Refused(
                f"the app at {settings.web_address} refuses this machine's API key ({status}): "
                "use a key with the owner's role on this machine, or a secret from the machine's page"
            )
        return Refused(
            f"the app at {settings.web_address} refuses this part's secret ({status}): "
            "make a new secret on the machine's page and put it into the machine's configuration"
        )
    if status == 404:
        return Refused(f"{settings.web_address} has no /api/sync: is web_address the address of a Gleaner app?")
    if is_portal(status):
        return LinkError(portal_words(settings.web_address, status))
    return LinkError(f"the app at {settings.web_address} answers {status}, it may be starting or overloaded")


def tls_context(settings: SyncSettings) -> ssl.SSLContext | None:
    """Trusts the app's own authority and no other, when the configuration pins one."""
    if not settings.url.startswith("wss:"):
        return None
    return ssl.create_default_context(cadata=settings.ca_certificate or None)
