"""How much is kept on the way, and how fast, with a clock that the test moves."""

from __future__ import annotations

import random
from collections import deque

import pytest

from gleaner.machine.sync.flow import SMALLEST_FRAME, Flow, Sent, Throttle
from gleaner.wire.sync_frames import BATCH_BYTES, PIECE_BYTES, WINDOW_BYTES


class PlayedLine:
    """A line of so many bytes a second with a delay, and an app that holds each frame for a while. Always full."""

    def __init__(self, flow: Flow, rate: float, delay_s: float, held_s: float = 0.0) -> None:
        self.flow, self.rate, self.delay_s, self.held_s = flow, rate, delay_s, held_s
        self.now_s = 0.0
        self.on_the_way: deque[tuple[float, Sent]] = deque()
        self.free_at_s = 0.0
        self.most_bytes = 0
        self.carried = 0

    @property
    def bytes_on_the_way(self) -> int:
        return sum(sent.size for _, sent in self.on_the_way)

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            size = self.flow.piece_bytes
            while self.bytes_on_the_way + size <= self.flow.window_bytes or not self.on_the_way:
                self.free_at_s = max(self.free_at_s, self.now_s) + size / self.rate
                due_s = self.free_at_s + self.delay_s + self.held_s
                self.on_the_way.append((due_s, self.flow.sent(size, self.now_s)))
                self.most_bytes = max(self.most_bytes, self.bytes_on_the_way)
            due_s, sent = self.on_the_way.popleft()
            self.now_s = max(self.now_s, due_s)
            self.carried += sent.size
            self.flow.answered(sent, self.held_s, self.now_s, is_pressed=True)


def test_a_slow_line_is_full_with_little_on_the_way() -> None:
    line = PlayedLine(Flow(), 64_000, 0.02, 0.01)
    line.run(15)
    line.most_bytes = line.carried = 0
    began_s = line.now_s
    line.run(60)
    assert line.carried / (line.now_s - began_s) > 0.97 * 64_000
    assert line.most_bytes < 0.7 * 64_000


@pytest.mark.parametrize(("rate", "delay_s", "held_s"), [(50e6, 0.1, 0.05), (5e6, 0.3, 0.01), (80e6, 0.0005, 0.2)])
def test_a_fast_line_is_filled_within_seconds(rate: float, delay_s: float, held_s: float) -> None:
    line = PlayedLine(Flow(), rate, delay_s, held_s)
    line.run(6)
    line.carried, began_s = 0, line.now_s
    line.run(3)
    possible = min(rate, WINDOW_BYTES / (delay_s + held_s))
    assert line.carried / (line.now_s - began_s) > 0.9 * possible


def test_a_line_that_becomes_slow_is_noticed() -> None:
    line = PlayedLine(Flow(), 10e6, 0.05)
    line.run(5)
    line.rate = 64_000
    line.run(40)
    assert line.bytes_on_the_way < 64_000


def test_an_app_with_a_disk_that_is_slow_now_and_then_keeps_its_window() -> None:
    chance = random.Random(1)
    line = PlayedLine(Flow(), 50e6, 0.001)
    for _ in range(200):
        line.held_s = chance.choice([0.002, 0.4])
        line.run(0.1)
    assert line.flow.window_bytes > 4 * BATCH_BYTES


def test_a_trickle_of_small_files_says_nothing_about_the_line() -> None:
    flow = Flow()
    now_s = 0.0
    for _ in range(30):
        flow.answered(flow.sent(1_000_000, now_s), 0.0, now_s + 0.02, is_pressed=True)
        now_s += 0.02
    before = flow.batch_bytes
    for _ in range(100):
        flow.answered(flow.sent(500, now_s), 0.0, now_s + 0.02, is_pressed=False)
        now_s += 1.0
    assert flow.batch_bytes == before == BATCH_BYTES


def test_frames_follow_the_line_within_their_bounds() -> None:
    flow = Flow()
    flow.answered(flow.sent(10, 0.0), 0.0, 100.0, is_pressed=True)
    assert flow.piece_bytes == flow.batch_bytes == SMALLEST_FRAME
    flow = Flow()
    flow.answered(flow.sent(100_000_000, 0.0), 0.0, 0.1, is_pressed=True)
    assert flow.piece_bytes == PIECE_BYTES
    assert flow.window_bytes == WINDOW_BYTES
    flow.limit = 100_000
    assert flow.piece_bytes == 12_500


@pytest.mark.parametrize("limit", [20_000, 1_000_000])
def test_the_limit_holds_over_any_second(limit: int) -> None:
    """Frames of all sizes, some after a rest: what went in any window of a second is the limit, and one frame."""
    chance, throttle, now_s = random.Random(limit), Throttle(limit), 0.0
    gone: list[tuple[float, int]] = []
    for _ in range(500):
        size = chance.randrange(100, limit // 8)
        now_s += throttle.wait_s(size, now_s)
        gone.append((now_s, size))
        now_s += chance.choice([0.0, 0.0, 0.0, 0.3])
    for start_s, _ in gone:
        second = sum(size for at_s, size in gone if start_s <= at_s < start_s + 1)
        assert second <= limit * (1.05 + Throttle.BURST_S) + limit // 8


def test_a_busy_line_gets_all_of_its_limit() -> None:
    throttle, now_s, sent = Throttle(50_000), 0.0, 0
    while now_s < 100:
        now_s += throttle.wait_s(6_000, now_s)
        sent += 6_000
    assert sent / now_s == pytest.approx(50_000, rel=0.01)


def test_no_limit_means_no_wait_and_a_new_limit_counts_at_once() -> None:
    throttle = Throttle(0)
    assert [throttle.wait_s(10**9, 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    throttle.bytes_per_s = 1000
    assert throttle.wait_s(1000, 0.0) == pytest.approx(1 - Throttle.BURST_S)
    assert throttle.wait_s(1000, 0.0) == pytest.approx(2 - Throttle.BURST_S)
