from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gleaner.machine.capture.disk import DiskSpace, Marks, bytes_to_free
from gleaner.machine.capture.progress import Progress
from gleaner.machine.capture.thinning import Series, choose, shares

GB = 1_000_000_000


def series(count: int, size: int = 100, tagged: tuple[int, ...] = (), name: str = "cam", period: int = 10) -> Series:
    marks = np.zeros(count, np.bool_)
    marks[list(tagged)] = True
    return Series(name, np.arange(count, dtype=np.int64) * period, np.full(count, size, np.int64), marks)


@pytest.mark.parametrize(
    ("sizes", "budget", "kept"),
    [
        ([100, 100], 100, [50, 50]),
        ([10, 1000], 510, [10, 500]),  # the small one is not touched
        ([10, 20, 1000], 60, [10, 20, 30]),
        ([5, 5], 100, [5, 5]),
        ([100], 0, [0]),
        ([], 10, []),
    ],
)
def test_everybody_keeps_the_same_and_the_small_ones_everything(sizes: list[int], budget: int, kept: list[int]) -> None:
    assert shares(sizes, budget) == kept


def test_what_remains_is_spread_evenly_in_time() -> None:
    one = series(1000)
    [gone] = choose([one], 90_000)
    gaps = np.diff(one.times_ns[~gone]) / 10
    assert (~gone).sum() == 100
    assert gaps.max() <= 16
    assert not gone[-1]


def test_a_rare_sensor_is_not_touched_for_a_greedy_one() -> None:
    camera, door = series(1000, 1000), series(20, 10, name="door", period=500)
    gone_camera, gone_door = choose([camera, door], 800_000)
    assert not gone_door.any()
    assert gone_camera.sum() == 800


def test_tagged_files_go_when_nothing_untagged_is_left_anywhere() -> None:
    camera, other = series(100, tagged=tuple(range(0, 100, 10))), series(100, name="other")
    gone_camera, gone_other = choose([camera, other], 18_000)
    assert not gone_camera[camera.tagged].any()
    gone_camera, gone_other = choose([camera, other], 19_500)
    assert gone_camera[camera.tagged].any()
    assert gone_other[:-1].all()
    assert not gone_other[-1]


def test_the_newest_of_each_stays_whatever_is_asked() -> None:
    [gone] = choose([series(50)], 10**9)
    assert gone.sum() == 49
    assert not gone[-1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 1000)), min_size=1, max_size=5),
    st.integers(0, 100_000),
    st.randoms(use_true_random=False),
)
def test_enough_goes_and_hardly_more(groups: list[tuple[int, int]], need: int, chance: object) -> None:
    all_series = [
        series(count, size, tuple(i for i in range(count) if chance.random() < 0.2), str(n))  # type: ignore[attr-defined]
        for n, (count, size) in enumerate(groups)
    ]
    gone = choose(all_series, need)
    freed = sum(int(s.sizes[g].sum()) for s, g in zip(all_series, gone, strict=True))
    possible = sum(int(s.sizes[:-1].sum()) for s in all_series)
    assert freed >= min(need, possible)
    # A collector gives up less than one file too many, in each of the two rounds.
    assert freed <= need + 2 * sum(size for _, size in groups)


@pytest.mark.parametrize(
    ("free_gb", "captures_gb", "marks", "need_gb"),
    [
        (20, 60, Marks(), 0),  # room
        (10, 60, Marks(), 3),  # 90 % used: down to 87 %
        (5, 60, Marks(), 8),
        (10, 40, Marks(), 0),  # others fill the disk: captures have less than their half
        (1.5, 40, Marks(), 1.5),  # whoever filled it, capture has to go on
        (1.5, 1, Marks(), 1),  # no more than there is
        (5, 60, Marks(used=1.5), 0),
        (10, 40, Marks(captures=0.3), 3),
    ],
)
def test_the_marks_say_when_and_how_much(free_gb: float, captures_gb: float, marks: Marks, need_gb: float) -> None:
    space = DiskSpace(100 * GB, int(free_gb * GB))
    assert bytes_to_free(space, int(captures_gb * GB), marks) == pytest.approx(need_gb * GB, abs=10)


def test_the_end_is_told_by_how_the_backlog_shrinks() -> None:
    progress = Progress()
    progress.note(10, 1000, 100_000, 0.0)
    assert progress.eta_s(100_000) is None
    progress.note(10, 1000, 95_000, 5.0)
    assert progress.eta_s(95_000) == 95.0
    progress.note(0, 0, 94_000, 10.0)
    assert progress.eta_s(94_000) is None
    growing = Progress()
    growing.note(1, 100, 1000, 0.0)
    growing.note(1, 100, 2000, 5.0)
    assert growing.eta_s(2000) is None
