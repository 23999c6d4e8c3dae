"""Driving the simulated rover with the page's own keys, and knowing (from the sim's separate channel) what each picture shows."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from journey_stack import wait_for
from playwright.sync_api import Page

from gleaner.sim import truth, views
from gleaner.sim.geometry import Pose


@dataclass(frozen=True)
class Seen:
    """A moment, and the one sign then in view: "" for no sign at all, None for several or a cut-off one."""

    at_ns: int
    label: str | None


def what_is_in_view(pose: Pose) -> str | None:
    signs = truth.visible(pose)
    if not signs:
        return ""
    return signs[0].label if len(signs) == 1 and signs[0].visible_fraction > 0.93 else None


class Trace:
    """The rover's place for every picture, as the sim wrote it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def poses(self) -> list[tuple[int, Pose]]:
        lines = [json.loads(line) for line in self._path.read_text().splitlines() if line.endswith("}")]
        return [(line["captured_at_ns"], Pose(line["x_mm"], line["y_mm"], line["heading_deg"])) for line in lines]

    def now(self) -> Pose:
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - 400))
            # What follows the last line's end is half a line: the sim may be writing, across two pages of the disk's cache.
            whole, _, _half = file.read().rpartition(b"\n")
        line = json.loads(whole.rsplit(b"\n", 1)[-1])
        return Pose(line["x_mm"], line["y_mm"], line["heading_deg"])

    def seen_at(self, moments_ns: Sequence[int]) -> list[Seen]:
        """What was in view at each moment: at the nearest picture that the sim rendered."""
        poses = self.poses()
        times = np.array([at for at, _pose in poses])
        return [Seen(at, what_is_in_view(poses[int(np.argmin(np.abs(times - at)))][1])) for at in moments_ns]


class Driver:
    """Holds W, A, S and D on the Control page until the rover is where it should be."""

    def __init__(self, page: Page, trace: Trace) -> None:
        self._page = page
        self._trace = trace

    def go_to(self, target: Pose, near_mm: float = 120.0) -> None:
        for _ in range(4):
            here = self._trace.now()
            away = math.hypot(target.x_mm - here.x_mm, target.y_mm - here.y_mm)
            if away <= near_mm:
                break
            self.face(math.degrees(math.atan2(target.y_mm - here.y_mm, target.x_mm - here.x_mm)), within_deg=8)
            self._forward(target, near_mm)
        self.face(target.heading_deg, within_deg=6)

    def face(self, heading_deg: float, within_deg: float) -> None:
        for _ in range(12):
            error = turn_between(self._trace.now().heading_deg, heading_deg)
            if abs(error) <= within_deg:
                return
            # The rover turns at most 72°/s at this speed and needs a moment to start and stop: short presses for the rest.
            self._hold("a" if error > 0 else "d", min(max(abs(error) / 72 - 0.08, 0.05), 2.0))
            self._page.wait_for_timeout(180)

    def _forward(self, target: Pose, near_mm: float) -> None:
        self._page.keyboard.down("w")
        try:
            best = math.inf
            for _ in range(200):
                here = self._trace.now()
                away = math.hypot(target.x_mm - here.x_mm, target.y_mm - here.y_mm)
                if away < near_mm or away > best + 60:
                    return
                best = min(best, away)
                self._page.wait_for_timeout(40)
        finally:
            self._page.keyboard.up("w")

    def _hold(self, key: str, seconds: float) -> None:
        self._page.keyboard.down(key)
        self._page.wait_for_timeout(round(seconds * 1000))
        self._page.keyboard.up(key)


def turn_between(from_deg: float, to_deg: float) -> float:
    """Degrees to turn left (negative: right), the short way."""
    return (to_deg - from_deg + 180) % 360 - 180


def visits(label: str | None, count: int, seed: int, start: Pose) -> list[Pose]:
    """Places that see only `label` (None: no sign), spread out, in an order that is short to drive."""
    rng = np.random.default_rng(seed)
    left = [views.single_sign_pose(label, rng) for _ in range(count)]
    route: list[Pose] = []
    here = start
    while left:
        here = min(left, key=lambda pose: math.hypot(pose.x_mm - here.x_mm, pose.y_mm - here.y_mm))
        left.remove(here)
        route.append(here)
    return route


def iso(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def nanoseconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def runs_of(label: str, seen: Sequence[Seen], at_most: int = 10_000) -> list[tuple[int, int, int]]:
    """Stretches of time (first, last, pictures) in which every picture shows just `label`: the longest first, none longer than
    `at_most` pictures, so that a number of pictures comes from many places."""
    found: list[list[int]] = [[]]
    for moment in sorted(seen, key=lambda each: each.at_ns):
        if moment.label == label:
            found[-1].append(moment.at_ns)
        elif found[-1]:
            found.append([])
    stretches = [(run[0], run[:at_most][-1], len(run[:at_most])) for run in found if run]
    return sorted(stretches, key=lambda run: -run[2])


def wait_until_traced(trace_file: Path) -> Trace:
    wait_for(
        lambda: trace_file.exists() and trace_file.stat().st_size > 0, 20, "the first picture of the rover's camera"
    )
    return Trace(trace_file)
