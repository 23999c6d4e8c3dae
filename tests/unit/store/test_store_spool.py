from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_fixtures import Store

from gleaner.app.store.spooled_capture import SlicePayload


def test_named_file_continues_where_it_ended(store: Store) -> None:
    file = store.spool.open("ab")
    file.append(b"one ", durable=True)
    file.close()
    again = store.spool.open("ab")
    assert again.size == 4
    again.append(b"two")
    assert again.read_all() == b"one two"
    assert again.head(5) == b"one t"
    again.discard()
    assert not list((store.folder / "spool").iterdir())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5), cut=st.floats(0, 1))
def test_any_cut_leaves_whole_pieces(store: Store, pieces: list[bytes], cut: float) -> None:
    file = store.spool.open("cd")
    for piece in pieces:
        file.append(piece)
    file.close()
    path = store.folder / "spool" / "cd.part"
    os.truncate(path, int(path.stat().st_size * cut))
    again = store.spool.open("cd")
    whole = b"".join(pieces)
    assert whole.startswith(again.read_all())
    assert again.size in [len(b"".join(pieces[:n])) for n in range(len(pieces) + 1)]
    again.append(whole[again.size :])
    assert again.read_all() == whole
    again.discard()


def test_spooled_bytes_are_encrypted(store: Store) -> None:
    file = store.spool.create()
    file.append(b"a face nobody else may see" * 10)
    [path] = (store.folder / "spool").iterdir()
    assert b"nobody" not in path.read_bytes()
    file.discard()


def test_second_opener_takes_the_file_over(store: Store) -> None:
    first = store.spool.open("ef")
    second = store.spool.open("ef")
    second.append(b"x")
    with pytest.raises(OSError, match="descriptor"):
        first.append(b"y")
    second.close()


def test_start_collects_what_nobody_will_continue(store: Store) -> None:
    unnamed = store.spool.create()
    old, young = store.spool.open("aa"), store.spool.open("bb")
    for file in (unnamed, old, young):
        file.append(b"x")
        file.close()
    path: Path = store.folder / "spool" / "aa.part"
    now = path.stat().st_mtime
    os.utime(path, (now - 8 * 86400,) * 2)
    store.spool.start(now)
    assert [file.name for file in (store.folder / "spool").iterdir()] == ["bb.part"]


def test_names_cannot_leave_the_folder(store: Store) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        store.spool.open("../keys/kek")


def test_slice_reads_only_its_range(store: Store) -> None:
    file = store.spool.create()
    content = os.urandom(2_500_000)
    for start in range(0, len(content), 300_000):
        file.append(content[start : start + 300_000])
    part = SlicePayload(file, 12_345, 2_222_222)
    assert b"".join(part.chunks()) == content[12_345 : 12_345 + 2_222_222]
    assert part.head(100) == content[12_345:12_445]
    part.discard()
