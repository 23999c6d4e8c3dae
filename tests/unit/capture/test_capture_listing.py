"""Long directories in order, without a list of them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from gleaner.machine.capture.listing import oldest_first


def _fill(folder: Path, count: int) -> list[str]:
    names = [f"{number:05}.capture" for number in range(count)]
    for name in random.Random(3).sample(names, count):
        (folder / name).touch()
    return names


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".capture")


@pytest.mark.parametrize(("count", "gulp"), [(0, 5), (4, 5), (5, 5), (10, 5), (11, 5), (37, 5)])
def test_names_come_in_order_gulp_by_gulp(tmp_path: Path, count: int, gulp: int) -> None:
    names = _fill(tmp_path, count)
    (tmp_path / "00003.note").touch()
    assert list(oldest_first(str(tmp_path), _is_wanted, gulp)) == names


@pytest.mark.parametrize("count", [0, 6, 7, 8, 60])
def test_with_a_taste_each_name_comes_once_and_the_rest_in_order(tmp_path: Path, count: int) -> None:
    names = _fill(tmp_path, count)
    told = list(oldest_first(str(tmp_path), _is_wanted, 10, taste=7))
    assert sorted(told) == names
    assert told[:7] == sorted(told[:7])
    assert told[7:] == sorted(told[7:])


def test_a_taste_does_not_wait_for_a_look_at_every_name(tmp_path: Path) -> None:
    _fill(tmp_path, 500)
    looked: list[str] = []

    def is_wanted(entry: os.DirEntry[str]) -> bool:
        looked.append(entry.name)
        return True

    told = oldest_first(str(tmp_path), is_wanted, taste=3)
    assert next(told) in looked
    assert len(looked) == 3


def test_where_few_are_wanted_a_taste_ends_early_and_loses_none(tmp_path: Path) -> None:
    names = _fill(tmp_path, 3000)
    wanted = set(names[::300])
    told = list(oldest_first(str(tmp_path), lambda entry: entry.name in wanted, taste=50))
    assert sorted(told) == sorted(wanted)
    assert len(told) == len(wanted)
