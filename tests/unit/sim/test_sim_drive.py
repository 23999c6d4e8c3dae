"""The rover's movement: how far, how fast, and never through a wall."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gleaner.sim.drive import (
    ACCELERATION_MM_S2,
    MAX_SPEED_MM_S,
    MAX_TURN_DEG_S,
    ROVER_RADIUS_MM,
    STAND,
    Cruise,
    Rover,
    Travel,
    step,
)
from gleaner.sim.geometry import Arena
from gleaner.sim.world import CATCH_UP_S, World, Worlds

CENTER = Rover(0.0, 0.0, 0.0)


def world_at(clock, start: Rover = CENTER) -> World:
    return World(clock, start)


def run(clock, world: World, seconds: float) -> Rover:
    """Looks often, as a camera does."""
    for _ in range(round(seconds / 0.05)):
        clock.now_s += 0.05
        world.rover()
    return world.rover()


def test_a_rover_nobody_commands_stands_still(clock):
    assert run(clock, world_at(clock), 5) == CENTER


@pytest.mark.parametrize(
    ("distance", "speed", "expected"),
    [
        (500, 300, 500),
        (-500, 300, -500),
        (500, -300, -500),
        (-500, -300, 500),
        (500, 1e9, 500),
        (0, 300, 0),
        (500, 0, 0),
    ],
)
def test_move_straight_covers_the_distance_with_the_sign_of_both(clock, distance, speed, expected):
    world = world_at(clock)
    order = world.begin_straight(distance, speed)
    rover = run(clock, world, 6)
    assert (rover.x_mm, rover.y_mm) == (pytest.approx(expected, abs=0.1), pytest.approx(0, abs=0.1))
    assert rover.at_rest
    assert world.is_done(order)


@pytest.mark.parametrize(
    ("angle", "rate", "expected"), [(90, 60, 90), (-90, 60, -90), (90, -60, -90), (450, 90, 90), (180, 0, 0)]
)
def test_spin_turns_left_for_positive_angles(clock, angle, rate, expected):
    world = world_at(clock)
    world.begin_turn(angle, rate)
    rover = run(clock, world, 10)
    assert rover.heading_deg == pytest.approx(expected, abs=0.05)
    assert (rover.x_mm, rover.y_mm) == (0, 0)


def test_velocity_is_reached_gradually_and_then_kept(clock):
    world = world_at(clock, Rover(-1500, 0, 0))
    world.set_velocity(400, 0)
    clock.now_s += 0.1
    assert world.rover().speed_mm_s == pytest.approx(ACCELERATION_MM_S2 * 0.1, rel=0.2)
    run(clock, world, 1)
    before = world.rover().x_mm
    after = run(clock, world, 1)
    assert after.speed_mm_s == 400
    assert after.x_mm - before == pytest.approx(400, rel=0.02)


def test_velocity_and_power_are_limited_to_what_the_rover_can_do(clock):
    world = world_at(clock)
    world.set_velocity(1e9, -1e9)
    assert world.rover().command == Cruise(MAX_SPEED_MM_S, -MAX_TURN_DEG_S)
    world.set_power(-0.5, 7)
    assert world.rover().command == Cruise(-MAX_SPEED_MM_S / 2, MAX_TURN_DEG_S)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_speed_that_is_no_number_is_refused(clock, bad):
    with pytest.raises(ValueError, match="finite"):
        world_at(clock).set_velocity(bad, 0)


def test_stop_brakes_to_a_stand(clock):
    world = world_at(clock)
    world.set_velocity(600, 90)
    run(clock, world, 1)
    world.stop()
    assert run(clock, world, 1).at_rest


def test_a_rover_driven_at_a_wall_is_held_and_says_so(clock):
    world = world_at(clock)
    world.set_velocity(800, 0)
    rover = run(clock, world, 8)
    assert rover.x_mm == pytest.approx(Arena().apothem_mm - ROVER_RADIUS_MM)
    assert rover.touching


def test_a_rover_driven_slantwise_slides_along_the_wall(clock):
    world = world_at(clock, Rover(1500, 0, 30))
    world.set_velocity(500, 0)
    rover = run(clock, world, 2)
    assert rover.x_mm == pytest.approx(Arena().apothem_mm - ROVER_RADIUS_MM)
    assert rover.y_mm > 400


def test_a_new_command_ends_the_move_under_way(clock):
    world = world_at(clock)
    order = world.begin_straight(2000, 200)
    run(clock, world, 1)
    assert not world.is_done(order)
    world.set_velocity(0, 30)
    assert world.is_done(order)


def test_looking_rarely_or_often_gives_the_same_path(clock):
    often, rarely = world_at(clock), world_at(clock)
    for world in (often, rarely):
        world.set_velocity(350, 40)
    run(clock, often, 4)
    assert often.rover() == rarely.rover()


def test_a_rover_unwatched_for_hours_is_caught_up_with_quickly(clock):
    world = world_at(clock)
    world.set_velocity(200, 60)
    clock.now_s += 36_000
    assert world.rover().turn_deg_s == 60
    assert CATCH_UP_S < 60


def test_place_outside_the_arena_ends_inside(clock):
    world = world_at(clock)
    world.place(9000, 9000, 45)
    rover = world.rover()
    assert max(Arena().normals @ (rover.x_mm, rover.y_mm)) <= Arena().apothem_mm - ROVER_RADIUS_MM + 1e-6


commands = st.one_of(
    st.builds(Cruise, st.floats(-900, 900), st.floats(-120, 120)),
    st.builds(Travel, st.floats(-6000, 6000), st.floats(1, 900)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(commands, min_size=1, max_size=8), st.floats(-180, 180))
def test_no_command_sequence_leaves_the_arena(sequence, heading):
    arena = Arena()
    rover = Rover(0, 0, heading)
    for command in sequence:
        rover = Rover(rover.x_mm, rover.y_mm, rover.heading_deg, rover.speed_mm_s, rover.turn_deg_s, command)
        for _ in range(40):
            rover = step(rover, arena, 0.05)
            assert max(arena.normals @ (rover.x_mm, rover.y_mm)) <= arena.apothem_mm - ROVER_RADIUS_MM + 1e-6
            assert -180 <= rover.heading_deg < 180


@settings(max_examples=30, deadline=None)
@given(st.floats(-900, 900), st.floats(20, 900), st.floats(-900, 900))
def test_a_straight_move_always_arrives_whatever_the_speed_before(distance, speed, before):
    rover = Rover(0, 0, 0, speed_mm_s=before, command=Travel(distance, speed))
    for _ in range(200_000):
        if rover.command == STAND:
            break
        rover = step(rover, Arena(apothem_mm=1e6), 0.01)
    assert rover.x_mm == pytest.approx(distance, abs=0.05)


def test_commands_from_many_threads_leave_a_whole_rover(clock):
    world = world_at(clock)

    def drive(number: int) -> None:
        for i in range(200):
            world.set_velocity(number * 50, i % 60)
            clock.now_s += 0.001
            world.pose()

    threads = [threading.Thread(target=drive, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.stop()
    assert run(clock, world, 2).at_rest


def test_a_world_lives_until_its_last_user_closes_it(clock):
    worlds = Worlds(clock)
    key = ("machine", "arena")
    camera = worlds.open(key)
    assert worlds.open(key) is camera
    assert worlds.open(("other machine", "arena")) is not camera
    worlds.close(key)
    assert worlds.open(key) is camera
    worlds.close(key)
    worlds.close(key)
    assert worlds.open(key) is not camera
    worlds.close(("never", "opened"))
