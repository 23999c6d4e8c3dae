from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from gleaner.machine.rpc.listeners import ListenProblem, check_exposure, explain_bind_error, parse_address, tls_context
from gleaner.wire.machine_config import NetworkConfig

TLS = {"tls_cert_file": "c.pem", "tls_key_file": "k.pem"}


def network(address: str, **kwargs: Any) -> NetworkConfig:
    return NetworkConfig(bind_address=address, **kwargs)


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("localhost:8080", "localhost", 8080, True),
        ("127.0.0.7:0", "127.0.0.7", 0, True),
        ("[::1]:80", "::1", 80, True),
        (":8080", "", 8080, False),
        ("0.0.0.0:8080", "0.0.0.0", 8080, False),
        ("rover.local:8080", "rover.local", 8080, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    address = parse_address(network(text))
    assert (address.host, address.port, address.is_loopback) == (host, port, loopback)


@pytest.mark.parametrize("text", ["localhost", "localhost:", "localhost:x", "localhost:70000", ""])
def test_what_is_no_address_is_explained(text: str) -> None:
    with pytest.raises(ListenProblem, match="write it like localhost:8080"):
        parse_address(network(text))


def test_nothing_listens_beyond_loopback_unprotected() -> None:
    check_exposure(parse_address(network("localhost:1")), has_authentication=False)
    with pytest.raises(ListenProblem, match="there is no TLS"):
        check_exposure(parse_address(network(":1")), has_authentication=True)
    with pytest.raises(ListenProblem, match="there is no TLS"):
        check_exposure(parse_address(network(":1", no_tls=True, **TLS)), has_authentication=True)
    with pytest.raises(ListenProblem, match="without authentication"):
        check_exposure(parse_address(network(":1", **TLS)), has_authentication=False)
    check_exposure(parse_address(network(":1", **TLS)), has_authentication=True)


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(ListenProblem, match=r"c\.pem with k\.pem cannot be used"):
        tls_context(parse_address(network("localhost:1", **TLS)))
    assert tls_context(parse_address(network("localhost:1"))) is None


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EADDRINUSE, "port 8080 is in use by another program"),
        (errno.EACCES, "above 1023"),
        (errno.EADDRNOTAVAIL, "cannot listen on"),
    ],
)
def test_bind_errors_say_what_to_do(number: int, text: str) -> None:
    assert text in str(explain_bind_error(parse_address(network("localhost:8080")), OSError(number, "reason")))
