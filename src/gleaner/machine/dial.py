"""How a machine dials its app's HTTP doors: never to where a stranger sends it, and with words for what stands in between."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

from websockets.asyncio.client import connect

# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED.
_NOT_YET_VALID, _EXPIRED = 9, 10
_LOOK_TIMEOUT_S = 5.0


class StraightConnect(connect):
    """`connect` that follows no redirect.

    The part's secret travels in the handshake. A captive portal answers with a redirect to itself; websockets drops only
    `Authorization` on the way to another origin, so the portal would be handed the secret.
    """

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def is_loopback(host: str | None) -> bool:
    """This computer itself, which no proxy must be asked for."""
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


def proxy_for(url: str) -> Literal[True] | None:
    """`connect`'s `proxy`: the environment's (HTTPS_PROXY, NO_PROXY …), and none on this computer itself."""
    return None if is_loopback(urlsplit(url).hostname) else True


def is_portal(status: int) -> bool:
    """No Gleaner app answers a WebSocket's handshake with a page or a redirect; 511 is RFC 6585's word for a portal."""
    return status < 400 or status == 511


def portal_words(address: str, status: int) -> str:
    """What to say of an HTTP answer that no Gleaner app gives."""
    return (
        f"something that is no Gleaner app answers at {address} (HTTP {status}): a network that wants a login first "
        "(captive portal), or a wrong web_address"
    )


@dataclass(frozen=True)
class Validity:
    not_before: datetime
    not_after: datetime


async def certificate_problem(address: str, error: ssl.SSLError, now: datetime | None = None) -> str:
    """Why the TLS handshake with `https://host:port` failed, and what to do. Looks at the certificate again for its dates."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"what answers at {address} does not speak TLS as the app does ({error.reason or error}): a network that wants "
            "a login first (captive portal), a proxy, or a wrong web_address"
        )
    if error.verify_code not in (_NOT_YET_VALID, _EXPIRED):
        return (
            f"{address} shows a certificate that this machine does not trust ({error.verify_message}): "
            "download machine.json from the app again, or set cloud.ca_certificate"
        )
    clock = f"this machine's clock says {_utc(now or datetime.now(UTC))}"
    seen = await _validity(address)
    dates = f" (valid from {_utc(seen.not_before)} to {_utc(seen.not_after)})" if seen else ""
    if error.verify_code == _NOT_YET_VALID:
        return f"the clock is wrong: {clock}, and the certificate of {address} is not valid yet{dates}: set the clock (NTP)"
    return f"the certificate of {address} has expired{dates} and {clock}: set the clock if it is wrong, else renew the certificate"


async def _validity(address: str) -> Validity | None:
    """The dates of the certificate shown at `address`, looked at without trusting it: nothing is sent there."""
    from cryptography import x509

    parts = urlsplit(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(_LOOK_TIMEOUT_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=context)
            try:
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        certificate = x509.load_der_x509_certificate(shown)
    except (OSError, TimeoutError, ValueError):
        return None
    return Validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _utc(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
