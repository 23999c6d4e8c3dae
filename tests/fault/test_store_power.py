"""The power goes at any step of work on the store: what was acknowledged before is there after it, once and readable.

An ext4 of its own on a loop device loses what was not synced (see `store_victim.py`). Needs root and a loop device.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_disk import Disk, own_disk
from store_run import Victim, check_after
from store_victim import cut_power
from store_world import WORKS, check_backup, opened

ROUNDS = int(os.environ.get("GLEANER_FAULT_ROUNDS", "0"))
SHORT = 2
"""Cuts of each work in a short run."""
SIZE = 96 << 20


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with own_disk(tmp_path_factory.mktemp("disk"), SIZE) as disk:
        yield disk


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    victim = Victim()
    yield victim
    victim.end()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ingest", "free", "merge", "compact", "rotate", "backup"])
def test_power_that_goes_at_any_step_costs_nothing_that_was_acknowledged(
    disk: Disk, victim: Victim, name: str, tmp_path: Path
) -> None:
    work, template = WORKS[name], tmp_path / "template"
    template.mkdir()
    with opened(template) as world:
        work.prepare(world)
    folder = disk.mounted / "here" / "data"
    shutil.copytree(template, folder)
    every = range(1, len(victim.run(name, folder, 0).steps) + 1)
    for at in sorted(random.Random(os.urandom(8)).sample(every, min(2 * ROUNDS or SHORT, len(every)))):
        shutil.rmtree(folder.parent)
        shutil.copytree(template, folder)
        os.sync()
        run = victim.run(name, folder, at, disk.mounted)
        disk.remount()
        check_after(work, folder, run, ended=False)
        again = victim.run(name, folder, 0)
        run.acknowledged |= again.acknowledged
        check_after(work, folder, run, ended=True)
        if name == "backup":
            check_backup(folder, tmp_path / "restored")
    shutil.rmtree(folder.parent)


def test_the_disk_of_these_tests_forgets_what_was_not_synced(disk: Disk) -> None:
    kept, lost = disk.mounted / "kept", disk.mounted / "lost"
    for path in (kept, lost):
        path.write_bytes(b"written")
    with kept.open("rb+") as file:
        os.fsync(file.fileno())
    lost.write_bytes(b"again")
    cut_power(str(disk.mounted))
    disk.remount()
    assert kept.read_bytes() == b"written"
    assert not lost.exists() or lost.read_bytes() == b""
