"""The link: calls reach a machine that only dials out; pictures and driving go through it."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import pytest_asyncio
import websockets
from live_machine import Live, running

from gleaner.app.errors import Unavailable
from gleaner.app.live.robot import MachineCallFailed, Robot


@pytest_asyncio.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with running(tmp_path) as live:
        pixels = np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        live.rover.picture = bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
        yield live


async def frame(page: websockets.ClientConnection) -> tuple[dict[str, Any], bytes]:
    message = await asyncio.wait_for(page.recv(), 10)
    assert isinstance(message, bytes), message
    (length,) = struct.unpack_from("<I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


async def said(page: websockets.ClientConnection, key: str) -> dict[str, Any]:
    while True:
        message = await asyncio.wait_for(page.recv(), 10)
        if isinstance(message, str) and key in json.loads(message):
            found: dict[str, Any] = json.loads(message)[key]
            return found


async def test_a_call_goes_through_the_link_and_back(live: Live) -> None:
    live.rover.picture = bytes(3_000_000)  # many link frames, beyond any window's first fill
    async with live.link():
        robot = Robot(live.context.links.channel(live.part_id))
        pictures = await asyncio.gather(*(robot.image("cam") for _ in range(4)))
    assert {one.data for one in pictures} == {live.rover.picture}


async def test_without_a_link_the_machine_is_offline(live: Live) -> None:
    with pytest.raises(Unavailable, match="offline"):
        live.context.links.channel(live.part_id)
    async with live.link():
        robot = Robot(live.context.links.channel(live.part_id))
        await robot.image("cam")
    await live.seen(lambda: not live.context.fleet.presence.now(live.part_id).is_linked)
    with pytest.raises(Unavailable, match="offline"):
        await robot.image("cam")


async def test_the_machines_own_error_is_shown(live: Live) -> None:
    live.rover.failing.add("cam")
    async with live.link():
        with pytest.raises(MachineCallFailed, match=r"^the camera cam: no such device$"):
            await Robot(live.context.links.channel(live.part_id)).image("cam")


async def test_a_newer_link_takes_over(live: Live) -> None:
    async with live.link() as old, live.link():
        await asyncio.wait_for(old.socket.wait_closed(), 10)
        assert old.socket.close_code == 4409
        await Robot(live.context.links.channel(live.part_id)).image("cam")


async def test_a_link_needs_the_parts_secret(live: Live) -> None:
    url = live.web.replace("http", "ws") + "/api/link"
    for headers in ({}, {"part_id": live.part_id, "secret": "wrong"}, {"Cookie": f"gleaner_session={live.cookie}"}):
        with pytest.raises(websockets.InvalidStatus) as told:
            async with websockets.connect(url, additional_headers=headers):
                pass
        assert told.value.response.status_code == 403


async def test_a_saved_configuration_is_announced(live: Live) -> None:
    async with live.link() as far:
        owner = live.context.auth.first_owner()
        put = live.context.fleet.put_config
        revision = await asyncio.to_thread(put, owner, live.part_id, {"components": []}, None)
        notice = await asyncio.wait_for(far.notices.get(), 10)
    assert notice == {"type": "config_changed", "revision": revision}


async def test_frames_come_as_fast_as_they_are_asked_for_and_no_faster(live: Live) -> None:
    async with live.link(), live.page() as page:
        await page.send(json.dumps({"watch": {"camera": "cam"}}))
        first, picture = await frame(page)
        await frame(page)
        assert (first["width"], first["height"], picture) == (64, 48, live.rover.picture)
        fetched = live.rover.fetched
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(page.recv(), 0.3)
        assert live.rover.fetched == fetched, "nobody wants more, so nothing is fetched"
        await page.send(json.dumps({"credit": 3}))
        later = [(await frame(page))[0]["seq"] for _ in range(3)]
    assert later == sorted(set(later))
    assert later[0] > first["seq"]


async def test_what_a_model_sees_comes_with_its_frame(live: Live) -> None:
    async with live.link(), live.page() as page:
        await page.send(json.dumps({"watch": {"camera": "cam", "vision": "eye"}}))
        header, _ = await frame(page)
    assert header["classifications"] == [{"label": "red", "confidence": 0.7}]
    [box] = header["detections"]
    assert (box["label"], box["track"]) == ("star", 2)
    assert (box["x_max"], round(box["y_max"], 3)) == (0.5, 0.333), "pixels become shares of the picture"
    assert (header["inference_ms"], header["captured_at"]) == (1.5, "2026-01-02T03:04:05.000000Z")


async def test_a_failing_model_does_not_take_the_picture_away(live: Live) -> None:
    live.rover.failing.add("eye")
    async with live.link(), live.page() as page:
        await page.send(json.dumps({"watch": {"camera": "cam", "vision": "eye"}}))
        error = await said(page, "error")
        header, picture = await frame(page)
    assert "eye" in error["message"]
    assert picture == live.rover.picture
    assert header["detections"] == []


async def test_viewers_of_one_camera_share_its_frames(live: Live) -> None:
    async with live.link(), live.page() as one, live.page() as other:
        for page in (one, other):
            await page.send(json.dumps({"watch": {"camera": "cam"}}))
        for _ in range(30):
            for page in (one, other):
                await frame(page)
                await page.send(json.dumps({"credit": 1}))
        assert live.rover.fetched < 50, "thirty frames each, not thirty fetches each"


async def test_the_page_hears_of_a_missing_machine_and_sees_it_come_back(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gleaner.app.live.frames.RETRY_S", 0.02)
    async with live.page() as page:
        await page.send(json.dumps({"watch": {"camera": "cam"}}))
        assert (await said(page, "error"))["message"] == "the machine is offline"
        async with live.link():
            await frame(page)


async def test_driving_stops_on_silence_and_keeps_a_session(live: Live) -> None:
    rover = live.rover
    async with live.link(), live.page() as page:
        await page.send(json.dumps({"drive": {"base": "base", "linear": 0.5, "angular": -3}}))
        assert await said(page, "driving") == {"base": "base", "linear": 0.5, "angular": -1.0}
        await rover.until(lambda: rover.heartbeats >= 2)
        await rover.until(lambda: rover.stops)
        assert await said(page, "driving") == {"base": "base", "linear": 0.0, "angular": 0.0}
    assert rover.moves == [(0.5, -1.0, "s1")]


async def test_a_page_that_goes_away_stops_the_base_at_once(live: Live) -> None:
    rover = live.rover
    async with live.link():
        async with live.page() as page:
            await page.send(json.dumps({"drive": {"base": "base", "linear": 1, "angular": 0}}))
            await said(page, "driving")
            stopped = len(rover.stops)
        await rover.until(lambda: len(rover.stops) > stopped)


async def test_nonsense_is_answered_and_the_view_goes_on(live: Live) -> None:
    async with live.link(), live.page() as page:
        for nonsense in ("{", "[]", '{"watch": 5}', '{"drive": {"base": "base", "linear": "fast", "angular": 0}}'):
            await page.send(nonsense)
        assert "cannot be understood" in (await said(page, "error"))["message"]
        await page.send(json.dumps({"watch": {"camera": "cam"}}))
        while isinstance(await asyncio.wait_for(page.recv(), 10), str):
            pass


async def test_pictures_over_http(live: Live) -> None:
    url = f"{live.web}/api/parts/{live.part_id}/cameras/cam"
    async with httpx.AsyncClient(cookies={"gleaner_session": live.cookie}) as web:
        assert (await web.get(f"{url}/image.jpg")).status_code == 503
        async with live.link():
            answer = await web.get(f"{url}/image.jpg")
            assert (answer.headers["content-type"], answer.content) == ("image/jpeg", live.rover.picture)
            async with web.stream("GET", f"{url}/stream.mjpeg") as stream:
                assert "boundary=" in stream.headers["content-type"]
                async for piece in stream.aiter_bytes():
                    assert piece.startswith(b"--gleanerframe")
                    break
            assert (await web.get(f"{live.web}/api/parts/{live.part_id}/cameras/roof/image.jpg")).status_code == 502


async def test_nobody_watches_without_login(live: Live) -> None:
    url = f"{live.web.replace('http', 'ws')}/api/parts/{live.part_id}/live"
    with pytest.raises(websockets.InvalidStatus):
        async with websockets.connect(url):
            pass
    async with httpx.AsyncClient() as web:
        assert (await web.get(f"{live.web}/api/parts/{live.part_id}/cameras/cam/image.jpg")).status_code == 401
