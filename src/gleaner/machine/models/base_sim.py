"""`gleaner:base:sim`: the rover of the simulated arena."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from grpclib import Status
from pydantic import Field
from viam.components.base import Base, Vector3
from viam.errors import ViamGRPCError
from viam.proto.common import Geometry

from gleaner.machine.models.base import Attributes, BuildContext, ModelSpec

if TYPE_CHECKING:
    from gleaner.sim.world import World

T = TypeVar("T")

POLL_S = 0.02
"""How often a blocking move looks whether it has ended; two physics steps."""


class SimBaseAttributes(Attributes):
    world: str = Field(
        default="arena",
        min_length=1,
        title="World",
        description="Name of the arena; a camera with the same name rides on this base.",
    )


class SimBase(Base):
    """Moves the rover of a world. A new command replaces the one under way, as on a real base."""

    def __init__(
        self,
        name: str,
        world: World,
        on_close: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(name)
        self.world = world
        self._on_close = on_close
        self._sleep = sleep
        self._closed = False

    async def move_straight(
        self,
        distance: int,
        velocity: float,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> None:
        await self._finish(_checked(lambda: self.world.begin_straight(float(distance), velocity)))

    async def spin(
        self,
        angle: float,
        velocity: float,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> None:
        await self._finish(_checked(lambda: self.world.begin_turn(angle, velocity)))

    async def set_power(
        self,
        linear: Vector3,
        angular: Vector3,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> None:
        _checked(lambda: self.world.set_power(linear.y, angular.z))

    async def set_velocity(
        self,
        linear: Vector3,
        angular: Vector3,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> None:
        _checked(lambda: self.world.set_velocity(linear.y, angular.z))

    async def stop(self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None, **_: Any) -> None:
        self.world.stop()

    async def is_moving(self) -> bool:
        return not self.world.rover().at_rest

    async def get_properties(self, *, timeout: float | None = None, **_: Any) -> Base.Properties:
        from gleaner.sim.drive import TRACK_WIDTH_MM, WHEEL_CIRCUMFERENCE_MM

        return Base.Properties(TRACK_WIDTH_MM / 1000, 0.0, WHEEL_CIRCUMFERENCE_MM / 1000)

    async def get_geometries(
        self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Sequence[Geometry]:
        return []

    async def get_status(self, *, timeout: float | None = None, **_: Any) -> Mapping[str, Any]:
        rover = self.world.rover()
        return {
            "x_mm": rover.x_mm,
            "y_mm": rover.y_mm,
            "heading_deg": rover.heading_deg,
            "speed_mm_s": rover.speed_mm_s,
            "turn_deg_s": rover.turn_deg_s,
            "is_moving": not rover.at_rest,
            "touching_wall": rover.touching,
        }

    async def do_command(
        self, command: Mapping[str, Any], *, timeout: float | None = None, **_: Any
    ) -> Mapping[str, Any]:
        """`{"get_pose": {}}` tells where the rover stands; `{"place": {"x_mm", "y_mm", "heading_deg"}}` lifts it to another place first."""
        if "place" in command:
            target = command["place"]
            try:
                self.world.place(float(target["x_mm"]), float(target["y_mm"]), float(target.get("heading_deg", 0.0)))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ViamGRPCError(
                    f'place needs numbers x_mm and y_mm, e.g. {{"place": {{"x_mm": 0, "y_mm": 0, "heading_deg": 90}}}}: {error}',
                    Status.INVALID_ARGUMENT,
                ) from error
        elif "get_pose" not in command:
            raise ViamGRPCError(
                f"base {self.name} knows the commands get_pose and place, got {', '.join(command) or 'none'}",
                Status.INVALID_ARGUMENT,
            )
        return await self.get_status()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.world.stop()
            self._on_close()

    async def _finish(self, order: int) -> None:
        try:
            while not self.world.is_done(order):
                await self._sleep(POLL_S)
        except asyncio.CancelledError:
            if not self.world.is_done(order):
                self.world.stop()
            raise


def _checked(give: Callable[[], T]) -> T:
    try:
        return give()
    except ValueError as error:
        raise ViamGRPCError(str(error), Status.INVALID_ARGUMENT) from error


async def build(context: BuildContext) -> SimBase:
    from gleaner.sim.world import WORLDS

    key = (str(context.host.home), context.attributes.world)
    return SimBase(context.name, WORLDS.open(key), on_close=lambda: WORLDS.close(key))


SPEC = ModelSpec(
    api="rdk:component:base",
    model="gleaner:base:sim",
    aliases=("gleaner:builtin:sim", "rdk:builtin:sim"),
    title="Simulated rover",
    description="A two-wheeled base in the simulated arena. Drive it with WASD on the CONTROL page.",
    attributes=SimBaseAttributes,
    build=build,
    icon="base",
)
