"""How the rover moves: a differential base with limited speed and acceleration. A pure step function."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gleaner.sim.geometry import Arena

MAX_SPEED_MM_S = 900.0
MAX_TURN_DEG_S = 120.0
ACCELERATION_MM_S2 = 1800.0
TURN_ACCELERATION_DEG_S2 = 480.0
ROVER_RADIUS_MM = 240.0
TRACK_WIDTH_MM = 300.0
WHEEL_CIRCUMFERENCE_MM = 380.0


@dataclass(frozen=True)
class Cruise:
    """Keep these speeds until told otherwise. Positive turns left."""

    speed_mm_s: float = 0.0
    turn_deg_s: float = 0.0


@dataclass(frozen=True)
class Travel:
    """Go this far along the heading, measured at the wheels, then stand."""

    remaining_mm: float
    speed_mm_s: float


@dataclass(frozen=True)
class Turn:
    """Turn this far, then stand."""

    remaining_deg: float
    turn_deg_s: float


Command = Cruise | Travel | Turn
STAND = Cruise()


@dataclass(frozen=True)
class Rover:
    x_mm: float
    y_mm: float
    heading_deg: float
    speed_mm_s: float = 0.0
    turn_deg_s: float = 0.0
    command: Command = STAND
    touching: bool = False
    """A wall holds it back."""

    @property
    def at_rest(self) -> bool:
        return self.command == STAND and self.speed_mm_s == 0 and self.turn_deg_s == 0


def step(rover: Rover, arena: Arena, dt_s: float) -> Rover:
    """The rover `dt_s` later. It never leaves the arena: against a wall it slides along it."""
    speed, turn, command, advance, swing = _wheels(rover, dt_s)
    middle = math.radians(rover.heading_deg + swing / 2)
    wanted = rover.x_mm + advance * math.cos(middle), rover.y_mm + advance * math.sin(middle)
    x, y = arena.keep_inside(*wanted, ROVER_RADIUS_MM)
    touching = abs(x - wanted[0]) + abs(y - wanted[1]) > 1e-6
    heading = (rover.heading_deg + swing + 180) % 360 - 180
    return Rover(x, y, heading, speed, turn, command, touching)


def _wheels(rover: Rover, dt_s: float) -> tuple[float, float, Command, float, float]:
    """Speeds and command after `dt_s`, and the way and angle covered in it."""
    command = rover.command
    match command:
        case Cruise():
            speed = _approach(rover.speed_mm_s, command.speed_mm_s, ACCELERATION_MM_S2 * dt_s)
            turn = _approach(rover.turn_deg_s, command.turn_deg_s, TURN_ACCELERATION_DEG_S2 * dt_s)
            return speed, turn, command, speed * dt_s, turn * dt_s
        case Travel():
            turn = _approach(rover.turn_deg_s, 0.0, TURN_ACCELERATION_DEG_S2 * dt_s)
            speed, way, left = _profile(
                rover.speed_mm_s, command.remaining_mm, command.speed_mm_s, ACCELERATION_MM_S2, dt_s
            )
            after: Command = replace(command, remaining_mm=left) if left else STAND
            return speed, turn, after, way, turn * dt_s
        case Turn():
            speed = _approach(rover.speed_mm_s, 0.0, ACCELERATION_MM_S2 * dt_s)
            turn, angle, left = _profile(
                rover.turn_deg_s, command.remaining_deg, command.turn_deg_s, TURN_ACCELERATION_DEG_S2, dt_s
            )
            after = replace(command, remaining_deg=left) if left else STAND
            return speed, turn, after, speed * dt_s, angle


def _approach(value: float, target: float, most: float) -> float:
    return target if abs(target - value) <= most else value + math.copysign(most, target - value)


def _profile(
    rate: float, remaining: float, limit: float, acceleration: float, dt_s: float
) -> tuple[float, float, float]:
    """One step of a move that starts and ends gently → (rate, covered, remaining); remaining 0 means arrived, standing."""
    braking = math.sqrt(2 * acceleration * abs(remaining))  # the fastest from which it can still stop in time
    target = math.copysign(min(limit, braking), remaining)
    rate = _approach(rate, target, acceleration * dt_s)
    covered = rate * dt_s
    # The last millimetre (or degree fraction) is snapped: the profile approaches its end ever more slowly.
    if abs(remaining - covered) < 0.02 or (covered * remaining > 0 and abs(covered) >= abs(remaining)):
        return 0.0, remaining, 0.0
    return rate, covered, remaining - covered
