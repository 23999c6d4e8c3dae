"""Captures encrypted on the device: nothing readable without the key, nothing lost with it."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.capture import at_rest
from gleaner.machine.capture.at_rest import (
    BEGINNING_BYTES,
    PIECE_BYTES,
    FileSealer,
    Keyring,
    file_key,
    find_frames,
    open_sealed,
    plain_bytes,
    read_plain,
)
from gleaner.machine.capture.channel import Record
from gleaner.machine.capture.directory import CaptureDirectory, count_records
from gleaner.machine.capture.disk import DiskGuard, DiskSpace
from gleaner.machine.capture.errors import BadCaptureKey, CaptureKeyMissing
from gleaner.machine.capture.keys import KeySource, load_keyring, parse_keys
from gleaner.machine.capture.ledger import LedgerStore
from gleaner.machine.capture.writer import Writer, WriterOptions
from gleaner.wire.capture_file import CaptureFileError, encode_header, encode_record, read_capture
from gleaner.wire.sensor_data import ReadingEncoder, encode_binary

LOG = logging.getLogger("test.at_rest")
KEY, OLD_KEY = bytes(range(32)), bytes(range(1, 33))
RING = Keyring((KEY,))
READINGS = "rdk_component_sensor/imu/Readings"
PICTURES = "rdk_component_camera/cam/ReadImage"
HEADER = encode_header(DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR))
PICTURE_HEADER = encode_header(DataCaptureMetadata(component_name="cam", type=DataType.DATA_TYPE_BINARY_SENSOR))


def body(number: int) -> bytes:
    return ReadingEncoder().encode(10**18 + number, 10**18 + number, {"readings": {"n": number}})


def sealed_file(records: int, key: bytes = KEY) -> bytes:
    sealer = FileSealer(key)
    frames = [sealer.frame(HEADER, 0), *(sealer.frame(encode_record(body(n)), 1) for n in range(records))]
    return sealer.beginning + b"".join(frames)


def numbers(plain: bytes) -> list[int]:
    return [
        int(record.struct.fields["readings"].struct_value.fields["n"].number_value)
        for record in read_capture(plain).records
    ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LedgerStore]:
    store = LedgerStore(tmp_path, durable=False)
    yield store
    store.close()


def capture(root: Path, store: LedgerStore, keyring: Keyring, first: int, records: int, payload: bytes = b"") -> None:
    guard = DiskGuard(root, lambda _: DiskSpace(10**12, 10**12))
    writer = Writer(root, store, guard, LOG, WriterOptions(keyring=keyring))
    writer.start()
    try:
        channel = writer.open_channel(READINGS, is_binary=False, rotate_bytes=2000, queue_limit=10**6)
        for n in range(first, first + records):
            writer.submit(channel, Record(HEADER, (body(n),), 100))
        if payload:
            pictures = writer.open_channel(PICTURES, is_binary=True, rotate_bytes=1, queue_limit=10)
            writer.submit(pictures, Record(PICTURE_HEADER, encode_binary(1, 2, payload), len(payload)))
    finally:
        writer.stop()


def test_what_is_captured_is_unreadable_without_the_key_and_whole_with_it(tmp_path: Path, store: LedgerStore) -> None:
    payload = random.Random(1).randbytes(3 * PIECE_BYTES + 17)
    capture(tmp_path, store, RING, 0, 100, payload)
    files = sorted((tmp_path / READINGS).glob("*.capture"))
    assert len(files) > 3
    assert not any(b"imu" in path.read_bytes() or b"readings" in path.read_bytes() for path in files)
    assert [n for path in files for n in numbers(read_plain(path, RING))] == list(range(100))
    assert sum(count_records(path, RING) for path in files) == 100
    assert sum(count_records(path) for path in files) == 100  # the frames' headers say how many
    (picture,) = (tmp_path / PICTURES).glob("*.capture")
    assert read_capture(read_plain(picture, RING)).records[0].binary == payload
    assert payload[:64] not in picture.read_bytes()
    with pytest.raises(CaptureFileError, match="encrypted by the machine"):
        read_capture(files[0].read_bytes())


def test_old_files_are_read_after_a_rotation_and_after_turning_it_off(tmp_path: Path, store: LedgerStore) -> None:
    capture(tmp_path, store, Keyring((OLD_KEY,)), 0, 5)
    capture(tmp_path, store, Keyring((KEY, OLD_KEY)), 5, 5)
    capture(tmp_path, store, Keyring(), 10, 5)
    files = sorted((tmp_path / READINGS).glob("*.capture"))
    assert [n for path in files for n in numbers(read_plain(path, Keyring((KEY, OLD_KEY))))] == list(range(15))


def test_a_missing_key_is_said_with_its_name_and_is_no_damage() -> None:
    with pytest.raises(CaptureKeyMissing, match=at_rest.key_id(OLD_KEY).hex()):
        plain_bytes(sealed_file(3, OLD_KEY), RING)
    with pytest.raises(CaptureKeyMissing, match="none is configured"):
        plain_bytes(sealed_file(3), Keyring())


def test_files_have_keys_of_their_own_and_nonces_never_repeat() -> None:
    assert file_key(KEY, b"s" * 32) == HKDF(hashes.SHA256(), 32, b"s" * 32, b"gleaner capture file 1").derive(KEY)
    assert find_frames(sealed_file(1)).salt != find_frames(sealed_file(1)).salt
    sealer = FileSealer(KEY)
    counters = [int.from_bytes(sealer.frame(b"same", 1)[4:8], "little") for _ in range(5)]
    assert counters == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("with_key", [True, False])
def test_an_unfinished_encrypted_file_is_cut_at_its_last_whole_frame(tmp_path: Path, *, with_key: bool) -> None:
    whole = sealed_file(10)
    last = find_frames(whole).frames[-1]
    for cut in (last.start + 1, last.start + 20, last.end - 1):
        path = tmp_path / READINGS / "a.prog"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole[:cut])
        with CaptureDirectory(tmp_path, LOG, RING if with_key else Keyring()):
            done = tmp_path / READINGS / "a.capture"
            assert done.read_bytes() == whole[: last.start]
            done.unlink()


def test_an_unfinished_encrypted_file_without_a_record_goes(tmp_path: Path) -> None:
    path = tmp_path / READINGS / "a.prog"
    path.parent.mkdir(parents=True)
    path.write_bytes(sealed_file(0))
    with CaptureDirectory(tmp_path, LOG, RING):
        assert list(path.parent.iterdir()) == []


def test_one_flipped_bit_costs_one_record(tmp_path: Path) -> None:
    whole, chance = sealed_file(30), random.Random(3)
    first = find_frames(whole).frames[0].end
    for _ in range(200):
        bit = chance.randrange(first * 8, len(whole) * 8)
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        found = numbers(plain_bytes(bytes(damaged), RING))
        assert len(found) >= 29
        assert found == sorted(set(found))


def test_a_damaged_beginning_is_refused() -> None:
    whole = sealed_file(5)
    for position in (9, 30, BEGINNING_BYTES - 1, BEGINNING_BYTES + 20):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        with pytest.raises(CaptureFileError):
            plain_bytes(bytes(damaged), RING)


def test_frames_cannot_be_swapped_repeated_or_taken_from_another_file() -> None:
    whole = sealed_file(4)
    head, one, two, *_ = (whole[f.start : f.end] for f in find_frames(whole).frames)
    start = whole[:BEGINNING_BYTES] + head
    assert numbers(open_sealed(start + two + one, RING).plain) == [1]
    assert numbers(open_sealed(start + one + one, RING).plain) == [0]
    other = sealed_file(4)
    foreign = find_frames(other).frames[2]
    assert numbers(open_sealed(start + one + other[foreign.start : foreign.end], RING).plain) == [0]


# --- where keys come from --------------------------------------------------------------------------------------------


def test_keys_come_from_a_private_file_the_environment_or_a_command(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"# rotated in May\n{KEY.hex()}\n\n{OLD_KEY.hex()}\n")
    path.chmod(0o600)
    assert load_keyring(KeySource(key_file=str(path)), {}).keys == (KEY, OLD_KEY)
    assert load_keyring(KeySource(key_env="K"), {"K": KEY.hex()}).keys == (KEY,)
    assert load_keyring(KeySource(key_command=f"cat {path}"), {}).keys == (KEY, OLD_KEY)
    assert load_keyring(KeySource(), {}) == Keyring()
    assert KEY.hex() not in repr(RING)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text(KEY.hex())
    path.chmod(mode)
    with pytest.raises(BadCaptureKey, match="chmod 600"):
        load_keyring(KeySource(key_file=str(path)), {})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (KeySource(key_file="/nowhere/key"), "cannot be read"),
        (KeySource(key_env="K"), "is not set"),
        (KeySource(key_command="false"), "ended with code 1"),
        (KeySource(key_command="/nowhere/program"), "did not work"),
        (KeySource(key_command="true"), "holds no key"),
    ],
)
def test_a_key_that_cannot_be_had_says_why(source: KeySource, words: str) -> None:
    with pytest.raises(BadCaptureKey, match=words):
        load_keyring(source, {})


@pytest.mark.parametrize("text", ["secret", KEY.hex()[:-2], "password123" * 4])
def test_what_is_no_key_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(BadCaptureKey, match="openssl rand") as refused:
        parse_keys(text, "the key file")
    assert text not in str(refused.value)
