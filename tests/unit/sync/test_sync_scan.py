from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from gleaner.machine.capture.directory import file_stem
from gleaner.machine.sync.backoff import FIRST_S, LONGEST_S, Backoff
from gleaner.machine.sync.scan import Look, candidates, distinct_roots, path_tags, shelves
from gleaner.machine.sync.settings import SyncSettings
from gleaner.wire.sync_frames import EntryKind


def put(path: Path, content: bytes = b"x", age_s: float = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    stamp = time.time() - age_s
    os.utime(path, (stamp, stamp))
    return path


def found(*roots: Path, settle_ms: int = 10_000) -> dict[str, EntryKind]:
    return {Path(c.path).name: c.kind for c in candidates(roots, time.time_ns(), settle_ms)}


@pytest.mark.parametrize(
    ("name", "age_s", "content", "kind"),
    [
        ("a/b/c/1.capture", 0, b"x", EntryKind.CAPTURE),  # complete the moment it has its name
        ("a/b/c/1.capture", 0, b"", EntryKind.CAPTURE),  # settled without sending
        ("a/b/c/1.prog", 3600, b"x", None),
        ("notes.txt", 60, b"x", EntryKind.FILE),
        ("notes.txt", 3, b"x", None),  # still resting
        ("notes.txt", -3600, b"x", EntryKind.FILE),  # from a clock that was wrong: would never rest
        ("notes.txt", 60, b"", None),
        ("failed/a/1.capture", 60, b"x", None),
        ("deep/failed/1.capture", 60, b"x", None),
        ("datasetUpload/1.jpeg", 60, b"x", None),
        (".gleaner/ledger.db", 60, b"x", None),
        ("sequences/1.seq", 0, b"x", EntryKind.SEQUENCE),  # comes by rename
        ("sequences/1.progseq", 60, b"x", None),
        ("notes/1.seq", 60, b"x", EntryKind.FILE),
    ],
)
def test_what_is_ready_to_be_sent(tmp_path: Path, name: str, age_s: float, content: bytes, kind: EntryKind) -> None:
    put(tmp_path / name, content, age_s)
    assert found(tmp_path).get(Path(name).name) == kind


def test_links_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.capture")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "link.txt").symlink_to("/etc/hostname")
    assert found(tmp_path) == {"1.capture": EntryKind.CAPTURE}


def test_a_missing_or_unreadable_folder_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path / "a.capture")
    assert found(tmp_path / "missing", tmp_path) == {"a.capture": EntryKind.CAPTURE}


def test_a_folder_inside_another_is_scanned_once(tmp_path: Path) -> None:
    assert distinct_roots([tmp_path / "a", tmp_path, tmp_path / "b" / "c", tmp_path]) == [tmp_path]
    put(tmp_path / "a" / "1.capture")
    assert len(list(candidates([tmp_path, tmp_path / "a"], time.time_ns(), 0))) == 1


def test_files_of_a_folder_come_oldest_first(tmp_path: Path) -> None:
    names = [f"2024-05-01T12_30_05.{n:06d}Z.capture" for n in range(50)]
    for name in random.Random(0).sample(names, len(names)):
        put(tmp_path / name)
    assert [Path(c.path).name for c in candidates([tmp_path], time.time_ns(), 0)] == names


def test_files_that_vanish_during_the_scan_are_no_problem(tmp_path: Path) -> None:
    for n in range(20):
        put(tmp_path / f"{n:02d}.capture")
    seen = 0
    for candidate in candidates([tmp_path], time.time_ns(), 0):
        Path(candidate.path).unlink()
        for path in list(tmp_path.glob("1*.capture")):
            path.unlink()
        seen += 1
    assert seen >= 10


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/tag=a/tag=b/dataset=d/x.txt", (("a", "b"), ("d",))),
        ("/data/tag=a/tag=a/x.txt", (("a",), ())),
        ("/data/tag=/dataset/tag=x=y/x.txt", (("x=y",), ())),
        ("/data/tag=a.txt", ((), ())),  # the file's own name says nothing
    ],
)
def test_folders_can_name_tags_and_datasets(path: str, expected: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    assert path_tags(path) == expected


def test_back_off_grows_to_a_minute_and_begins_anew() -> None:
    backoff = Backoff(random.Random(0))
    waits = [backoff.next_s() for _ in range(40)]
    assert FIRST_S / 2 <= waits[0] <= FIRST_S
    assert max(waits) <= LONGEST_S
    assert min(waits[10:]) >= LONGEST_S / 2
    assert len(set(waits[10:])) > 20  # jittered
    backoff.reset()
    assert backoff.next_s() <= FIRST_S


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://127.0.0.1:8090", "ws://127.0.0.1:8090/api/sync"),
        ("https://app.example/", "wss://app.example/api/sync"),
    ],
)
def test_the_address_of_the_app_leads_to_its_sync_door(address: str, url: str) -> None:
    settings = SyncSettings("/c", "p", "s", address, additional_sync_paths=("/x",), tags=("t",))
    assert settings.url == url
    assert SyncSettings.from_json(settings.to_json()) == settings


def test_a_look_for_new_files_lists_only_directories_that_have_changed(tmp_path: Path) -> None:
    now_ns = time.time_ns()
    listed = []
    for name, age_s in (("old", 60), ("new", 0), ("nested", 60)):
        folder = tmp_path / "rdk_component_camera" / name / "GetImages"
        folder.mkdir(parents=True)
        (folder / f"{file_stem(now_ns)}.capture").write_bytes(b"x")
        if name == "nested":
            (folder / "deeper").mkdir()
        os.utime(folder, ns=(now_ns - age_s * 10**9, now_ns - age_s * 10**9))
        listed.append(folder)
    found = shelves([tmp_path], Look(now_ns, 0, now_ns - 10 * 10**9), lambda _path: False)
    assert [shelf.path for shelf in found if shelf.path] == [str(listed[2]), str(listed[1])]
    everything = shelves([tmp_path], Look(now_ns, 0), lambda _path: False)
    assert len([shelf for shelf in everything if shelf.path]) == 3
