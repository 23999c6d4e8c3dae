"""Files that cannot be sent, in the middle of those that can; and what others do to the folder meanwhile."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sync_support import PICTURES, captures, ledger_row, picture_bytes, put, put_pictures, put_readings, syncing, until

from gleaner.machine.capture.directory import CaptureDirectory
from gleaner.machine.capture.errors import CaptureDirectoryBusy
from gleaner.wire.sync_frames import Entry, Result, Status
from stand_in_app import StandInApp

pytestmark = pytest.mark.usefixtures("said", "hurry")


async def test_many_poison_files_never_block_the_others(tmp_path: Path, app: StandInApp) -> None:
    """More of them than any window holds, in every part of every batch, small ones and big ones."""
    paths = put_pictures(tmp_path, 400)
    big = [put(tmp_path / PICTURES / f"x{n}.capture", picture_bytes(bytes([n]) * 1_500_000)) for n in range(4)]
    poison = {path.name for path in paths[::3]} | {path.name for path in big[:3]}

    def judge(entry: Entry) -> Result | None:
        return Result(entry.id, Status.REJECTED, "poison", "keep away") if entry.name in poison else None

    app.judge = judge
    async with syncing(tmp_path, app):
        await until(lambda: not captures(tmp_path))
    aside = {p.name for p in (tmp_path / "failed").rglob("*.capture")}
    assert aside == poison
    for name in poison:
        reason = json.loads((tmp_path / "failed" / PICTURES / f"{name}.reason.json").read_text())
        assert reason["message"] == "poison"
    row = ledger_row(tmp_path, "ReadImage")
    assert row["captured"] == 404
    assert row["synced"] == len(app.files) == 404 - len(poison)
    assert row["dropped"] == {"rejected": len(poison)}


async def test_what_cannot_be_read_stays_and_is_named_once(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """A read that fails as on a bad sector: also root gets EISDIR for a directory that takes the file's place."""
    put_pictures(tmp_path, 6)
    bad = tmp_path / PICTURES / "00003.capture"
    app.hold.clear()
    with caplog.at_level(logging.WARNING, "test.sync"):
        async with syncing(tmp_path, app) as process:
            files = process._files
            seen = next(c for shelf in files.shelves() for c in shelf.files if c.path == str(bad))
            bad.unlink()
            bad.mkdir()
            assert files.load(seen) is None
            assert files.load(seen) is None
            app.hold.set()
            await until(lambda: not [p for p in captures(tmp_path) if p.is_file()])
    messages = [r.getMessage() for r in caplog.records if "cannot be read" in r.getMessage()]
    assert len(messages) == 1
    assert str(bad) in messages[0]


async def test_a_file_deleted_while_it_is_sent_is_no_trouble(tmp_path: Path, app: StandInApp) -> None:
    """The machine's thinning, or a person: the app has it, nobody else may fall over it."""
    put_pictures(tmp_path, 20)
    app.hold.clear()
    async with syncing(tmp_path, app):
        await until(lambda: len(app.files) >= 3)
        for entry, _ in list(app.files.values())[:3]:
            (tmp_path / entry.path).unlink()
        app.hold.set()
        await until(lambda: not captures(tmp_path))
    assert len({content for _, content in app.files.values()}) == 20


async def test_a_big_file_deleted_while_it_is_sent_ends_quietly(tmp_path: Path, app: StandInApp) -> None:
    big = put(tmp_path / PICTURES / "big.capture", picture_bytes(bytes(6_000_000)))
    app.hold.clear()  # or it would be sent before anybody looks
    async with syncing(tmp_path, app) as process:
        await until(lambda: app.partial)
        big.unlink()
        app.hold.set()
        put_readings(tmp_path, "later.capture", 1)
        process.handle({"type": "pass"})
        await until(lambda: any(entry.name == "later.capture" for entry, _ in app.files.values()))


async def test_a_folder_that_is_replaced_meanwhile_is_sent_as_it_is_then(tmp_path: Path, app: StandInApp) -> None:
    root = tmp_path / "capture"
    put_pictures(root, 10)
    app.hold.clear()
    async with syncing(root, app) as process:
        await until(lambda: len(app.files) == 10)  # 20 kB: as much as is on the way before the first answer
        (root / PICTURES).rename(tmp_path / "aside")
        put(root / PICTURES / "new.capture", picture_bytes(b"after the change"))
        app.hold.set()
        await until(lambda: process.passes >= 1)
        process.handle({"type": "pass"})
        await until(lambda: not captures(root))
    assert len(app.files) == 11
    assert len(list((tmp_path / "aside").glob("*.capture"))) == 10, "files that went elsewhere are not ours to delete"


async def test_links_in_circles_and_to_elsewhere_are_left_alone(tmp_path: Path, app: StandInApp) -> None:
    root = tmp_path / "capture"
    put_pictures(root, 3)
    outside = put(tmp_path / "outside" / "private.txt", b"not yours")
    (root / PICTURES / "up").symlink_to(root)
    (root / PICTURES / "self").symlink_to(root / PICTURES / "self")
    (root / PICTURES / "out.txt").symlink_to(outside)
    (root / PICTURES / "dir").symlink_to(outside.parent)
    async with syncing(root, app, settle_ms=0):
        await until(lambda: not [p for p in captures(root) if not p.is_symlink()])
    assert len(app.files) == 3
    assert outside.read_bytes() == b"not yours"


def test_a_second_machine_on_the_folder_is_told_who_has_it(tmp_path: Path) -> None:
    program = (
        "import logging, sys, pathlib; from gleaner.machine.capture.directory import CaptureDirectory;"
        "CaptureDirectory(pathlib.Path(sys.argv[1]), logging.getLogger()).open(); print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"mine\n"
        with pytest.raises(CaptureDirectoryBusy) as refused:
            CaptureDirectory(tmp_path, logging.getLogger("test")).open(patience_s=0)
        owner.communicate()
    assert f"(process {owner.pid})" in str(refused.value)
    assert "\n" not in str(refused.value)
    with CaptureDirectory(tmp_path, logging.getLogger("test")):
        pass  # its end gives the folder back


async def test_the_whole_folder_removed_under_sync_ends_nothing(tmp_path: Path, app: StandInApp) -> None:
    root = tmp_path / "capture"
    put_pictures(root, 5)
    async with syncing(root, app) as process:
        await until(lambda: len(app.files) == 5)
        shutil.rmtree(root / "rdk_component_camera")
        process.handle({"type": "pass"})
        passes = process.passes
        await until(lambda: process.passes > passes)
        put_pictures(root, 2, size=100)
        process.handle({"type": "pass"})
        await until(lambda: not captures(root))
    assert len(app.files) == 7


async def test_a_file_that_arrives_as_another_is_kept_and_sent_again(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    """A bit that tips over on the way, or a part id that the app has otherwise: no fault of the file."""
    put_pictures(tmp_path, 5)
    unlucky = {"00001.capture": 1, "00003.capture": 99}
    refused: list[str] = []

    def judge(entry: Entry) -> Result | None:
        if not unlucky.get(entry.name):
            return None
        unlucky[entry.name] -= 1
        refused.append(entry.name)
        return Result(entry.id, Status.REJECTED, f"{entry.path} is not what its id says", "Look at the part id.", True)

    app.judge = judge
    async with syncing(tmp_path, app) as process:
        while len(captures(tmp_path)) > 1 or len(refused) < 3:
            passes = process.passes
            process.handle({"type": "pass"})
            await until(lambda passes=passes: process.passes > passes)
        process.handle({"type": "sync", "id": 1})
        await until(lambda: said[-1]["type"] == "done")
    assert [path.name for path in captures(tmp_path)] == ["00003.capture"]
    assert not (tmp_path / "failed").exists()
    assert refused.count("00003.capture") == 2  # then it waits for a person
    for words in (said[-1]["error"], [line for line in said if line["type"] == "status"][-1]["error"]):
        assert "00003.capture is not what its id says; it stays on this machine. Look at the part id." in words
    row = ledger_row(tmp_path, "ReadImage")
    assert (row["synced"], row["waiting"], row["dropped"]) == (4, 1, {})


async def test_what_could_not_be_read_is_told_until_it_can_be(
    tmp_path: Path, app: StandInApp, said: list[dict[str, Any]]
) -> None:
    put_pictures(tmp_path, 3)
    bad = put(tmp_path / PICTURES / "x.capture", picture_bytes(b"x"))
    good = bad.read_bytes()

    def told() -> str:
        return str([line for line in said if line["type"] == "status"][-1]["error"])

    async with syncing(tmp_path, app) as process:
        await until(lambda: not captures(tmp_path))
        files = process._files
        put(bad, good)
        seen = next(c for shelf in files.shelves() for c in shelf.files)
        bad.unlink()
        bad.mkdir()
        assert files.load(seen) is None
        process.handle({"type": "pass"})
        await until(lambda: "cannot be read" in told())
        bad.rmdir()
        assert files.load(seen) is None  # gone is not unreadable
        process.handle({"type": "pass"})
        await until(lambda: told() == "")
