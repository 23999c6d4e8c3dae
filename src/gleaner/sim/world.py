"""A running arena: one rover, one clock, shared by the camera and the base that name the same world.

Thread-safe: a camera renders in its own thread while base commands come from an event loop. Physics advances in fixed steps
up to the injected clock's now, whenever somebody looks or commands; nobody looking costs nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from gleaner.sim.drive import MAX_SPEED_MM_S, MAX_TURN_DEG_S, STAND, Command, Cruise, Rover, Travel, Turn, step
from gleaner.sim.geometry import Arena, Pose

STEP_S = 0.01
CATCH_UP_S = 20.0
"""A rover left driving and unwatched stands at a wall long before this; computing more would only delay the picture."""

START = Rover(-1250.0, -420.0, 9.0)
"""Looks at the red star with the window to its right: the first picture a user sees."""

DEFAULT_SEED = 7
"""Of the pictures; the rover's world itself holds nothing random."""


class World:
    """One arena with its rover."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, start: Rover = START) -> None:
        self.arena = Arena()
        self._clock = clock
        self._lock = threading.Lock()
        self._born_s = clock()
        self._stepped_s = 0.0
        self._rover = start
        self._order = 0

    @property
    def time_s(self) -> float:
        """Since the world began; moves its light."""
        return self._clock() - self._born_s

    def rover(self) -> Rover:
        """The rover as it is now."""
        with self._lock:
            return self._advance()

    def pose(self) -> Pose:
        rover = self.rover()
        return Pose(rover.x_mm, rover.y_mm, rover.heading_deg, rover.speed_mm_s, rover.turn_deg_s)

    def set_velocity(self, speed_mm_s: float, turn_deg_s: float) -> None:
        """Speeds beyond what the rover can do are limited to it. Positive turns left."""
        self._give(Cruise(_limit(speed_mm_s, MAX_SPEED_MM_S), _limit(turn_deg_s, MAX_TURN_DEG_S)))

    def set_power(self, linear: float, angular: float) -> None:
        """Shares −1…1 of the top speeds."""
        self.set_velocity(_limit(linear, 1.0) * MAX_SPEED_MM_S, _limit(angular, 1.0) * MAX_TURN_DEG_S)

    def stop(self) -> None:
        self._give(STAND)

    def begin_straight(self, distance_mm: float, speed_mm_s: float) -> int:
        """Negative distance *or* speed goes backwards, both together forwards, zero of either stops. → order number."""
        distance = math.copysign(distance_mm, distance_mm * speed_mm_s)
        if not distance_mm or not speed_mm_s:
            return self._give(STAND)
        return self._give(Travel(distance, _limit(abs(speed_mm_s), MAX_SPEED_MM_S)))

    def begin_turn(self, angle_deg: float, turn_deg_s: float) -> int:
        """Signs as in `begin_straight`; positive turns left. → order number."""
        angle = math.copysign(angle_deg, angle_deg * turn_deg_s)
        if not angle_deg or not turn_deg_s:
            return self._give(STAND)
        return self._give(Turn(angle, _limit(abs(turn_deg_s), MAX_TURN_DEG_S)))

    def is_done(self, order: int) -> bool:
        """The order was carried out, or another one replaced it."""
        with self._lock:
            rover = self._advance()
            return order != self._order or isinstance(rover.command, Cruise)

    def place(self, x_mm: float, y_mm: float, heading_deg: float) -> None:
        """Puts the rover somewhere, standing. Outside the arena it ends up at the nearest point inside."""
        with self._lock:
            self._advance()
            self._order += 1
            self._rover = step(Rover(x_mm, y_mm, heading_deg), self.arena, 0.0)

    def _give(self, command: Command) -> int:
        with self._lock:
            self._rover = replace(self._advance(), command=command)
            self._order += 1
            return self._order

    def _advance(self) -> Rover:
        now = self.time_s
        if now - self._stepped_s > CATCH_UP_S:
            self._stepped_s = now - CATCH_UP_S
        while self._stepped_s + STEP_S <= now:
            if self._rover.at_rest:
                self._stepped_s += math.floor((now - self._stepped_s) / STEP_S) * STEP_S
                break
            self._rover = step(self._rover, self.arena, STEP_S)
            self._stepped_s += STEP_S
        return self._rover


def _limit(value: float, most: float) -> float:
    """Raises ValueError for NaN and infinity, which would put the rover nowhere."""
    if not math.isfinite(value):
        raise ValueError(f"a speed must be a number, got {value}: send a finite speed")
    return max(-most, min(most, value))


@dataclass
class _Entry:
    world: World
    users: int = 0


@dataclass
class Worlds:
    """Open worlds by key. A world lives as long as somebody holds it, so changing the camera's settings leaves the rover
    where it stands."""

    clock: Callable[[], float] = time.monotonic
    _entries: dict[tuple[str, str], _Entry] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, key: tuple[str, str]) -> World:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _Entry(World(self.clock))
            entry.users += 1
            return entry.world

    def close(self, key: tuple[str, str]) -> None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return
            entry.users -= 1
            if entry.users <= 0:
                del self._entries[key]


WORLDS: Final = Worlds()
"""The process's worlds. Global because the two models that share a world are built apart and know only its name; keys carry
the machine's home folder, so two machines in one process never meet."""
