from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from store_fixtures import NOW_NS, Store

from gleaner.app.store import pack_format
from gleaner.app.store.pack_format import FoundRecord, RangeReader, RecordWriter
from gleaner.app.store.packs import PackRecord
from gleaner.app.store.payload import CHUNK_BYTES, SEGMENT_BYTES, MemoryPayload

KEY = bytes(range(32))
START = pack_format.pack_start(b"wrapped")
SIZES = st.sampled_from([0, 1, 100, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES + 7])


class Bytes(RangeReader):
    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        self._data = data

    def read(self, start: int, length: int) -> bytes:
        return self._data[start : start + length]


def build(payloads: list[bytes]) -> tuple[bytes, RecordWriter]:
    writer = RecordWriter(KEY, START)
    body = b"".join(b"".join(writer.record({"n": n}, MemoryPayload(p))) for n, p in enumerate(payloads))
    return START + body, writer


def scan(data: bytes) -> list[FoundRecord]:
    return list(pack_format.scan_records(Bytes(data), AESGCM(KEY), len(START), check_bodies=True))


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(SIZES, max_size=4), cut=st.floats(0, 1))
def test_any_cut_leaves_the_whole_records_before_it(sizes: list[int], cut: float) -> None:
    data, writer = build([bytes([n + 1]) * size for n, size in enumerate(sizes)])
    end = len(START) + round(cut * (len(data) - len(START)))
    found = scan(data[:end])
    assert [one.position for one in found] == writer.positions[: len(found)]
    ends = [p.body_offset + pack_format.sealed_size(p.size) for p in writer.positions]
    assert len(found) == sum(one <= end for one in ends)


@settings(max_examples=25, deadline=None)
@given(place=st.floats(0, 0.999999), bit=st.integers(0, 7))
def test_any_flipped_bit_ends_the_scan_before_its_record(place: float, bit: int) -> None:
    data, writer = build([b"a" * 1000, b"b" * 70_000, b"c" * 10])
    at = len(START) + int(place * (len(data) - len(START)))
    damaged = bytearray(data)
    damaged[at] ^= 1 << bit
    untouched = sum(p.body_offset + pack_format.sealed_size(p.size) <= at for p in writer.positions)
    assert len(scan(bytes(damaged))) == untouched


@pytest.mark.parametrize("size", [0, 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, CHUNK_BYTES + 3 * SEGMENT_BYTES + 5])
def test_every_range_reads_as_written(store: Store, size: int) -> None:
    content = bytes(n * 7 % 251 for n in range(size))
    pack = store.packs.write([PackRecord({}, MemoryPayload(b"before")), PackRecord({}, MemoryPayload(content))], NOW_NS)
    store.packs._open[1] = (pack.name, AESGCM(store.keys.unwrap(pack.wrapped_key, "pack")))
    position = pack.positions[1]
    assert store.packs.read(1, position) == content
    edges = [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, CHUNK_BYTES, size // 2, max(size - 1, 0)]
    for start in edges:
        for length in (0, 1, SEGMENT_BYTES, size):
            assert store.packs.read(1, position, start, length) == content[start : start + length]


def test_nothing_is_on_disk_in_the_clear(store: Store) -> None:
    secret = b"a face nobody else may see" * 100
    store.packs.write([PackRecord({"file_name": "private-name"}, MemoryPayload(secret))], NOW_NS)
    [name] = store.pack_names()
    data = (store.folder / "packs" / name).read_bytes()
    assert b"nobody" not in data and b"private-name" not in data
    assert list((store.folder / "packs" / "tmp").iterdir()) == []


def test_changed_bytes_are_noticed_when_read(store: Store) -> None:
    pack = store.packs.write([PackRecord({}, MemoryPayload(b"x" * 100))], NOW_NS)
    store.packs._open[1] = (pack.name, AESGCM(store.keys.unwrap(pack.wrapped_key, "pack")))
    path = store.folder / "packs" / pack.name
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidTag):
        store.packs.read(1, pack.positions[0])
