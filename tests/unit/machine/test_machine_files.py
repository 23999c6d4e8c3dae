"""The machine's folder and its configuration file."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest
from machine_fakes import until

from gleaner.machine.config_file import read_config_file, watch_config_file
from gleaner.machine.home import HomeInUse, MachineHome, write_private
from gleaner.wire.machine_config import ConfigProblem, MachineConfig


def test_one_machine_per_folder(tmp_path: Path) -> None:
    with MachineHome(tmp_path / "home") as home:
        assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
        with pytest.raises(HomeInUse, match=rf"process {os.getpid()}\) already runs"), MachineHome(home.path):
            pass
    with MachineHome(tmp_path / "home"):
        pass


def test_the_token_key_is_made_once_and_private(tmp_path: Path) -> None:
    with MachineHome(tmp_path) as home:
        key = home.token_key()
        assert len(key) == 32
        assert home.token_key() == key
        assert stat.S_IMODE((tmp_path / "token.key").stat().st_mode) == 0o600


def test_a_long_folder_gets_a_short_private_socket(tmp_path: Path) -> None:
    with MachineHome(tmp_path / ("long" * 30)) as home:
        path = home.prepare_socket()
        assert len(str(path)) < 100
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        path.parent.chmod(0o755)
        with pytest.raises(PermissionError, match="must belong to this user alone"):
            home.prepare_socket()
        path.parent.rmdir()


def test_an_old_socket_is_removed(tmp_path: Path) -> None:
    with MachineHome(tmp_path / "h") as home:
        (home.path / "machine.sock").touch()
        assert not home.prepare_socket().exists()


def test_private_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_private(path, b"one")
    write_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the file does not exist"),
        (b"\xff\xfe", "cannot be read"),
        (b'{\n  "components": [}', "line 2, column 18"),
        (b"[]", "cannot be used"),
        (
            b'{"components": [{"name": "1 2", "api": "rdk:component:base"}]}',
            r"components\[0\].name: a name starts with",
        ),
        (b'{"components": [{"name": "a", "api": "base"}]}', r"components\[0\].api: expected three words"),
        (b'{"cloud": {}}', "cloud.id"),
    ],
)
def test_a_file_that_cannot_be_used_is_explained(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "machine.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigProblem, match=message) as problem:
        read_config_file(path)
    assert str(path) in str(problem.value)


def test_the_environment_is_put_in_before_parsing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_WIDTH", "640")
    path = tmp_path / "machine.json"
    path.write_text(
        '{"components":[{"name":"a","api":"rdk:component:camera","attributes":{"w":${CAMERA_WIDTH},"p":"${packages.x}"}}]}'
    )
    assert read_config_file(path).components[0].attributes == {"w": 640, "p": "${packages.x}"}


async def test_edits_are_followed_and_bad_ones_only_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "machine.json"
    path.write_text(json.dumps({"revision": "1"}))
    seen: list[MachineConfig] = []

    async def follow() -> None:
        async for config in watch_config_file(path, read_config_file(path)):
            seen.append(config)

    task = asyncio.create_task(follow())

    async def edit(text: str, check: object) -> None:
        async def keep_writing() -> None:
            while True:  # the watch may not have started when the first edit is made
                temporary = tmp_path / ".swap"
                temporary.write_text(text)
                temporary.replace(path)  # as editors do
                await asyncio.sleep(0.2)

        writer = asyncio.create_task(keep_writing())
        await until(check)  # type: ignore[arg-type]
        writer.cancel()
        await asyncio.wait([writer])

    await edit('{"revision": ', lambda: "this is not JSON; the running configuration stays" in caplog.text)
    assert seen == []
    await edit('{"revision": "2"}', lambda: seen)
    assert [config.revision for config in seen] == ["2"]
    assert caplog.text.count("the running configuration stays") == 1
    task.cancel()
    await asyncio.wait([task])
