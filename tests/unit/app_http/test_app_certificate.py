"""Certificates that are replaced or about to end while the app runs, seen by clients on both doors."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gleaner.app.server import AppServer
from gleaner.app.settings import Settings
from gleaner.app.tls import server_tls
from gleaner.app.tls_renewal import TlsRenewal

HOST = "127.0.0.2"
NOW = dt.datetime.now(dt.UTC)


def shown(address: str) -> str:
    """The certificate that a door shows now, PEM."""
    where = urlsplit(address)
    assert where.hostname and where.port
    return ssl.get_server_certificate((where.hostname, where.port), timeout=10)


def pair(folder: Path) -> tuple[bytes, bytes]:
    """Certificate and key of an owner, PEM."""
    made = server_tls(Settings(data_dir=folder, host=HOST), [HOST], NOW)
    assert made is not None
    return made.cert_file.read_bytes(), made.key_file.read_bytes()


async def doors(server: AppServer) -> set[str]:
    addresses = server.context.addresses
    return {await asyncio.to_thread(shown, address) for address in (addresses.web, addresses.grpc)}


async def test_an_owners_new_certificate_is_served_without_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = pair(tmp_path / "old"), pair(tmp_path / "new")
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(old[0])
    key_file.write_bytes(old[1])
    settings = Settings(
        data_dir=tmp_path / "app", host=HOST, port=0, grpc_port=0, tls_cert_file=cert_file, tls_key_file=key_file
    )
    async with AppServer(settings) as server:
        assert server.renewal is not None
        assert await doors(server) == {old[0].decode()}
        cert_file.write_bytes(new[0])  # the key does not belong to it yet
        with caplog.at_level(logging.INFO, "gleaner.app.tls_renewal"):
            for _ in range(2):
                await server.renewal.look()
            assert await doors(server) == {old[0].decode()}
            key_file.write_bytes(new[1])
            for _ in range(2):
                await server.renewal.look()
        assert await doors(server) == {new[0].decode()}
    assert caplog.text.count("not served yet") == 1
    assert caplog.text.count("served from now on") == 1


async def test_the_apps_own_certificate_is_made_again_before_it_ends_and_its_authority_stays(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, host=HOST)
    tls = server_tls(settings, [HOST], NOW)
    assert tls is not None
    context, first = tls.context(), tls.cert_file.read_bytes()
    times = iter([dt.timedelta(days=300), dt.timedelta(days=350)])
    renewal = TlsRenewal(settings, [HOST], tls, [context], lambda: NOW + next(times))
    await renewal.look()
    assert tls.cert_file.read_bytes() == first
    await renewal.look()
    assert tls.cert_file.read_bytes() != first
    again = server_tls(settings, [HOST], NOW + dt.timedelta(days=350))
    assert again is not None
    assert again.ca_certificate == tls.ca_certificate
