"""The data manager and its disk: encrypted captures, and a folder that is removed, moved, replaced or unmounted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from viam.components.sensor import Sensor

from gleaner.machine.capture.at_rest import is_encrypted
from gleaner.machine.capture.errors import BadCaptureKey
from gleaner.machine.capture.manager import DataManager
from gleaner.machine.capture.outside import read_ledger
from gleaner.machine.models.base import BuildContext
from gleaner.machine.models.data_manager import SPEC, DataManagerAttributes
from gleaner.wire.capture_file import CaptureFileError, read_capture
from gleaner.wire.machine_config import parse_config
from stand_in_app import PART, SECRET, running_app

READINGS = "rdk_component_sensor/imu/Readings"


class CountingSensor(Sensor):
    calls = 0

    async def get_readings(self, **_options: Any) -> Mapping[str, Any]:
        self.calls += 1
        return {"n": self.calls}


class Machine:
    def __init__(self, home: Path, cloud: dict[str, Any] | None = None) -> None:
        self.home = home
        self.sensor = CountingSensor("imu")
        capture = {"capture_methods": [{"method": "Readings", "capture_frequency_hz": 50}]}
        services = [{"type": "data_manager", "attributes": capture}]
        self.config = parse_config(
            {
                "components": [
                    {"name": "imu", "api": "rdk:component:sensor", "model": "fake", "service_configs": services}
                ],
                **({"cloud": cloud} if cloud else {}),
            }
        )
        self.cloud = self.config.cloud

    def resource(self, name: str, subtype: str = "") -> Any:
        return self.sensor if name == "imu" else None


async def build(home: Path, cloud: dict[str, Any] | None = None, **attributes: Any) -> DataManager:
    machine = Machine(home, cloud)
    checked = DataManagerAttributes.model_validate(attributes)
    context = BuildContext("builtin", checked, {}, machine, logging.getLogger("test.moved"))  # type: ignore[arg-type]
    manager: DataManager = await SPEC.build(context)  # type: ignore[assignment]
    await manager.resources_changed(machine)  # type: ignore[arg-type]
    return manager


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[DataManager]:
    manager = await build(tmp_path, durability_ms=50)
    yield manager
    await manager.close()


async def until(condition: Callable[[], Any], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (the condition is on the disk or in another thread)
            await asyncio.sleep(0.01)


def row(manager: DataManager) -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in manager.ledger()["collectors"] if r["component"] == "imu")
    return found


def is_captured_anew(root: Path, manager: DataManager) -> bool:
    return (root / ".gleaner" / "ledger.db").exists() and bool(manager.collectors) and row(manager)["waiting"] >= 5


async def test_a_removed_folder_is_made_again_and_its_loss_is_counted(tmp_path: Path, manager: DataManager) -> None:
    root = tmp_path / "capture"
    await until(lambda: row(manager)["waiting"] >= 10)
    captured = row(manager)["captured"]
    root.rename(tmp_path / "away")
    shutil.rmtree(tmp_path / "away")
    await until(lambda: is_captured_anew(root, manager))
    now = row(manager)
    assert now["dropped"]["removed"] >= captured
    assert now["captured"] == now["waiting"] + sum(now["dropped"].values())
    await manager.close()
    at_rest = read_ledger(root)["collectors"][0]
    assert at_rest["captured"] == at_rest["waiting"] + at_rest["dropped"]["removed"]


async def test_a_folder_that_was_moved_keeps_what_is_in_it(tmp_path: Path, manager: DataManager) -> None:
    root, away = tmp_path / "capture", tmp_path / "away"
    await until(lambda: row(manager)["waiting"] >= 10)
    root.rename(away)
    await until(lambda: is_captured_anew(root, manager))
    there = read_ledger(away)["collectors"][0]
    assert there["waiting"] >= 10
    assert there["captured"] - there["waiting"] == sum(there["dropped"].values())
    assert not list(root.rglob("*.reason.json"))


async def test_a_disk_mounted_over_the_folder_is_used_and_given_back(tmp_path: Path, manager: DataManager) -> None:
    root = tmp_path / "capture"
    await until(lambda: row(manager)["waiting"] >= 10)
    done = await asyncio.to_thread(
        subprocess.run, ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("needs the right to mount")
    try:
        await until(lambda: is_captured_anew(root, manager))
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "-l", str(root)], check=True)
    await until(lambda: len(list(root.rglob("*.capture"))) > 0 and row(manager)["waiting"] >= 20)
    now = row(manager)
    assert set(now["dropped"]) <= {"removed"}  # what came in the second before it was noticed has no place to go
    await manager.close()
    at_rest = read_ledger(root)["collectors"][0]
    assert at_rest["waiting"] == at_rest["captured"] - sum(at_rest["dropped"].values())


async def mount(*arguments: str) -> None:
    done = await asyncio.to_thread(subprocess.run, ["mount", *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs the right to mount")


async def unmount(path: Path) -> None:
    await asyncio.to_thread(subprocess.run, ["umount", "-l", str(path)], check=True)


def numbers_in(folder: Path) -> list[int]:
    """Of complete files, and of those that are completed at the next start there."""
    found = []
    for path in [*folder.rglob("*.capture"), *folder.rglob("*.prog")]:
        with contextlib.suppress(OSError, CaptureFileError):  # sent meanwhile, or just begun
            found += numbers(path.read_bytes())
    return found


def numbers(content: bytes) -> list[int]:
    records = read_capture(content).records
    return [int(r.struct.fields["readings"].struct_value.fields["n"].number_value) for r in records]


async def test_a_disk_that_is_unplugged_and_plugged_in_again_keeps_its_captures_and_all_are_sent_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk, root = tmp_path / "disk", tmp_path / "capture"
    disk.mkdir()
    root.mkdir()
    async with running_app() as app:
        app.refuse_with = 503
        await mount("-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk))
        try:
            await mount("--bind", str(disk), str(root))
            cloud = {"id": PART, "secret": SECRET, "web_address": app.address}
            manager = await build(tmp_path, cloud, durability_ms=50, sync_interval_mins=0.005)
            try:
                await until(lambda: row(manager)["waiting"] >= 10)
                await unmount(root)
                await until(lambda: "begins anew" in caplog.text and len(numbers_in(root)) >= 3)
                known = len(numbers_in(disk))
                await mount("--bind", str(disk), str(root))
                await until(lambda: caplog.text.count("begins anew") == 2 and len(numbers_in(disk)) > known)
                app.refuse_with = None
                await until(lambda: row(manager)["synced"] > known)
            finally:
                await manager.close()
                await unmount(root)
            lost = sum(sum(read_ledger(each)["collectors"][0]["dropped"].values()) for each in (disk, root))
            here = numbers_in(disk) + numbers_in(root)  # what was captured in between lies in the folder below
        finally:
            await unmount(disk)
    found = sorted(here + [number for _, content in app.files.values() for number in numbers(content)])
    assert len(set(found)) == len(found)
    assert caplog.text.count("cannot store readings") <= 2, "one line for each change, not for each reading"
    # The last reading and those of both changes may be under way when capture is stopped.
    assert found[-1] - len(found) <= lost + 3, "what is missing is not counted"


async def test_captures_are_encrypted_when_the_configuration_says_so(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(bytes(range(32)).hex())
    key.chmod(0o600)
    manager = await build(tmp_path, encryption={"key_file": str(key)}, durability_ms=0)
    try:
        await until(lambda: row(manager)["waiting"] >= 3)
    finally:
        await manager.close()
    files = list((tmp_path / "capture").rglob("*.capture"))
    assert files
    assert all(is_encrypted(path.read_bytes()) for path in files)
    assert read_ledger(tmp_path / "capture")["collectors"][0]["waiting"] >= 3


async def test_a_key_that_others_may_read_stops_capture_with_words(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(bytes(range(32)).hex())
    key.chmod(0o644)
    with pytest.raises(BadCaptureKey, match="chmod 600"):
        await build(tmp_path, encryption={"key_file": str(key)})


@pytest.mark.parametrize("wrong", [{}, {"key_file": "/a", "key_env": "B"}, {"password": "x"}])
def test_encryption_has_one_source_of_its_key(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        DataManagerAttributes.model_validate({"encryption": wrong})
