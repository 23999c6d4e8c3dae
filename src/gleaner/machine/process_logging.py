"""What the process writes to stderr, and quiet libraries."""

from __future__ import annotations

import logging
import sys

import viam.logging


def configure_logging(debug: bool) -> None:
    """One line per message; the libraries below speak only when something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("gleaner").setLevel(logging.DEBUG if debug else logging.INFO)
    for noisy in ("grpclib", "websockets", "watchfiles", "asyncio", "hpack", "h2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # viam-sdk's loggers print to stdout by themselves; resources get this process's loggers instead.
    viam.logging.silence()  # type: ignore[no-untyped-call]
