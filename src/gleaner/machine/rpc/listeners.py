"""Where the robot API listens, and the rule that nothing listens beyond loopback without TLS and authentication."""

from __future__ import annotations

import errno
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from gleaner.wire.machine_config import NetworkConfig


class ListenProblem(Exception):
    """The robot API cannot listen as configured; the message says why and what to do."""


@dataclass(frozen=True)
class Address:
    host: str
    port: int
    certificate: str = ""
    key: str = ""

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def has_tls(self) -> bool:
        return bool(self.certificate)

    def url(self, port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host or "0.0.0.0"
        return f"{'https' if self.has_tls else 'http'}://{host}:{port}"


def parse_address(network: NetworkConfig) -> Address:
    """`host:port`, `[::1]:port` or `:port` for every interface. Raises ListenProblem."""
    host, colon, port = network.bind_address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ListenProblem(
            f"network.bind_address: {network.bind_address!r} is not an address: write it like localhost:8080"
        )
    use_tls = bool(network.tls_cert_file and network.tls_key_file) and not network.no_tls
    certificate, key = (network.tls_cert_file, network.tls_key_file) if use_tls else ("", "")
    return Address(host.strip("[]"), int(port), certificate, key)


def check_exposure(address: Address, has_authentication: bool) -> None:
    """Raises ListenProblem for an address that others can reach and that is not protected."""
    if address.is_loopback:
        return
    if not address.has_tls:
        raise ListenProblem(
            f"network.bind_address: {address.host or 'every interface'} is reachable from outside and there is no TLS: "
            "set network.tls_cert_file and network.tls_key_file, or bind to localhost"
        )
    if not has_authentication:
        raise ListenProblem(
            f"network.bind_address: {address.host or 'every interface'} is reachable from outside without authentication: "
            "add an api-key handler to auth.handlers, or bind to localhost"
        )


def tls_context(address: Address) -> ssl.SSLContext | None:
    if not address.has_tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(Path(address.certificate).expanduser(), Path(address.key).expanduser())
    except (OSError, ssl.SSLError) as error:
        raise ListenProblem(
            f"network.tls_cert_file: {address.certificate} with {address.key} cannot be used: {error}"
        ) from error
    context.set_alpn_protocols(["h2"])
    return context


def explain_bind_error(address: Address, error: OSError) -> ListenProblem:
    place = f"{address.host or '0.0.0.0'}:{address.port}"
    if error.errno == errno.EADDRINUSE:
        return ListenProblem(
            f"port {address.port} is in use by another program: stop it, or set network.bind_address to another port (localhost:0 takes any)"
        )
    if error.errno == errno.EACCES:
        return ListenProblem(f"{place} needs administrator rights: set network.bind_address to a port above 1023")
    return ListenProblem(f"network.bind_address: cannot listen on {place}: {error.strerror or error}")
