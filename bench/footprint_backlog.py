"""A machine that was offline for weeks: what its waiting files cost, for `footprint.py`.

Without a link first (count, memory, idle processor), then with the app: when the new, the tagged and the first of the rest
arrive, files a second, a SIGKILL in the middle, and whether the ledger and the app agree to the file at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from fault_loop import Loop, Part
from grpclib.client import Channel
from viam.gen.component.sensor.v1.sensor_grpc import SensorServiceStub
from viam.proto.common import GetReadingsRequest

from gleaner.machine.capture.directory import STATE
from gleaner.machine.capture.ledger import LEDGER_FILE
from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.home import MachineHome
from waiting_files import KINDS, Made

NEW = ("rdk_component_camera/cam/GetImages", "rdk_component_sensor/meter/Readings")
TAGGED = tuple(kind.directory for kind in KINDS if kind.tags)
LOOK_S = 0.02
STRETCH_S = 5.0


class Synced:
    """Files that have left, by directory, read from the ledger's own file."""

    def __init__(self, root: Path) -> None:
        self._path = root / STATE / LEDGER_FILE

    def files(self) -> dict[str, int]:
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as db:
                return dict(
                    db.execute("SELECT directory, sum(files) FROM counts WHERE fate = 'synced' GROUP BY directory")
                )
        except sqlite3.OperationalError:
            return {}  # not there yet, or being made

    def of(self, directories: tuple[str, ...]) -> int:
        files = self.files()
        return sum(files.get(each, 0) for each in directories)

    def total(self) -> int:
        return sum(self.files().values())


def wait_for(condition: Callable[[], object], timeout_s: float, what: str) -> float:
    """Seconds until the condition held."""
    began_s, pause = time.monotonic(), threading.Event()
    while not condition():
        if time.monotonic() - began_s > timeout_s:
            raise SystemExit(f"{what}: not within {timeout_s:.0f} s")
        pause.wait(LOOK_S)
    return time.monotonic() - began_s


@dataclass
class Watch:
    """Memory of each process and the time that GetReadings takes, sampled beside everything else."""

    loop: Loop
    every_s: float = 1.0
    rss_mb: dict[str, list[float]] = field(default_factory=dict)
    answers_ms: list[float] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[Watch]:
        threads = [
            threading.Thread(target=self._watch_memory),
            threading.Thread(target=lambda: asyncio.run(self._ask())),
        ]
        for each in threads:
            each.start()
        try:
            yield self
        finally:
            self._ending.set()
            for each in threads:
                each.join()

    def _watch_memory(self) -> None:
        while not self._ending.wait(self.every_s):
            machine = self.loop.machine
            pids = {
                "machine": _pid(machine),
                "sync": machine.sync_pid if _pid(machine) else None,
                "app": _pid(self.loop.app),
            }
            for name, pid in pids.items():
                with contextlib.suppress(psutil.Error):
                    if pid is not None:
                        self.rss_mb.setdefault(name, []).append(psutil.Process(pid).memory_info().rss / 1e6)

    async def _ask(self) -> None:
        """As a program on the machine asks a sensor, ten times a second."""
        path = str(MachineHome(self.loop.folder / "rover").socket_path)
        while not self._ending.is_set():
            channel = Channel(path=path)
            with contextlib.suppress(Exception):  # the machine is starting, or was killed
                while not self._ending.is_set():
                    began_s = time.monotonic()
                    await SensorServiceStub(channel).GetReadings(GetReadingsRequest(name="meter"), timeout=10)
                    self.answers_ms.append((time.monotonic() - began_s) * 1000)
                    await asyncio.sleep(0.1)
            channel.close()
            await asyncio.sleep(0.1)

    def words(self) -> str:
        memory = ", ".join(
            f"{name} {values[0]:.0f} → {max(values):.0f} → {values[-1]:.0f}" for name, values in self.rss_mb.items()
        )
        late = sorted(self.answers_ms)
        answers = (
            f"{median(late):.1f} ms, p99 {late[int(len(late) * 0.99)]:.0f}, worst {late[-1]:.0f}" if late else "none"
        )
        return f"RSS MB (first, most, last): {memory}; GetReadings {answers}"


def _pid(part: Part) -> int | None:
    return part.process.pid if part.process is not None and part.process.poll() is None else None


def cpu_s(pid: int) -> float:
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return float(sum(each.cpu_times().user + each.cpu_times().system for each in family))


def start_machine(loop: Loop) -> float:
    """Seconds to the first new capture."""
    folder = loop.capture_dir / NEW[0]
    known = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
    began_s = time.monotonic()
    loop.machine.start()

    def is_new() -> bool:
        return folder.is_dir() and any(each.name not in known for each in folder.iterdir())

    wait_for(is_new, 120, "the first capture")
    return time.monotonic() - began_s


def machine_state(loop: Loop) -> tuple[float, dict[str, Any]]:
    """(seconds that `gleaner machine status` took, its ledger)."""
    began_s = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "gleaner.cli.main",
        "machine",
        "status",
        "--home",
        str(loop.folder / "rover"),
        "--json",
    ]
    answer = subprocess.run(command, capture_output=True, check=False, timeout=300)
    took_s = time.monotonic() - began_s
    return took_s, json.loads(answer.stdout).get("ledger") or {}


def offline(loop: Loop, idle_s: float) -> dict[str, float]:
    """The machine starts on its backlog while the app is down."""
    figures = {"offline_first_capture_s": start_machine(loop)}
    pid = _pid(loop.machine)
    assert pid is not None
    began_s = time.monotonic()
    watch = Watch(loop)
    with watch.running():
        wait_for(lambda: not machine_state(loop)[1].get("counting", True), 900, "the count")
        figures["counted_s"] = time.monotonic() - began_s
        before_s, began_s = cpu_s(pid), time.monotonic()
        time.sleep(idle_s)
        figures["offline_cpu_share"] = (cpu_s(pid) - before_s) / (time.monotonic() - began_s)
        figures["status_s"] = machine_state(loop)[0]
    print(f"  offline: {figures}\n  {watch.words()}", flush=True)
    loop.machine.stop()
    return figures


def online(loop: Loop, made: Made, kill_after: float) -> dict[str, float]:
    """The app is there: until everything has been sent, with a SIGKILL after this share of it."""
    synced = Synced(loop.capture_dir)
    figures: dict[str, float] = {}
    before = {name: synced.of(names) for name, names in (("new", NEW), ("tagged", TAGGED))}
    all_before = synced.total()
    watch = Watch(loop)
    with watch.running():
        began_s = time.monotonic()
        figures["first_capture_s"] = start_machine(loop)
        wait_for(lambda: synced.total() > all_before, 300, "the first upload")
        figures["first_upload_s"] = time.monotonic() - began_s
        wait_for(lambda: synced.of(TAGGED) > before["tagged"], 300, "the first tagged upload")
        figures["first_tagged_s"] = time.monotonic() - began_s
        wait_for(lambda: synced.of(NEW) > before["new"], 300, "the first new upload")
        figures["first_new_s"] = time.monotonic() - began_s
        stretches = _drain(synced, all_before + made.files * kill_after, began_s)
        killed_at = synced.total()
        loop.machine.kill()
        began_s = time.monotonic()
        figures["again_first_capture_s"] = start_machine(loop)
        wait_for(lambda: synced.total() > killed_at, 300, "the first upload after the kill")
        figures["again_first_upload_s"] = time.monotonic() - began_s
        stretches += _drain(synced, all_before + made.files, began_s)
    third = max(1, len(stretches) // 3)
    figures["files_per_s"] = _rate(stretches)
    figures["last_third_x_first"] = _rate(stretches[-third:]) / _rate(stretches[:third])
    for name, values in watch.rss_mb.items():
        figures[f"{name}_rss_mb"] = max(values)
        figures[f"{name}_rss_growth_mb"] = max(values[len(values) // 2 :]) - max(values[: len(values) // 2])
    figures["answer_p99_ms"] = sorted(watch.answers_ms)[int(len(watch.answers_ms) * 0.99)]
    print(f"  online: {figures}\n  {watch.words()}", flush=True)
    return figures


def check(loop: Loop, made: Made) -> None:
    """Once everything has been sent: to the picture and to the reading. Raises SystemExit."""
    ledger = read_ledger(loop.capture_dir)["collectors"]
    for row in ledger:
        if row["captured"] != row["synced"] + row["waiting"] + sum(row["dropped"].values()) or row["waiting"]:
            raise SystemExit(f"the ledger does not add up: {row}")
    pictures = sum(row["synced"] for row in ledger if row["method"] == "GetImages")
    readings = sum(row["synced"] for row in ledger if row["method"] != "GetImages")
    old = sum(row["synced"] for row in ledger if row["component"].startswith("old-"))
    held = (loop.items(), loop.readings())
    if held != (pictures, readings) or old != made.pictures + made.readings:
        raise SystemExit(f"the app holds {held}, the ledger says {(pictures, readings)}, of it {old} of {made}")
    print(f"  exact: {pictures} pictures and {readings} readings in the ledger and in the app", flush=True)


def _drain(synced: Synced, until: float, began_s: float) -> list[tuple[int, float]]:
    """(files, seconds) of each stretch until so many have left."""
    stretches: list[tuple[int, float]] = []
    last, last_s = synced.total(), time.monotonic()
    while last < until:
        goal_s = last_s + STRETCH_S
        wait_for(lambda: synced.total() >= until or time.monotonic() > goal_s, 60, "a stretch")  # noqa: B023
        now, now_s = synced.total(), time.monotonic()
        stretches.append((now - last, now_s - last_s))
        last, last_s = now, now_s
        if len(stretches) % 12 == 0 or now >= until:
            print(
                f"    {now} files after {now_s - began_s:.0f} s: {stretches[-1][0] / stretches[-1][1]:.0f} files/s",
                flush=True,
            )
    return stretches


def _rate(stretches: list[tuple[int, float]]) -> float:
    return sum(files for files, _ in stretches) / sum(seconds for _, seconds in stretches)
