"""The commands that install Gleaner on a machine, and the signed address in them that gives the app's own wheel."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from gleaner.app.context import Addresses
from gleaner.app.errors import PermissionDenied, Unauthenticated, Unavailable
from gleaner.app.services.tokens import TokenSigner
from gleaner.app.services.wheel import Wheel, own_wheel

log = logging.getLogger("gleaner.app.install")

INSTALL_LINK_S = 24 * 3600
_SECOND_NS = 1_000_000_000


class InstallLinks:
    """pip sends no credentials, so its address carries a token: of no other use, for 24 hours, for one wheel."""

    def __init__(
        self,
        app_key: bytes,
        clock_ns: Callable[[], int] = time.time_ns,
        wheel: Callable[[], Wheel] = own_wheel,
    ) -> None:
        self._signer = TokenSigner(app_key)
        self._clock_ns = clock_ns
        self._wheel = wheel

    def commands(self, addresses: Addresses) -> list[str]:
        """Shell lines that make the folder `gleaner` with Gleaner in it; none if this Gleaner was never installed."""
        try:
            wheel = self._wheel()
        except Unavailable as err:
            log.warning("A setup file is made without the commands that install Gleaner: %s. %s", err.message, err.hint)
            return []
        until_s = self._clock_ns() // _SECOND_NS + INSTALL_LINK_S
        token = self._signer.sign({"t": "install", "x": until_s, "w": wheel.sha256[:16]})
        url = f"{addresses.web}/install/{token}/{wheel.file_name}#sha256={wheel.sha256}"
        # pip cannot be told a certificate authority for one host only; the hash in the address vouches for the wheel.
        host = urlsplit(addresses.web).netloc
        trust = f"--trusted-host '{host}' " if addresses.ca_certificate else ""
        return ["python3 -m venv gleaner", f"gleaner/bin/pip install {trust}'{url}'"]

    def wheel(self, token: str, file_name: str) -> Wheel:
        """Raises PermissionDenied for a token that is too old, not ours, or made before the app was updated."""
        try:
            claims = self._signer.verify(token)
        except Unauthenticated:
            raise _refused() from None
        if claims.get("t") != "install" or claims["x"] * _SECOND_NS <= self._clock_ns():
            raise _refused()
        wheel = self._wheel()
        if claims["w"] != wheel.sha256[:16] or file_name != wheel.file_name:
            raise _refused()
        return wheel


def _refused() -> PermissionDenied:
    return PermissionDenied(
        "this install address does not work (any more): it is good for 24 hours and until the app is updated",
        "In the app, open the machine's CONNECT tab and make a new setup file: new commands come with it.",
    )
