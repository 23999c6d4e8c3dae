"""Runs the victim, and looks at what it left."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from store_world import Work, as_line, opened

VICTIM = Path(__file__).with_name("store_victim.py")


@dataclass
class Run:
    acknowledged: set[int] = field(default_factory=set)
    steps: list[str] = field(default_factory=list)
    killed: str = ""
    has_ended: bool = False


class Victim:
    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, str(VICTIM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, work: str, folder: Path, at: int, disk: Path | None = None) -> Run:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(as_line(work=work, folder=str(folder), at=at, disk=str(disk or "")))
        self.process.stdin.flush()
        run = Run()
        while True:
            said = json.loads(self.process.stdout.readline())
            assert "failed" not in said, said["failed"]
            run.killed = said.get("killed", run.killed)
            if "ended" in said:
                run.steps, run.has_ended = said["ended"], True
            if "acknowledged" in said:
                run.acknowledged.add(said["acknowledged"])
            if "status" in said:
                assert bool(run.killed) == (said["status"] != 0)
                return run

    def end(self) -> None:
        self.process.communicate(timeout=30)


def check_after(work: Work, folder: Path, run: Run, *, ended: bool) -> None:
    """What an app finds that starts now."""
    with opened(folder) as world:
        found = world.numbers()
        assert len(set(found)) == len(found), f"killed {run.killed}: something is there twice"
        missing = (work.must | run.acknowledged) - set(found)
        assert not missing, f"killed {run.killed}: {missing} are lost"
        assert set(found) <= work.must | work.may, f"killed {run.killed}: what was deleted is back"
        world.check()
        assert not list(folder.glob("packs/tmp/*")), f"killed {run.killed}: an unfinished pack is left"
        if ended and work.may:
            assert set(found) == work.must | work.may
