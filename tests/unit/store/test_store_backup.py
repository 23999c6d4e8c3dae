"""Backups of a store that is in use: only new bytes are copied, whole or not at all, and they come back as they were."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_fixtures import OWNER, Store, open_store, picture, readings

from gleaner.app.services.items_values import ItemFilter, Selection
from gleaner.app.store.backup import BackupProblem, Manifest, Source, back_up, choose, restore, snapshots, verify
from gleaner.app.store.cleaning import KEEP_DELETED_S, Cleaner
from gleaner.app.store.fsck import check
from gleaner.app.store.merging import FAN_IN
from gleaner.app.store.objects import LocalObjects
from gleaner.app.store.rewriting import RETIRED_S

pytestmark = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
"""PostgreSQL has its own backups; what it is told is below."""

NOW = dt.datetime(2026, 11, 22, 8, 30, tzinfo=dt.UTC)


def source(store: Store) -> Source:
    packages = LocalObjects(store.folder / "packages")
    return Source(store.folder, store.database, store.packs.objects, store.keys, packages)


def take(store: Store, folder: Path, minutes: int = 0, keep: int = 0) -> tuple[Manifest, int]:
    chosen = source(store)
    return back_up(chosen, folder, NOW + dt.timedelta(minutes=minutes), keep), chosen.copied


def contents(store: Store) -> set[bytes]:
    return {store.items.content(OWNER, row).all() for row in store.items.rows(OWNER, ItemFilter())}


def restored(folder: Path, target: Path, store: Store, at: str = "") -> Store:
    restore(folder, choose(folder, at), target)
    shutil.copy(store.folder / "keys" / "kek", target / "keys" / "kek")
    return open_store(target)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "usb"


def test_a_backup_comes_back_as_it_was(store: Store, folder: Path, tmp_path: Path) -> None:
    store.add(picture(1, tags=("red",)), picture(2), readings(0, 20))
    (store.folder / "packages").mkdir()
    (store.folder / "packages" / "model").write_bytes(b"sealed")
    manifest, _ = take(store, folder)
    assert verify(folder, manifest) == []
    store.add(picture(3))
    back = restored(folder, tmp_path / "new", store)
    assert contents(back) == {b"\xff\xd8\xff picture 1", b"\xff\xd8\xff picture 2"}
    assert back.items.count(OWNER, ItemFilter(tags=("red",)))[0] == 1
    assert (tmp_path / "new" / "packages" / "model").read_bytes() == b"sealed"
    assert check(back.packs, back.database, deep=True).is_healthy
    back.database.close()


def test_the_key_is_not_in_the_backup(store: Store, folder: Path) -> None:
    store.add(picture(1))
    take(store, folder)
    kek = (store.folder / "keys" / "kek").read_bytes().strip()
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert kek not in everything and bytes.fromhex(kek.decode()) not in everything
    assert b"picture 1" not in everything


def test_the_next_one_copies_only_what_is_new(store: Store, folder: Path, tmp_path: Path) -> None:
    store.add(picture(1, content=b"\xff\xd8\xff" + bytes(200_000)))
    assert take(store, folder)[1] > 200_000
    assert take(store, folder, 1)[1] == 0
    store.add(picture(2))
    assert 0 < take(store, folder, 2)[1] < 5_000
    assert len(snapshots(folder)) == 3
    back = restored(folder, tmp_path / "new", store, at="2026-11-22T0831")
    assert len(contents(back)) == 1
    back.database.close()


def test_packs_that_are_merged_while_they_are_copied_are_found_again(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    for number in range(FAN_IN):
        store.add(picture(number))
    expected, seconds = contents(store), [0.0]
    chosen, cleaner = source(store), Cleaner(store.database, store.packs, store.clock, lambda: seconds[0])

    def merge_once(done: int, total: int) -> None:
        if not seconds[0]:
            assert cleaner.clean().packs_merged == FAN_IN
            seconds[0] += RETIRED_S
            cleaner.clean()

    manifest = back_up(chosen, folder, NOW, progress=merge_once)
    assert manifest.missing == ()
    back = restored(folder, tmp_path / "new", store)
    assert contents(back) == expected
    back.database.close()


def test_a_pack_that_is_really_missing_is_named_and_the_rest_backed_up(store: Store, folder: Path) -> None:
    store.add(picture(1))
    store.add(picture(2))
    [lost, _] = store.pack_names()
    (store.folder / "packs" / lost).unlink()
    manifest, _ = take(store, folder)
    assert manifest.missing == (lost,)
    assert len(snapshots(folder)) == 1


def test_old_snapshots_are_forgotten_with_what_only_they_needed(store: Store, folder: Path) -> None:
    store.add(picture(1))
    take(store, folder)
    store.items.delete(OWNER, Selection(filter=ItemFilter()))
    store.clock.advance(KEEP_DELETED_S + 1)
    Cleaner(store.database, store.packs, store.clock).clean()
    store.add(picture(2))
    take(store, folder, 1, keep=1)
    assert len(snapshots(folder)) == 1
    assert (
        len(list((folder / "packs").rglob("*.pack"))) == 2
    )  # the second picture, and the note that the first was deleted
    assert verify(folder, choose(folder)) == []


class PulledDisk(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("after", range(4))
def test_a_backup_that_is_cut_off_is_no_snapshot_and_the_next_one_goes_on(
    store: Store, folder: Path, after: int, tmp_path: Path
) -> None:
    for number in range(4):
        store.add(picture(number))
    calls = []

    def pull(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) > after:
            raise PulledDisk

    with pytest.raises(PulledDisk):
        back_up(source(store), folder, NOW, progress=pull)
    assert snapshots(folder) == []
    manifest, copied = take(store, folder, 1)
    assert verify(folder, manifest) == []
    assert copied < sum(file.size for file in manifest.shared) * 2
    back = restored(folder, tmp_path / "new", store)
    assert len(contents(back)) == 4
    back.database.close()


def test_a_changed_byte_in_the_backup_is_found_and_nothing_is_restored(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    store.add(picture(1))
    manifest, _ = take(store, folder)
    [pack] = (folder / "packs").rglob("*.pack")
    content = bytearray(pack.read_bytes())
    content[-1] ^= 1
    pack.write_bytes(content)
    assert verify(folder, manifest) == [str(pack.relative_to(folder))]
    with pytest.raises(BackupProblem, match="changed in the backup"):
        restore(folder, manifest, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.restoring").exists()


def test_what_cannot_be_restored_is_explained(store: Store, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupProblem, match="no backup"):
        choose(tmp_path / "nowhere")
    manifest, _ = take(store, folder)
    with pytest.raises(BackupProblem, match="2026-11-22T083000"):
        choose(folder, "2025")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(BackupProblem, match="not empty"):
        restore(folder, manifest, tmp_path / "full")
    path = folder / "snapshots" / manifest.name / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(BackupProblem, match="newer Gleaner"):
        choose(folder)
    path.write_text("{")
    with pytest.raises(BackupProblem, match="another snapshot"):
        choose(folder)
    assert take(store, folder, 1)[0].name in snapshots(folder)  # a bad manifest keeps no new snapshot away
