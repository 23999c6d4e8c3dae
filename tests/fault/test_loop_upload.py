"""Files of the machine's computer through viam-sdk's `upload_data_from_path`, beside capture, app and all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fault_loop import Loop, wait_for
from grpclib import GRPCError, Status
from grpclib.client import Channel
from viam.proto.app.datasync import UploadMetadata
from viam.robot.client import RobotClient


@asynccontextmanager
async def robot(loop: Loop) -> AsyncIterator[RobotClient]:
    """By the machine's private socket, as the app comes in."""
    channel = Channel(path=str(loop.folder / "rover" / "machine.sock"))
    client = await RobotClient.with_channel(
        channel, RobotClient.Options(refresh_interval=0, check_connection_interval=0)
    )
    try:
        yield client
    finally:
        await client.close()
        channel.close()


@pytest.mark.slow
async def test_files_of_a_folder_arrive_with_their_metadata_and_are_deleted(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    web, grpc, machine = free_ports(3)
    loop = Loop(tmp_path, (web, grpc, machine))
    folder = tmp_path / "notes" / "tag=night"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"hello")
    (folder / "b.bin").write_bytes(bytes(3_000_000))
    (folder / "own.capture").write_bytes(b"left to the data manager")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "link.txt").symlink_to("a.txt")
    loop.app.start()
    try:
        loop.log_in()
        loop.set_up()
        loop.machine.start()
        wait_for(loop.items, 60, lambda: "no first picture: " + loop.machine.log.read_text()[-2000:])
        async with robot(loop) as client:
            answer = await client.upload_data_from_path(
                str(tmp_path / "notes"), upload_metadata=UploadMetadata(component_name="keeper", tags=["diary"])
            )
            assert (answer.files_uploaded, answer.files_failed) == (2, 0)
            assert answer.bytes_uploaded == answer.bytes_total == 3_000_005
            assert len(set(answer.ids)) == 2
            assert sorted(p.name for p in folder.iterdir()) == ["empty.txt", "link.txt", "own.capture"]
            with pytest.raises(GRPCError) as caught:
                await client.upload_data_from_path(str(tmp_path / "nothing"))
            assert caught.value.status is Status.NOT_FOUND

            (folder / "c.txt").write_bytes(b"kept")
            loop.app.stop()
            answer = await client.upload_data_from_path(str(folder / "c.txt"))
            assert (answer.files_uploaded, answer.files_failed, answer.bytes_total) == (0, 1, 4)
            assert (folder / "c.txt").exists()
        loop.app.start()
        wait_for(lambda: loop.app.log.read_text().count("Log in once") >= 2, 60, lambda: "the app did not come back")
        rows = loop.client.get_bytes(f"/items/index?part_id={loop.part_id}&component_name=keeper&tag=diary")
        items = loop.client.post(
            "/items/lookup", {"rows": [int.from_bytes(rows[i : i + 4], "little") for i in range(0, len(rows), 4)]}
        )["items"]
        assert {(item["file_name"], item["size_bytes"]) for item in items} == {("a.txt", 5), ("b.bin", 3_000_000)}
        assert all(sorted(item["tags"]) == ["diary", "night"] for item in items)
    finally:
        loop.machine.stop()
        loop.app.stop()
