"""`gleaner:camera:sim`: what the rover sees in the simulated arena."""

from __future__ import annotations

import time

from pydantic import Field
from viam.proto.component.camera import IntrinsicParameters

from gleaner.machine.models.base import Attributes, BuildContext, ModelSpec
from gleaner.machine.models.frame_camera import CAMERA_CAPTURE, FrameCamera, frame_rate_field, quality_field
from gleaner.machine.models.frames import OnDemandSource
from gleaner.machine.models.pictures import Picture, jpeg_picture


class SimCameraAttributes(Attributes):
    world: str = Field(
        default="arena",
        min_length=1,
        title="World",
        description="Name of the arena; a base with the same name drives this camera.",
    )
    seed: int = Field(
        default=7,
        ge=0,
        le=2**31 - 1,
        title="Seed",
        description="Another seed gives other posters, stains and noise; the signs stay.",
    )
    width_px: int = Field(
        default=640, ge=64, le=1920, title="Width", description="Of the pictures.", json_schema_extra={"unit": "px"}
    )
    height_px: int = Field(
        default=480, ge=64, le=1080, title="Height", description="Of the pictures.", json_schema_extra={"unit": "px"}
    )
    frame_rate: float = frame_rate_field(30.0, "Most pictures rendered per second; none are while nobody looks.")
    quality: int = quality_field()


async def build(context: BuildContext) -> FrameCamera:
    from gleaner.sim.geometry import Lens
    from gleaner.sim.render import Renderer
    from gleaner.sim.scene import scene_for
    from gleaner.sim.trace import tracer
    from gleaner.sim.world import WORLDS

    attributes: SimCameraAttributes = context.attributes
    lens = Lens(attributes.width_px, attributes.height_px)
    key = (str(context.host.home), attributes.world)
    world = WORLDS.open(key)
    made: list[Renderer] = []
    trace = tracer()

    def renderer() -> Renderer:
        if not made:  # drawing the arena takes a second or two: in the camera's thread, never on the event loop
            made.append(Renderer(scene_for(attributes.seed), lens))
        return made[0]

    def make() -> Picture:
        draw = renderer()
        captured_at_ns, pose = time.time_ns(), world.pose()
        trace(captured_at_ns, pose)
        return jpeg_picture(draw.render(pose, world.time_s), attributes.quality, captured_at_ns)

    source = OnDemandSource(context.name, make, attributes.frame_rate)
    intrinsics = IntrinsicParameters(
        width_px=lens.width_px, height_px=lens.height_px, focal_x_px=lens.focal_px, focal_y_px=lens.focal_px,
        center_x_px=lens.center_px[0], center_y_px=lens.center_px[1],
    )  # fmt: skip
    camera = FrameCamera(
        context.name,
        source,
        frame_rate=attributes.frame_rate,
        intrinsics=intrinsics,
        on_close=lambda: WORLDS.close(key),
    )
    source.warm_up(renderer)
    return camera


SPEC = ModelSpec(
    api="rdk:component:camera",
    model="gleaner:camera:sim",
    aliases=("gleaner:builtin:sim", "rdk:builtin:sim"),
    title="Simulated camera",
    description="Drives around an arena with coloured signs on its walls. Needs no hardware.",
    attributes=SimCameraAttributes,
    build=build,
    icon="camera",
    capture=CAMERA_CAPTURE,
)
