"""How much to keep on the way: enough that the line is never idle, little enough that a cut line costs little.

Pure: every time comes from the caller. What is unanswered when a line breaks has to be sent again, and what is queued in
front of a slow line delays everything that should overtake it. So the bytes on the way are bounded by what the line has
carried (`rate`) times the time that an answer takes, as in BBR (Cardwell et al., 2016): the largest recent rate and the
round trip of a line without a queue. A line that is always full shows its queue only; so when no answer has come as fast as
that for a while, the queue is let run empty for a moment and the round trip is measured anew. The app's own time (`held`,
its fsync and its index) is told in every answer and counted apart, because it varies, and a short one must not shrink the
window of a long one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from gleaner.wire.sync_frames import BATCH_BYTES, PIECE_BYTES, SMALL_FILE_BYTES, WINDOW_BYTES

# Where nothing is known yet. A line of 64 kB/s has it carried in half a second; every round trip may double it.
FIRST_RATE = 256 * 1024.0
# Long enough to outlast a pause of the app's disk, short enough to notice a line that became slow.
RATE_MEMORY_S = 5.0
TRIP_MEMORY_S = 10.0
# An answer counts as without a queue when it takes hardly longer than the fastest one.
CONFIRMS = 1.25
# Frames take about this long on the line: a cut costs half a frame, a small file waits for one.
FRAME_S = 0.125
SMALLEST_FRAME = 8 * 1024
# A file that takes longer than this goes by pieces, which survive a cut.
SMALL_FILE_S = 0.5
SMALLEST_LIMIT = 32 * 1024
# Half a round trip more than needed lets the rate grow each round; the rest covers what event loops and schedulers add.
ROUND_TRIPS = 1.5
SLACK_S = 0.1


@dataclass(frozen=True)
class Sent:
    """What was known when a frame left; `Flow.answered` compares with it."""

    size: int
    at_s: float
    delivered: int
    measures: bool
    """Whether it left while the queue was let run empty, with next to nothing before it."""


class _Largest:
    """The largest value of the last `memory_s`."""

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._values: deque[tuple[float, float]] = deque()

    def note(self, value: float, now_s: float) -> None:
        while self._values and self._values[-1][1] <= value:
            self._values.pop()
        self._values.append((now_s, value))
        while self._values[0][0] < now_s - self._memory_s:
            self._values.popleft()

    def get(self, otherwise: float) -> float:
        return self._values[0][1] if self._values else otherwise


class Flow:
    """Lives as long as the process: a line that comes back is as fast as it was. `limit` is bytes a second, 0 for none."""

    def __init__(self, limit: float = 0) -> None:
        self.limit = limit
        self._rate = _Largest(RATE_MEMORY_S)
        self._trip_s = 0.0
        self._confirmed_s: float | None = None
        self._measuring = False
        self._held_s = 0.0
        self._delivered = 0
        self._on_the_way = 0

    def new_line(self) -> None:
        """What was on the way is lost."""
        self._on_the_way = 0

    def sent(self, size: int, now_s: float) -> Sent:
        measures = self._measuring and self._on_the_way <= 2 * self.piece_bytes
        self._on_the_way += size
        return Sent(size, now_s, self._delivered, measures)

    def answered(self, sent: Sent, held_s: float, now_s: float, *, is_pressed: bool) -> None:
        """`is_pressed`: more is waiting to go. Otherwise the answer only says that the line is no slower than this."""
        latency_s = max(now_s - sent.at_s, 1e-4)
        self._delivered += sent.size
        self._on_the_way = max(0, self._on_the_way - sent.size)
        rate = (self._delivered - sent.delivered) / latency_s
        if is_pressed or rate > self._rate.get(0.0):
            self._rate.note(rate, now_s)
        self._held_s += (min(held_s, latency_s) - self._held_s) / 8
        self._note_trip(max(latency_s - held_s, 1e-4), now_s, sent.measures)

    def _note_trip(self, trip_s: float, now_s: float, measures: bool) -> None:
        if measures or self._confirmed_s is None or trip_s < self._trip_s:
            self._trip_s, self._confirmed_s, self._measuring = trip_s, now_s, False
        elif trip_s <= CONFIRMS * self._trip_s:
            self._confirmed_s, self._measuring = now_s, False
        elif now_s - self._confirmed_s > TRIP_MEMORY_S:
            self._measuring = True

    @property
    def rate(self) -> float:
        """Bytes a second that the line is known to carry, or is allowed to."""
        known = self._rate.get(FIRST_RATE)
        return min(known, self.limit) if self.limit else known

    @property
    def window_bytes(self) -> int:
        if self._measuring:
            return 2 * self.piece_bytes
        answer_s = ROUND_TRIPS * (self._trip_s + self._held_s) + SLACK_S
        return int(min(max(self.rate * answer_s, 2 * self.piece_bytes), WINDOW_BYTES))

    @property
    def piece_bytes(self) -> int:
        return int(min(max(self.rate * FRAME_S, SMALLEST_FRAME), PIECE_BYTES))

    @property
    def batch_bytes(self) -> int:
        return int(min(max(self.rate * FRAME_S, SMALLEST_FRAME), BATCH_BYTES))

    @property
    def small_file_bytes(self) -> int:
        """Bigger files go by pieces."""
        return int(min(max(self.rate * SMALL_FILE_S, SMALLEST_LIMIT), SMALL_FILE_BYTES))


class Throttle:
    """Spends at most `bytes_per_s` (0: no limit): a frame goes once its bytes are paid for.

    Nothing is saved up while the line is idle beyond BURST_S, so that the limit holds over any second.
    """

    BURST_S = 0.05

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._paid_until_s = float("-inf")

    def wait_s(self, size: int, now_s: float) -> float:
        """How long to wait before `size` bytes may go; they count as sent."""
        if not self.bytes_per_s:
            return 0.0
        start_s = max(self._paid_until_s, now_s - self.BURST_S)
        self._paid_until_s = start_s + size / self.bytes_per_s
        return max(0.0, self._paid_until_s - now_s)
