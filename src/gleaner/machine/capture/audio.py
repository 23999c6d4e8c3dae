"""GetAudio: one clip per tick, as a file that players open."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from gleaner.machine.capture.errors import BadCaptureParameters
from gleaner.machine.capture.methods import Blob, Call

_PCM, _FLOAT = 1, 3
# codec -> (WAVE format tag, bytes per sample)
_WAVE = {"pcm16": (_PCM, 2), "pcm32": (_PCM, 4), "pcm32_float": (_FLOAT, 4)}
DEFAULT_CODEC = "pcm16"
# The next clip begins on time only if this one has ended before: a twentieth of the interval, a quarter of a second at most.
_PAUSE_SHARE, _LONGEST_PAUSE_S = 0.05, 0.25


def check_get_audio(api: str, params: Mapping[str, Any]) -> None:
    codec = params.get("codec", DEFAULT_CODEC)
    if not isinstance(codec, str) or not codec:
        raise BadCaptureParameters(f"additional_params of GetAudio on {api}: codec must be text like pcm16 or mp3")


async def get_audio(call: Call) -> list[Blob]:
    """A clip almost as long as the interval. Raises ValueError when the microphone gives nothing."""
    codec = call.params.get("codec", DEFAULT_CODEC)
    duration_s = call.interval_s - min(_PAUSE_SHARE * call.interval_s, _LONGEST_PAUSE_S)
    stream = await call.resource.get_audio(codec, duration_s, 0)
    data, rate_hz, channels, received_ns = bytearray(), 0, 0, None
    async for answer in stream:
        chunk = answer.audio
        data += chunk.audio_data
        rate_hz, channels = chunk.audio_info.sample_rate_hz or rate_hz, chunk.audio_info.num_channels or channels
        received_ns = chunk.end_timestamp_nanoseconds or received_ns
    if not data:
        raise ValueError("the microphone returned no sound")
    payload, mime_type, extension = _as_file(bytes(data), codec.lower(), rate_hz, channels)
    return [Blob(payload, mime_type, extension, received_ns=received_ns)]


def _as_file(data: bytes, codec: str, rate_hz: int, channels: int) -> tuple[bytes, str, str]:
    if codec == "mp3":
        return data, "audio/mpeg", ".mp3"
    if codec not in _WAVE:
        return data, "application/octet-stream", ""
    if rate_hz <= 0 or channels <= 0:
        raise ValueError(f"the microphone does not say its sample rate and channels ({rate_hz} Hz, {channels})")
    return _wave_header(len(data), codec, rate_hz, channels) + data, "audio/wav", ".wav"


def _wave_header(size: int, codec: str, rate_hz: int, channels: int) -> bytes:
    """RIFF WAVE (Microsoft, 1991); the standard library writes whole-number samples only."""
    tag, width = _WAVE[codec]
    form = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * channels * width, channels * width, 8 * width)
    return b"".join(
        (
            b"RIFF",
            struct.pack("<I", 36 + size),
            b"WAVE",
            b"fmt ",
            struct.pack("<I", 16),
            form,
            b"data",
            struct.pack("<I", size),
        )
    )
