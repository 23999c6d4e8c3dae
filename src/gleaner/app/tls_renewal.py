"""Certificates that end or are replaced while the app runs: the doors serve the new one without a restart."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import ssl
from collections.abc import Callable, Sequence

from gleaner.app.settings import Settings
from gleaner.app.tls import ServerTls, TlsProblem, server_tls

# Whoever renews a certificate (certbot, say) does so weeks before it ends.
LOOK_S = 60.0

log = logging.getLogger(__name__)


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class TlsRenewal:
    """Looks at the files, makes the app's own certificate again in time, and gives what is new to the doors' contexts.

    Connections that are open keep what they were opened with. Lives on the event loop of the doors.
    """

    def __init__(
        self,
        settings: Settings,
        names: list[str],
        tls: ServerTls,
        contexts: Sequence[ssl.SSLContext],
        now: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._names = names
        self._contexts = contexts
        self._now = now
        self._served = _stamp(tls)
        self._problem = ""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception:
                log.exception("The certificate could not be looked at")

    async def look(self) -> None:
        """A certificate and a key that do not belong together may be half way through their replacement: looked at again."""
        try:
            tls = await asyncio.to_thread(server_tls, self._settings, self._names, self._now())
            if tls is None or _stamp(tls) == self._served:
                return
            await asyncio.to_thread(
                tls.context
            )  # raises for a pair that does not fit; the contexts in use must not see it
            for context in self._contexts:
                context.load_cert_chain(tls.cert_file, tls.key_file)
        except (TlsProblem, OSError) as error:
            if str(error) != self._problem:
                log.warning("The new certificate is not served yet: %s", error)
            self._problem = str(error)
            return
        self._served, self._problem = _stamp(tls), ""
        log.info("The certificate in %s is new: it is served from now on", tls.cert_file)


def _stamp(tls: ServerTls) -> tuple[int, ...]:
    return tuple(
        value for path in (tls.cert_file, tls.key_file) for value in (path.stat().st_mtime_ns, path.stat().st_ino)
    )
