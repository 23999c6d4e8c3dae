"""Drivers that raise, hang, and return garbage or huge answers, beside what they say well: only the garbage is missing.

The data manager runs in this process, its drivers are the test's; sync and the app are real processes.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fault_loop import Loop
from viam.components.camera import Camera
from viam.components.sensor import Sensor
from viam.errors import NoCaptureToStoreError
from viam.media.video import CameraMimeType, NamedImage
from viam.proto.common import ResponseMetadata

from gleaner.machine.capture.manager import DataManager
from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.models.base import BuildContext
from gleaner.machine.models.data_manager import SPEC, DataManagerAttributes
from gleaner.wire.machine_config import parse_config

ROUNDS = 2


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


CIRCLE: dict[str, Any] = {}
CIRCLE["me"] = CIRCLE
NO_READINGS: list[Any] = [
    None,
    [],
    "text",
    object(),
    {"v": object()},
    {"v": {1, 2}},
    {1: "v"},
    {None: "v"},
    {"v": "\ud800"},
    {"\ud800": 1},
    {"v": 10**400},
    {"v": 1j},
    {"v": nested(60)},
    {"v": nested(4000)},
    CIRCLE,
    {"v": "x" * 5_000_000},
    {"v": [0.5] * 600_000},
    RuntimeError("the bus is gone"),
    RuntimeError(),
    NoCaptureToStoreError(),
    TimeoutError(),
    RecursionError("too deep"),
    MemoryError(),
    asyncio.CancelledError(),
]


def times(seconds: int) -> ResponseMetadata:
    metadata = ResponseMetadata()
    metadata.captured_at.seconds = seconds
    return metadata


def picture(content: bytes, mime_type: str = "image/jpeg") -> NamedImage:
    return NamedImage("", content, CameraMimeType.CUSTOM(mime_type))


NO_PICTURES: list[Any] = [
    None,
    (None, None),
    ([None], ResponseMetadata()),
    ([picture(b"")], ResponseMetadata()),
    ([picture(b"x", "\ud800")], ResponseMetadata()),
    ([picture(b"x")], None),
    ([picture(b"x")], times(-5)),
    OSError("no such device"),
]
ODD_PICTURES: list[Any] = [
    ([picture(b"not a picture")], ResponseMetadata()),
    ([picture(b"\xff\xd8" + b"cut")], ResponseMetadata()),
    ([picture(b"y", "")], ResponseMetadata()),
    ([picture(b"z", "a/b/c; d\n\0é" * 50)], ResponseMetadata()),
    ([picture(bytes(20_000_000))], ResponseMetadata()),
    ([picture(b"of the year 9999")], times(253_402_300_000)),
]


class Drivers:
    """Answers in turn with garbage and with a number that counts up."""

    def __init__(self, garbage: list[Any]) -> None:
        self.good = 0
        self.rounds = 0
        self._answers = self._all(garbage)

    def _all(self, garbage: list[Any]) -> Any:
        while True:
            for each in garbage:
                yield each
                self.good += 1
                yield self.good
            self.rounds += 1

    def next(self) -> Any:
        answer = next(self._answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class BadSensor(Sensor):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.drivers = Drivers(NO_READINGS)

    async def get_readings(self, **_options: Any) -> Mapping[str, Any]:
        answer = self.drivers.next()
        return {"n": answer} if isinstance(answer, int) else answer  # type: ignore[no-any-return]


class HangingSensor(Sensor):
    async def get_readings(self, **_options: Any) -> Mapping[str, Any]:
        await asyncio.Event().wait()
        return {}


class BadCamera(Camera):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.drivers = Drivers([*NO_PICTURES, *ODD_PICTURES])

    async def get_images(self, **_options: Any) -> Any:
        answer = self.drivers.next()
        return ([picture(b"\xff\xd8%d" % answer)], ResponseMetadata()) if isinstance(answer, int) else answer

    async def get_point_cloud(self, **_options: Any) -> Any:
        raise NotImplementedError

    async def get_properties(self, **_options: Any) -> Any:
        raise NotImplementedError


class Host:
    def __init__(self, home: Path, cloud: dict[str, Any]) -> None:
        self.home = home
        self.resources = {"bad": BadSensor("bad"), "hangs": HangingSensor("hangs"), "cam": BadCamera("cam")}
        methods = {"bad": ("sensor", "Readings"), "hangs": ("sensor", "Readings"), "cam": ("camera", "GetImages")}

        def component(name: str, kind: str, method: str) -> dict[str, Any]:
            wanted = {"capture_methods": [{"method": method, "capture_frequency_hz": 25}]}
            services = [{"type": "data_manager", "attributes": wanted}]
            return {"name": name, "api": f"rdk:component:{kind}", "model": "fake", "service_configs": services}

        components = [component(name, *what) for name, what in methods.items()]
        self.config = parse_config({"components": components, "cloud": cloud})
        self.cloud = self.config.cloud

    def resource(self, name: str, subtype: str = "") -> Any:
        return self.resources.get(name)


@asynccontextmanager
async def data_manager(host: Host) -> AsyncIterator[DataManager]:
    attributes = DataManagerAttributes.model_validate({"sync_interval_mins": 0.01})
    context = BuildContext("builtin", attributes, {}, host, logging.getLogger("test.garbage"))  # type: ignore[arg-type]
    manager: DataManager = await SPEC.build(context)  # type: ignore[assignment]
    try:
        await manager.resources_changed(host)  # type: ignore[arg-type]
        yield manager
    finally:
        await manager.close()


async def until(condition: Callable[[], Any], words: Callable[[], str], timeout_s: float = 60) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, words()
        await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_only_the_garbage_of_bad_drivers_is_missing(
    tmp_path: Path, free_ports: Callable[[int], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    web, grpc, machine = free_ports(3)
    loop = Loop(tmp_path, (web, grpc, machine))
    await asyncio.to_thread(loop.app.start)
    try:
        await asyncio.to_thread(loop.log_in)
        await asyncio.to_thread(loop.set_up)
        host = Host(tmp_path / "rover", json.loads(loop.setup_file.read_text())["cloud"])
        sensor, camera = host.resources["bad"].drivers, host.resources["cam"].drivers
        async with data_manager(host) as manager:
            await until(lambda: min(sensor.rounds, camera.rounds) >= ROUNDS, lambda: str(manager.ledger()))
            rows = {row["component"]: row for row in manager.ledger()["collectors"]}
            assert rows["bad"]["vetoed"] >= ROUNDS
            for collector in list(manager.collectors.values()):
                await collector.stop()
            good = sensor.good, camera.good
            await until(
                lambda: not any(row["waiting"] for row in manager.ledger()["collectors"]),
                lambda: str(manager.ledger()),
            )
        rows = {row["component"]: row for row in read_ledger(loop.capture_dir)["collectors"]}
        assert not rows["bad"]["dropped"]
        assert not rows["cam"]["dropped"]
        assert not (loop.capture_dir / "failed").exists()
        query = f"/readings?part_id={loop.part_id}&component_name=bad&method=Readings&limit=10000"
        found = [row["readings"]["n"] for row in (await asyncio.to_thread(loop.client.get, query))["rows"]]
        assert sorted(found) == list(range(1, len(found) + 1))
        assert rows["bad"]["synced"] == len(found) >= good[0] - 1  # the last may have come as the collector stopped
        moments = await asyncio.to_thread(loop.picture_times)
        assert len(moments) >= good[1] - 1
    finally:
        await asyncio.to_thread(loop.app.stop)
