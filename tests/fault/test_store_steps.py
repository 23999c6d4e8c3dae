"""kill -9 of every kind of work on the store at each step that changes the disk: nothing is lost, doubled or unreadable.

After each kill the work is done again and ends; `make fault` goes through 100 steps of each, which is all of most; a short run through a few.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_run import Victim, check_after
from store_world import WORKS, check_backup, opened

ROUNDS = int(os.environ.get("GLEANER_FAULT_ROUNDS", "0"))
SHORT = 3
"""Steps of each work in a short run."""


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    victim = Victim()
    yield victim
    victim.end()


def chosen(steps: int) -> list[int]:
    every = list(range(1, steps + 1))
    return sorted(random.Random(os.urandom(8)).sample(every, min(2 * ROUNDS or SHORT, steps)))


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKS)
def test_killed_at_any_step_the_store_is_whole_and_the_work_ends_when_done_again(
    victim: Victim, name: str, tmp_path: Path
) -> None:
    work, template = WORKS[name], tmp_path / "template"
    template.mkdir()
    with opened(template) as world:
        work.prepare(world)
    whole = tmp_path / "whole"
    shutil.copytree(template, whole / "data")
    for at in chosen(len(victim.run(name, whole / "data", 0).steps)):
        folder = tmp_path / f"at-{at}" / "data"
        shutil.copytree(template, folder)
        run = victim.run(name, folder, at)
        if name != "restore":  # its folder is not there before it has ended
            check_after(work, folder, run, ended=False)
        again = victim.run(name, folder, 0)
        assert again.has_ended
        run.acknowledged |= again.acknowledged
        check_after(work, folder, run, ended=True)
        if name == "backup":
            check_backup(folder, folder.with_name("restored"))
        shutil.rmtree(folder.parent)
