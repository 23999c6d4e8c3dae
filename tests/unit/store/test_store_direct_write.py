"""Big packs go past the page cache and are whole all the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gleaner.app.store.direct_write import BUFFER_BYTES, DirectWriter, open_direct
from gleaner.app.store.objects import LocalObjects


@pytest.fixture
def writer() -> Iterator[DirectWriter]:
    made = DirectWriter()
    yield made
    made.close()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 3_000_001])
def test_what_is_written_is_read_whatever_its_size(tmp_path: Path, writer: DirectWriter, size: int) -> None:
    content = os.urandom(size)
    handle = open_direct(tmp_path / "file")
    try:
        writer.write(handle, [content[:100], b"", content[100:]])
    finally:
        os.close(handle)
    assert (tmp_path / "file").read_bytes() == content


def test_a_writer_leaves_nothing_of_one_file_in_the_next(tmp_path: Path, writer: DirectWriter) -> None:
    for name, content in (("first", b"x" * 9000), ("second", b"y" * 5000)):
        handle = open_direct(tmp_path / name)
        try:
            writer.write(handle, [content])
        finally:
            os.close(handle)
    assert (tmp_path / "second").read_bytes() == b"y" * 5000


def test_a_file_that_cannot_be_written_is_an_error(writer: DirectWriter) -> None:
    handle = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="No space") as caught:
            writer.write(handle, [b"x" * 5000])
    finally:
        os.close(handle)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("size", [10, 600_000, 2_500_000])
def test_an_object_is_the_same_by_either_way(tmp_path: Path, durable: bool, size: int) -> None:
    objects = LocalObjects(tmp_path / "objects")
    content = os.urandom(size)
    pieces = (content[start : start + 70_000] for start in range(0, size, 70_000))
    objects.put("day/one.pack", pieces, durable=durable)
    assert objects.read("day/one.pack", 0, size) == content
    assert objects.size("day/one.pack") == size


def test_a_source_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "objects")

    def pieces() -> Iterator[bytes]:
        yield bytes(1_000_000)
        raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"):
        objects.put("day/one.pack", pieces(), durable=True)
    assert list(objects.names()) == []
    assert list((tmp_path / "objects" / "tmp").iterdir()) == []
