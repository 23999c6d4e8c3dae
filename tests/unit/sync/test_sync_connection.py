"""What networks do to sync: cuts of every kind, portals, proxies, names that cannot be looked up, clocks that are wrong."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sync_certificates import self_signed
from sync_support import captures, ledger_row, put_pictures, put_readings, syncing, until

from cutting_proxy import Cut, CuttingProxy
from gleaner.machine.sync import link as link_module
from gleaner.machine.sync.link import LinkError
from gleaner.machine.sync.sender import Sender
from stand_in_app import StandInApp

pytestmark = pytest.mark.usefixtures("said", "hurry")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead connection is noticed after half a second instead of half a minute."""
    monkeypatch.setattr(link_module, "PING_INTERVAL_S", 0.2)
    monkeypatch.setattr(link_module, "PING_TIMEOUT_S", 0.5)
    monkeypatch.setattr(link_module, "OPEN_TIMEOUT_S", 1.0)


def last_error(said: list[dict[str, Any]]) -> str:
    return next((str(line["error"]) for line in reversed(said) if line.get("error")), "")


# --- cuts ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("cut", [Cut.RST, Cut.FIN, Cut.BLACK_HOLE, Cut.HALF_OPEN, Cut.MUTE, Cut.SLOW])
async def test_a_cut_connection_loses_and_doubles_nothing(tmp_path: Path, app: StandInApp, cut: Cut) -> None:
    put_pictures(tmp_path, 60, size=10_000)
    with CuttingProxy(app.port, slow_bytes_per_s=300_000) as proxy:
        proxy.set(Cut.SLOW)
        async with syncing(tmp_path, app, web_address=f"http://127.0.0.1:{proxy.port}"):
            await until(lambda: len(app.files) > 3)
            for _ in range(2):
                proxy.set(cut)
                known = proxy.connections
                if cut is not Cut.SLOW:  # it was noticed: by an error, or because nobody answers
                    await until(lambda known=known: proxy.connections > known)
                proxy.set(Cut.SLOW)
            await until(lambda: not captures(tmp_path))
    assert len(app.files) == 60
    assert ledger_row(tmp_path, "ReadImage")["synced"] == 60
    assert not (tmp_path / "failed").exists()


async def test_a_connection_that_never_lives_long_gets_everything_through(tmp_path: Path, app: StandInApp) -> None:
    put_pictures(tmp_path, 40, size=10_000)
    with CuttingProxy(app.port, slow_bytes_per_s=200_000) as proxy:
        proxy.set(Cut.SLOW)
        async with syncing(tmp_path, app, web_address=f"http://127.0.0.1:{proxy.port}"):
            while captures(tmp_path):
                await asyncio.sleep(0.4)
                proxy.set(Cut.RST)
                proxy.set(Cut.SLOW)
    assert len(app.files) == 40
    assert app.connections >= 3


# --- what stands in between ------------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that says the same to everybody; (its port, what it was sent)."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(4096))
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await server.wait_closed()


PAGE = b"<html>Welcome to the hotel. Please log in.</html>"


@pytest.mark.parametrize("status", [b"200 OK", b"511 Network Authentication Required"])
async def test_a_captive_portals_page_costs_no_file(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]], status: bytes
) -> None:
    put_pictures(tmp_path, 2)
    reply = b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(PAGE) + PAGE
    async with answering(reply) as (port, _), syncing(tmp_path, app, web_address=f"http://127.0.0.1:{port}"):
        await until(lambda: last_error(said))
    assert "login" in last_error(said)
    assert len(captures(tmp_path)) == 2


async def test_a_portals_redirect_is_not_followed_with_the_secret(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    put_pictures(tmp_path, 2)
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (portal, heard):
        reply = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/login\r\nContent-Length: 0\r\n\r\n" % portal
        async with answering(reply) as (port, _), syncing(tmp_path, app, web_address=f"http://127.0.0.1:{port}"):
            await until(lambda: "captive portal" in last_error(said))
        assert heard == []
    assert len(captures(tmp_path)) == 2


async def test_a_portal_on_the_tls_port_is_named(tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]) -> None:
    put_pictures(tmp_path, 1)
    reply = b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n"
    async with answering(reply) as (port, _), syncing(tmp_path, app, web_address=f"https://127.0.0.1:{port}"):
        await until(lambda: "captive portal" in last_error(said))
    assert len(captures(tmp_path)) == 1


async def test_a_name_that_cannot_be_looked_up_is_said(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    put_pictures(tmp_path, 1)
    async with syncing(tmp_path, app, web_address="http://gleaner.invalid:8090"):
        await until(lambda: "looked up" in last_error(said))
    assert "gleaner.invalid" in last_error(said)
    assert len(captures(tmp_path)) == 1


@pytest.mark.parametrize(
    ("from_days", "to_days", "words"),
    [(2, 900, "the clock is wrong"), (-900, -2, "has expired")],
)
async def test_a_certificate_of_another_time_speaks_of_the_clock(
    tmp_path: Path, said: list[dict[str, Any]], from_days: int, to_days: int, words: str
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    begins, ends = now + datetime.timedelta(days=from_days), now + datetime.timedelta(days=to_days)
    certificate, key = self_signed("ours", begins, ends)
    (tmp_path / "both.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    app = StandInApp()
    await app.start(ssl=context)
    root = tmp_path / "capture"
    put_pictures(root, 2)
    try:
        address = app.address.replace("http", "https")
        async with syncing(root, app, web_address=address, ca_certificate=certificate.decode()):
            await until(lambda: words in last_error(said))
    finally:
        await app.stop()
    assert begins.strftime("%Y-%m-%d %H:%M") in last_error(said)
    assert now.strftime("clock says %Y-%m-%d") in last_error(said)
    assert len(captures(root)) == 2


# --- a proxy ---------------------------------------------------------------------------------------------------------


class ConnectProxy:
    """HTTP CONNECT; every name leads to one port of this computer."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.asked: list[str] = []
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ConnectProxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split(b"\r\n")[0].decode())
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def test_sync_goes_through_the_environments_proxy(
    tmp_path: Path, app: StandInApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pictures(tmp_path, 3)
    async with ConnectProxy(app.port).running() as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with syncing(tmp_path, app, web_address="http://gleaner.invalid:8090"):
            await until(lambda: not captures(tmp_path))
    assert proxy.asked == ["CONNECT gleaner.invalid:8090 HTTP/1.1"]
    assert len(app.files) == 3


async def test_this_computer_is_reached_without_the_environments_proxy(
    tmp_path: Path, app: StandInApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pictures(tmp_path, 3)
    async with ConnectProxy(1).running() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with syncing(tmp_path, app):
            await until(lambda: not captures(tmp_path))
    assert proxy.asked == []


# --- the app ---------------------------------------------------------------------------------------------------------


async def test_an_app_restored_from_a_backup_gets_what_is_still_here_once(tmp_path: Path, app: StandInApp) -> None:
    put_pictures(tmp_path, 5)
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    backup = dict(app.files)
    put_readings(tmp_path, "later.capture", 4)
    app.lose_answers = 1  # the app commits and dies before it answers: the file is still here
    async with syncing(tmp_path, app):
        await until(lambda: len(app.files) == 6)
        await app.stop()
        app.files = backup  # restored: it has forgotten the readings
        app.lose_answers = 0
        await app.start()
        await until(lambda: not captures(tmp_path))
    assert len(app.files) == 6
    assert ledger_row(tmp_path, "Readings")["synced"] == 4
    assert ledger_row(tmp_path, "ReadImage")["synced"] == 5


async def test_a_revoked_secret_costs_nothing_and_a_new_one_goes_on(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    put_pictures(tmp_path, 4)
    async with syncing(tmp_path, app, secret="revoked"):
        await until(lambda: "refuses this part's secret" in last_error(said))
    assert "make a new secret" in last_error(said)
    assert len(captures(tmp_path)) == 4
    assert not (tmp_path / "failed").exists()
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    assert len(app.files) == 4


async def test_answers_that_come_twice_count_once(tmp_path: Path, app: StandInApp) -> None:
    put_pictures(tmp_path, 30)
    app.repeat_answers = True
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    assert ledger_row(tmp_path, "ReadImage")["synced"] == 30
    assert len(app.files) == 30


async def test_a_refused_key_is_named_as_what_it_is(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    app.refuse_with = 403
    async with syncing(tmp_path, app, secret="", key_id="id", key="key"):
        await until(lambda: any("API key (403): use a key with the owner's role" in str(line) for line in said))


async def test_a_stop_is_a_stop_also_when_a_piece_fails_because_of_it(
    tmp_path: Path, app: StandInApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that finds the connection left raises LinkError, and that is no reason to connect again."""

    async def piece_that_is_late(_sender: Sender) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LinkError("the connection ended") from None

    monkeypatch.setattr(Sender, "send_big_files", piece_that_is_late)
    async with syncing(tmp_path, app) as process:
        await until(lambda: process.is_connected)
    assert app.connections == 1
