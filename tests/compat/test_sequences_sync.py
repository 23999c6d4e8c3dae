"""A machine's sequences become the app's, each once, whatever happens to the answers; the SDK finds them there."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sdk_app_world import World, app_world
from viam.proto.app.data import Sequence

from cutting_proxy import Cut, CuttingProxy
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.sequences import SequenceFiles, SequenceKey
from gleaner.machine.sync import process as process_module
from gleaner.machine.sync.process import SyncProcess
from gleaner.machine.sync.settings import SyncSettings

LOG = logging.getLogger("test.sequences")
RUN = SequenceKey(frozenset({("cam", "GetImages"), ("meter", "Readings")}), frozenset({"run"}))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with app_world(tmp_path / "app") as world:
        yield world


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "emit", lambda _text: None)
    monkeypatch.setattr("gleaner.machine.sync.backoff.FIRST_S", 0.02)
    monkeypatch.setattr("gleaner.machine.sync.backoff.LONGEST_S", 0.1)


@asynccontextmanager
async def syncing(root: Path, world: World, port: int) -> AsyncIterator[SyncProcess]:
    secret = await asyncio.to_thread(world.context.fleet.new_secret, world.owner, world.part_id)
    settings = SyncSettings(str(root), world.part_id, secret, f"http://127.0.0.1:{port}")
    store = LedgerStore(root, durable=True)
    process = SyncProcess(settings, store, LOG)
    task = asyncio.create_task(process.run())
    try:
        yield process
    finally:
        task.cancel()
        await asyncio.wait([task])
        process.shut_down()
        store.close()


def captured(root: Path) -> Path:
    """A sequence that the control sensor began and ended; its file."""
    files = SequenceFiles(root, LOG)
    files.follow(frozenset({RUN}))
    files.close()
    return next((root / "sequences").glob("*.seq"))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (the condition is on the disk)
            await asyncio.sleep(0.005)


async def listed(world: World) -> list[Sequence]:
    async with world.client() as client:
        found, _ = await client.data_client.list_sequences(world.organization_id)
        return found


async def test_a_sequence_whose_answer_was_lost_is_sent_again_and_is_one(world: World, tmp_path: Path) -> None:
    root = tmp_path / "capture"
    root.mkdir()
    web_port = int(world.context.addresses.web.rpartition(":")[2])
    with CuttingProxy(web_port) as proxy:
        async with syncing(root, world, proxy.port) as sync:
            first = captured(root)
            sync.handle({"type": "pass"})
            await until(lambda: not first.exists())
            await asyncio.to_thread(proxy.set, Cut.MUTE)
            file = captured(root)
            sync.handle({"type": "pass"})
            content = json.loads(file.read_text())
            await until(lambda: len(world.context.sequences.page(world.owner, world.organization_id).sequences) == 2)
            assert file.exists()  # nobody has said that it is kept
            await asyncio.to_thread(proxy.set, Cut.RST)
            await asyncio.to_thread(proxy.set, Cut.NONE)
            await until(lambda: not file.exists())
    found, _ = await listed(world)  # the newest first
    assert found.part_id == world.part_id
    assert [(one.resource_name, one.method_name) for one in found.resources] == sorted(RUN.resources)
    assert list(found.sequence_tags) == ["run"]
    assert found.start_time.ToDatetime(UTC) == datetime.fromisoformat(content["start_time"])
    assert found.end_time.ToDatetime(UTC) == datetime.fromisoformat(content["end_time"])


async def test_a_damaged_sequence_is_set_aside_with_its_reason_and_blocks_no_other(
    world: World, tmp_path: Path
) -> None:
    good = captured(tmp_path)
    bad = good.with_name("a.seq")
    bad.write_text(good.read_text().replace("start_time", "begin"))
    async with syncing(tmp_path, world, int(world.context.addresses.web.rpartition(":")[2])):
        await until(lambda: not good.exists() and not bad.exists())
    assert len(await listed(world)) == 1
    reason = json.loads((tmp_path / "failed" / "sequences" / "a.seq.reason.json").read_text())
    assert "start_time is None, not a time" in json.dumps(reason)
