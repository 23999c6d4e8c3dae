"""The worker's voice: one JSON object per line, as `docs/architecture.md` "Training run" lists them."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from gleaner.learn.fit import Metrics


def utc_text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def claim_stdout() -> TextIO:
    """The real stdout for events; file descriptor 1 becomes stderr, for prints from Python and from C alike."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return own


class Events:
    """Writes events to `stream` at once, from any thread, so that the page moves while the run does."""

    def __init__(self, stream: TextIO, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._stream = stream
        self._now = now
        self._lock = threading.Lock()

    def log(self, message: str, level: str = "info") -> None:
        self._write("log", time=utc_text(self._now()), level=level, message=message)

    def warning(self, message: str) -> None:
        self._write("warning", message=message)

    def progress(self, fraction: float, phase: str, eta_s: float) -> None:
        self._write("progress", fraction=round(fraction, 4), phase=phase, eta_s=round(max(0.0, eta_s), 1))

    def metrics(self, metrics: Metrics) -> None:
        self._write("metrics", **asdict(metrics))

    def failed(self, message: str, hint: str) -> None:
        self._write("failed", message=message, hint=hint)

    def done(self) -> None:
        self._write("done")

    def _write(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, **values}, ensure_ascii=False, allow_nan=False) + "\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()
