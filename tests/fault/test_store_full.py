"""The disk is full while the store works: it says so, loses nothing, leaves no half files, and goes on once there is room."""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError
from store_disk import Disk, own_disk
from store_run import Run, check_after
from store_world import WORKS, check_backup, opened

from gleaner.app.errors import Unavailable
from gleaner.app.store.backup import BackupProblem

ROUNDS = int(os.environ.get("GLEANER_FAULT_ROUNDS", "0"))
SHORT = 2
SIZE = 48 << 20
MOST_LEFT = 1 << 20


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with own_disk(tmp_path_factory.mktemp("disk"), SIZE) as disk:
        yield disk


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ingest", "free", "merge", "compact", "rotate", "backup", "rebuild"])
def test_a_full_disk_costs_nothing_that_was_acknowledged(
    disk: Disk, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    work, template = WORKS[name], tmp_path / "template"
    template.mkdir()
    with opened(template) as world:
        work.prepare(world)
    folder = disk.mounted / "here" / "data"
    shutil.rmtree(folder.parent, ignore_errors=True)
    chance = random.Random(os.urandom(8))
    for left in [0, *(chance.randrange(MOST_LEFT) for _ in range(ROUNDS or SHORT))]:
        shutil.copytree(template, folder)
        run = Run(killed=f"by a disk with {left} bytes left")
        with disk.left(left):
            try:
                work.run(folder, run.acknowledged.add)
                assert left, "there was room on a full disk"
            except (OSError, SQLAlchemyError, BackupProblem, Unavailable):
                assert not list(folder.glob("packs/tmp/*")), "what did not fit is still in the way"
        check_after(work, folder, run, ended=False)
        work.run(folder, run.acknowledged.add)
        check_after(work, folder, run, ended=True)
        if name == "backup":
            check_backup(folder, tmp_path / "restored")
        shutil.rmtree(folder.parent)
