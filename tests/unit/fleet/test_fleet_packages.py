"""Packages: encrypted at rest, any range readable, versions immutable."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest
from fleet_world import Fleet
from hypothesis import given
from hypothesis import strategies as st

from gleaner.app.caller import Caller, CallerKind
from gleaner.app.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from gleaner.app.services.package_files import SEGMENT_BYTES, DamagedFile, move_into, read_range, write_file
from gleaner.app.services.packages import NewPackage, Package
from gleaner.app.store.objects import LocalObjects

KEY = b"k" * 32


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def register(fleet: Fleet, content: bytes, version: str = "1", name: str = "m") -> Package:
    return fleet.context.packages.register(NewPackage(fleet.organization_id, name, version), [content])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalObjects, bytes]:
    objects = LocalObjects(tmp_path_factory.mktemp("packages"))
    content = os.urandom(17 * SEGMENT_BYTES + 17)
    write_file(objects, "one", KEY, [content[:5], content[5:100_000], content[100_000:]])
    return objects, content


@given(st.integers(0, 17 * SEGMENT_BYTES + 30), st.integers(0, 17 * SEGMENT_BYTES + 30))
def test_any_range_is_the_same_bytes(written: tuple[LocalObjects, bytes], start: int, end: int) -> None:
    objects, content = written
    assert b"".join(read_range(objects, "one", KEY, len(content), start, end)) == content[start:end]


@pytest.mark.parametrize("size", [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 2 * SEGMENT_BYTES])
def test_sizes_around_a_segment(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    objects = LocalObjects(tmp_path)
    made = write_file(objects, "p", KEY, [content])
    assert (made.size_bytes, made.crc32c) == (size, google_crc32c.value(content))
    assert b"".join(read_range(objects, "p", KEY, size)) == content


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[: SEGMENT_BYTES + 16], lambda b: b[:9] + b"x" + b[10:]]
)
def test_damage_is_noticed(tmp_path: Path, damage: object) -> None:
    path, content = tmp_path / "p", os.urandom(SEGMENT_BYTES + 100)
    objects = LocalObjects(tmp_path)
    write_file(objects, "p", KEY, [content])
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DamagedFile, match="damaged at segment"):
        list(read_range(objects, "p", KEY, len(content)))


def test_an_upload_that_breaks_leaves_nothing(fleet: Fleet, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        fleet.context.packages.register(NewPackage(fleet.organization_id, "m", "1"), broken())
    assert [path for path in (tmp_path / "app" / "packages").rglob("*") if path.is_file()] == []
    assert fleet.context.packages.find(fleet.organization_id, "m") is None


def test_a_crash_leaves_only_what_the_next_start_removes(fleet: Fleet, tmp_path: Path) -> None:
    register(fleet, b"whole")
    half = tmp_path / "app" / "packages" / "tmp" / "half.package"
    half.write_bytes(b"x")
    fleet.context.packages.start()
    assert not half.exists()
    assert b"".join(fleet.context.packages.content(fleet.context.packages.all()[0])) == b"whole"


def test_packages_move_to_where_they_are_to_lie(tmp_path: Path) -> None:
    """Whoever goes over to a bucket; and again after it was cut off between writing and removing."""
    before, after = LocalObjects(tmp_path / "before"), LocalObjects(tmp_path / "after")
    write_file(before, "1.package", KEY, [b"one"])
    write_file(before, "2.package", KEY, [b"two"])
    after.put("1.package", before.read("1.package", 0, before.size("1.package")), durable=True)
    assert list(move_into(after, tmp_path / "before")) == ["1.package", "2.package"]
    assert list(before.names()) == []
    assert [b"".join(read_range(after, name, KEY, 3)) for name in ("1.package", "2.package")] == [b"one", b"two"]
    assert list(move_into(after, tmp_path / "before")) == []


def test_files_are_not_readable_on_the_disk(fleet: Fleet, tmp_path: Path) -> None:
    register(fleet, b"secret picture " * 1000)
    [file] = (path for path in (tmp_path / "app" / "packages").rglob("*") if path.is_file())
    assert b"secret picture" not in file.read_bytes()


def test_members_are_found_without_unpacking_everything(fleet: Fleet) -> None:
    made = register(fleet, archive(labels=b"a\nb", samples__1=b"jpeg"))
    packages = fleet.context.packages
    assert packages.member(made, "labels") == b"a\nb"
    assert packages.member(made, "samples/1") == b"jpeg"
    for path in ("nothing", "../../etc/passwd"):
        with pytest.raises(NotFound, match="holds no file"):
            packages.member(made, path)


def test_versions_never_change(fleet: Fleet) -> None:
    register(fleet, b"one")
    with pytest.raises(Conflict, match="version 1 already"):
        register(fleet, b"two")


@pytest.mark.parametrize(
    ("name", "version"), [("../x", "1"), ("", "1"), ("m", "latest"), ("m", ""), ("m", "1/2"), ("m", "..")]
)
def test_names_and_versions_are_safe_in_paths(fleet: Fleet, name: str, version: str) -> None:
    with pytest.raises(InvalidInput):
        register(fleet, b"x", version, name)


def test_the_newest_is_the_latest_and_deleting_brings_back_the_one_before(fleet: Fleet) -> None:
    packages = fleet.context.packages
    register(fleet, b"one", "b")
    register(fleet, b"two", "a")
    assert packages.latest_version(fleet.organization_id, "m") == "a"
    assert packages.delete(fleet.owner, fleet.organization_id, "m", "a") == 1
    assert packages.latest_version(fleet.organization_id, "m") == "b"


def test_parts_may_fetch_and_not_delete_and_strangers_neither(fleet: Fleet) -> None:
    packages = fleet.context.packages
    made = register(fleet, b"one")
    assert packages.get(fleet.part(), fleet.organization_id, "m").id == made.id
    with pytest.raises(PermissionDenied):
        packages.delete(fleet.part(), fleet.organization_id, "m")
    with pytest.raises(NotFound):
        packages.get(Caller(CallerKind.USER, "stranger"), fleet.organization_id, "m")
