from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gleaner.machine.capture.schedule import next_due


@pytest.mark.parametrize(
    ("previous", "now", "at", "skipped"),
    [
        (10.0, 10.1, 11.0, 0),
        (10.0, 10.0, 11.0, 0),  # answered at once: the same tick is not taken twice
        (10.0, 11.0, 11.0, 0),  # due right now
        (10.0, 11.2, 12.0, 1),  # a slow driver: the late tick is left out, the grid stays
        (10.0, 3610.5, 3611.0, 3600),  # stopped for an hour: no burst
        (10.0, 9.0, 11.0, 0),  # a monotonic clock does not go back, but nothing bad would happen
    ],
)
def test_the_next_tick_lies_on_the_grid(previous: float, now: float, at: float, skipped: int) -> None:
    due = next_due(previous, now, 1.0)
    assert due.at_s == pytest.approx(at)
    assert due.skipped == skipped


@settings(deadline=None)
@given(st.floats(0, 1e6), st.floats(0, 1e5), st.floats(1e-3, 1e3))
def test_a_tick_is_never_past_and_never_more_than_one_interval_away(
    previous: float, late: float, interval: float
) -> None:
    due = next_due(previous, previous + late, interval)
    assert due.at_s >= previous + late - 1e-6
    assert due.at_s <= previous + max(late, 0) + interval + 1e-6
    assert due.at_s == pytest.approx(previous + (due.skipped + 1) * interval)
