"""What is captured of sound, maps and places."""

from __future__ import annotations

import io
import math
import struct
import wave
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from viam.components.audio_in import AudioIn
from viam.proto.common import AudioInfo, Pose
from viam.proto.component.audioin import GetAudioResponse
from viam.services.slam import SLAM
from viam.streams import StreamWithIterator

from gleaner.machine.capture.errors import BadCaptureParameters, MethodNotCapturable
from gleaner.machine.capture.methods import Call, find_method
from gleaner.wire.frame_config import orientation_vector_degrees
from gleaner.wire.world_pose import world_pose


class Microphone(AudioIn):
    """Two chunks of silence with one loud sample each."""

    def __init__(self, name: str, rate_hz: int = 8000) -> None:
        super().__init__(name)
        self.rate_hz = rate_hz
        self.asked: list[tuple[str, float]] = []

    async def get_audio(self, codec: str, duration_seconds: float, previous_timestamp_ns: int, **_: Any) -> Any:
        self.asked.append((codec, duration_seconds))
        info = AudioInfo(codec=codec, sample_rate_hz=self.rate_hz, num_channels=1)

        async def chunks() -> Any:
            for number in range(2):
                answer = GetAudioResponse()
                answer.audio.audio_info.CopyFrom(info)
                answer.audio.audio_data = struct.pack("<hhhh", 0, 1000 + number, 0, 0)
                answer.audio.end_timestamp_nanoseconds = 500 + number
                yield answer

        return StreamWithIterator(chunks())

    async def get_properties(self, **_: Any) -> Any:
        raise NotImplementedError


class Mapper(SLAM):
    async def get_internal_state(self, **_: Any) -> list[bytes]:
        return []

    async def get_point_cloud_map(self, return_edited_map: bool = False, **_: Any) -> list[bytes]:
        return [b"# .PCD", b" v.7\n"]

    async def get_position(self, **_: Any) -> Pose:
        return Pose(x=1, y=2, z=0, o_x=0, o_y=0, o_z=1, theta=90)

    async def get_properties(self, **_: Any) -> Any:
        raise NotImplementedError


async def read(api: str, method: str, resource: Any, frames: dict[str, Any] | None = None, **params: Any) -> Any:
    row = find_method(api, method)
    row.check(api, params)
    return await row.read(Call(resource, params, 10.0, lambda: frames or {}, getattr(resource, "name", "")))


async def test_a_clip_is_a_wave_file_a_little_shorter_than_the_interval() -> None:
    microphone = Microphone("mic")
    [clip] = await read("rdk:component:audio_in", "GetAudio", microphone)
    assert microphone.asked == [("pcm16", 9.75)]
    assert (clip.mime_type, clip.extension, clip.received_ns) == ("audio/wav", ".wav", 501)
    with wave.open(io.BytesIO(clip.payload)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (8000, 1, 2)
        assert struct.unpack("<8h", sound.readframes(8))[5] == 1001


@pytest.mark.parametrize(
    ("codec", "mime_type", "extension", "tag"),
    [
        ("pcm32", "audio/wav", ".wav", 1),
        ("pcm32_float", "audio/wav", ".wav", 3),
        ("mp3", "audio/mpeg", ".mp3", None),
        ("opus", "application/octet-stream", "", None),
    ],
)
async def test_the_codec_says_what_kind_of_file_it_is(
    codec: str, mime_type: str, extension: str, tag: int | None
) -> None:
    [clip] = await read("rdk:component:audio_in", "GetAudio", Microphone("mic"), codec=codec)
    assert (clip.mime_type, clip.extension) == (mime_type, extension)
    if tag is not None:
        assert struct.unpack_from("<H", clip.payload, 20) == (tag,)
        assert len(clip.payload) == 44 + 16


async def test_a_microphone_that_says_too_little_is_an_error() -> None:
    with pytest.raises(ValueError, match="sample rate"):
        await read("rdk:component:audio_in", "GetAudio", Microphone("mic", rate_hz=0))
    with pytest.raises(BadCaptureParameters, match="codec"):
        await read("rdk:component:audio_in", "GetAudio", Microphone("mic"), codec=3)


async def test_a_map_and_a_position_come_from_slam() -> None:
    [cloud] = await read("rdk:service:slam", "PointCloudMap", Mapper("slam"))
    assert (cloud.payload, cloud.mime_type, cloud.extension) == (b"# .PCD v.7\n", "pointcloud/pcd", ".pcd")
    position = await read("rdk:service:slam", "Position", Mapper("slam"))
    assert position == {"pose": {"x": 1.0, "y": 2.0, "z": 0.0, "o_x": 0.0, "o_y": 0.0, "o_z": 1.0, "theta": 90.0}}


FRAMES = {
    "base": {
        "parent": "world",
        "translation": {"x": 100, "y": 0, "z": 0},
        "orientation": {"type": "ov_degrees", "value": {"x": 0, "y": 0, "z": 1, "th": 90}},
    },
    "cam": {
        "parent": "base",
        "translation": {"x": 10, "y": 0, "z": 50},
        "orientation": {"type": "ov_degrees", "value": {"x": 1, "y": 0, "z": 0, "th": 0}},
    },
    "loose": None,
    "a": {"parent": "b"},
    "b": {"parent": "a"},
    "broken": {"parent": "world", "orientation": {"type": "sideways", "value": {}}},
    "lost": {"parent": "nobody"},
}


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


async def test_the_pose_in_the_world_follows_the_parents() -> None:
    answer = await read("rdk:component:camera", "GetWorldPose", Named("cam"), FRAMES)
    pose = answer["pose"]
    # The base stands 100 mm along x and is turned left: the camera's 10 mm ahead is along the world's y, and so it looks.
    assert [pose[axis] for axis in ("x", "y", "z")] == pytest.approx([100, 10, 50])
    assert [pose[axis] for axis in ("o_x", "o_y", "o_z")] == pytest.approx([0, 1, 0], abs=1e-9)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("loose", "no component with a frame"),
        ("a", "circle"),
        ("broken", "'broken' cannot be used"),
        ("lost", "'nobody'"),
    ],
)
def test_a_frame_that_cannot_be_followed_says_whose(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        world_pose(FRAMES, name)


def test_services_have_no_place() -> None:
    with pytest.raises(MethodNotCapturable):
        find_method("rdk:service:vision", "GetWorldPose")


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1), st.floats(-180, 180))
@example(0.0, 1.192092896e-07, 0.0625, 0.0)
def test_one_frame_in_the_world_keeps_its_orientation(x: float, y: float, z: float, theta: float) -> None:
    if math.hypot(x, y, z) < 1e-3:
        return
    orientation = {"type": "ov_degrees", "value": {"x": x, "y": y, "z": z, "th": theta}}
    pose = world_pose({"one": {"parent": "world", "orientation": orientation}}, "one")
    o_x, o_y, o_z, _ = orientation_vector_degrees(orientation)
    # Next to the pole the direction of what is left of x and y is lost in rounding, not its length.
    assert (pose.o_x, pose.o_y, pose.o_z) == pytest.approx((o_x, o_y, o_z), abs=1e-4)
    if math.hypot(o_x, o_y) > 1e-3:
        turned = (pose.theta - theta + 180) % 360 - 180
        assert turned == pytest.approx(0, abs=1e-4)
