"""How fast the backlog shrinks, and when it will be gone: captures keep coming while it is sent."""

from __future__ import annotations

# Of a new measurement against what was known: files differ in size, and lines from moment to moment.
_NEW_SHARE = 0.4


class Progress:
    def __init__(self) -> None:
        self.files_per_s = 0.0
        self.bytes_per_s = 0.0
        self._drain_per_s: float | None = None
        self._last: tuple[int, float] | None = None

    def note(self, files_per_s: float, bytes_per_s: float, backlog_bytes: int | None, now_s: float) -> None:
        """What was sent lately, and what is left (None: it is still being counted). Zeros: nothing is sent any more."""
        self.files_per_s, self.bytes_per_s = files_per_s, bytes_per_s
        if not files_per_s or backlog_bytes is None:
            self._drain_per_s = self._last = None
            return
        last, self._last = self._last, (backlog_bytes, now_s)
        if last is None or now_s <= last[1]:
            return
        drain = (last[0] - backlog_bytes) / (now_s - last[1])
        known = self._drain_per_s
        self._drain_per_s = drain if known is None else known + _NEW_SHARE * (drain - known)

    def eta_s(self, backlog_bytes: int) -> float | None:
        """Seconds until nothing waits; None while nothing is sent, or as much is captured as is sent."""
        if not backlog_bytes or self._drain_per_s is None or self._drain_per_s <= 0:
            return None
        return round(backlog_bytes / self._drain_per_s, 1)
