"""Capture files that are encrypted on the device: frames of AES-256-GCM around the plain capture format.

Layout: `magic (8) | key id (8) | salt (32) | CRC-32 of these`, then frames:
`mark (3) | records that end here (1) | counter (4) | length (4) | CRC-32 of these 12 | ciphertext and tag (length)`.
The plain text of all frames, one after the other, is an ordinary capture file (`wire/capture_file.py`), checksums
included; the first frame holds its header, each record of a reading a frame of its own, a big picture several.

Invariants:
- Every file has its own key: HKDF-SHA256 of the device's key with 32 random bytes. The nonce is the frame's counter, which
  grows with every attempt to write, also a failed one; a file is created exclusively and never appended to after a
  restart. So no nonce is ever used twice.
- A torn or damaged frame costs itself: its header has a checksum, so that the next frame is found without any key, and
  its 12 bytes are authenticated with the content.
- The key id is a hash of the key: old keys read old files, and a missing key is told from damage.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zlib_ng.zlib_ng import crc32

from gleaner.machine.capture.errors import CaptureFromNewer, CaptureKeyMissing
from gleaner.wire.capture_file import ENCRYPTED_FAMILY, ENCRYPTED_MAGIC, CaptureFileError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_KEY_ID_BYTES, _SALT_BYTES, _TAG_BYTES = 8, 32, 16
_INFO = b"gleaner capture file 1"
_BEGINNING = struct.Struct(f"<8s{_KEY_ID_BYTES}s{_SALT_BYTES}s")
_CHECKSUM = struct.Struct("<I")
_HEAD = struct.Struct("<3sBII")
_MARK = b"\xf6GF"
_NONCE = struct.Struct("<IQ")
BEGINNING_BYTES = _BEGINNING.size + 4
FRAME_HEAD_BYTES = _HEAD.size + 4
FRAME_OVERHEAD_BYTES = FRAME_HEAD_BYTES + _TAG_BYTES
# Pictures are encrypted piece by piece, so that a big one never lies in memory twice.
PIECE_BYTES = 1024 * 1024
# From here on, copying a part costs more than a frame of its own.
BIG_PART_BYTES = 16 * 1024
_MOST_FRAMES = 1 << 32


def key_id(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=_KEY_ID_BYTES, person=b"gleaner key id").digest()


def file_key(key: bytes, salt: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) for one block of output."""
    return hmac.digest(hmac.digest(salt, key, "sha256"), _INFO + b"\x01", "sha256")


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    # Imported late: a machine that does not encrypt has no use for 10 MB of it.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(file_key(key, salt))


class FileSealer:
    """Encrypts what goes into one new file."""

    def __init__(self, key: bytes) -> None:
        salt = os.urandom(_SALT_BYTES)
        beginning = _BEGINNING.pack(ENCRYPTED_MAGIC, key_id(key), salt)
        self.beginning = beginning + _CHECKSUM.pack(crc32(beginning))
        self._encrypt = _cipher(key, salt).encrypt
        self._counter = 0

    def frame(self, plain: bytes, records: int) -> bytes:
        """One frame. Never the same twice: what failed to be written is encrypted anew."""
        return b"%b%b%b" % self._frame(plain, records)

    def frames(self, parts: Sequence[bytes]) -> Iterator[list[bytes]]:
        """One record as buffers to write; a big part is encrypted from where it is, in frames of its own."""
        small: list[bytes] = []
        for part in parts:
            if len(part) < BIG_PART_BYTES:
                small.append(part)
                continue
            view = memoryview(part)
            for at in range(0, len(part), PIECE_BYTES):
                yield [*self._small(small, 0), *self._frame(view[at : at + PIECE_BYTES], 0)]
                small = []
        yield self._small(small, 1)

    def _small(self, parts: list[bytes], records: int) -> list[bytes]:
        return [*self._frame(b"".join(parts), records)] if parts or records else []

    def _frame(self, plain: bytes | memoryview, records: int) -> tuple[bytes, bytes, bytes]:
        counter = self._counter
        if counter >= _MOST_FRAMES:
            raise OverflowError("an encrypted capture file has no room for more frames")
        self._counter = counter + 1
        head = _HEAD.pack(_MARK, records, counter, len(plain) + _TAG_BYTES)
        return head, _CHECKSUM.pack(crc32(head)), self._encrypt(_NONCE.pack(0, counter), plain, head)


@dataclass(frozen=True)
class Keyring:
    """The device's keys: new files take the first, old files are read with any."""

    keys: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Keyring({', '.join(key_id(key).hex() for key in self.keys)})"

    def sealer(self) -> FileSealer | None:
        """For a new file; None when nothing is to be encrypted."""
        return FileSealer(self.keys[0]) if self.keys else None

    def find(self, wanted: bytes) -> bytes | None:
        return next((key for key in self.keys if hmac.compare_digest(key_id(key), wanted)), None)


@dataclass(frozen=True)
class Frame:
    start: int
    end: int
    counter: int
    records: int


@dataclass(frozen=True)
class SealedFile:
    """What an encrypted file shows without a key."""

    key_id: bytes
    salt: bytes
    frames: tuple[Frame, ...]

    @property
    def records(self) -> int:
        return sum(frame.records for frame in self.frames)

    @property
    def good_end(self) -> int:
        return self.frames[-1].end if self.frames else BEGINNING_BYTES


def is_encrypted(data: bytes) -> bool:
    return data.startswith(ENCRYPTED_FAMILY)


def find_frames(data: bytes) -> SealedFile:
    """Needs no key. Raises CaptureFileError when the beginning is damaged: without the salt nothing can be read.

    Raises CaptureFromNewer for a format that came later.
    """
    version = data[len(ENCRYPTED_FAMILY) : len(ENCRYPTED_MAGIC)]
    if version != ENCRYPTED_MAGIC[-1:] and version.isdigit() and not _is_ours_but_for_its_version(data):
        raise CaptureFromNewer(version.decode())
    if len(data) < BEGINNING_BYTES:
        raise CaptureFileError("the encrypted capture file is cut off inside its header")
    magic, identity, salt = _BEGINNING.unpack_from(data)
    if magic != ENCRYPTED_MAGIC or _CHECKSUM.unpack_from(data, _BEGINNING.size)[0] != crc32(data[: _BEGINNING.size]):
        raise CaptureFileError("the encrypted capture file's header is damaged: its checksum does not fit")
    return SealedFile(identity, salt, tuple(_frames(data)))


def _is_ours_but_for_its_version(data: bytes) -> bool:
    """Whether damage, and no other version, made the digit another one."""
    ours = ENCRYPTED_MAGIC + data[len(ENCRYPTED_MAGIC) : _BEGINNING.size]
    return len(data) >= BEGINNING_BYTES and _CHECKSUM.unpack_from(data, _BEGINNING.size)[0] == crc32(ours)


def _frames(data: bytes) -> Iterator[Frame]:
    position, least = BEGINNING_BYTES, 0
    while 0 <= position <= len(data) - FRAME_OVERHEAD_BYTES:
        frame = _frame_at(data, position)
        if frame is None or frame.counter < least:
            position = data.find(_MARK, position + 1)
            continue
        yield frame
        position, least = frame.end, frame.counter + 1


def _frame_at(data: bytes, position: int) -> Frame | None:
    mark, records, counter, size = _HEAD.unpack_from(data, position)
    if mark != _MARK:
        return None
    end = position + FRAME_HEAD_BYTES + size
    if size < _TAG_BYTES or end > len(data):
        return None
    if _CHECKSUM.unpack_from(data, position + _HEAD.size)[0] != crc32(data[position : position + _HEAD.size]):
        return None
    return Frame(position, end, counter, records)


@dataclass(frozen=True)
class Opened:
    """A decrypted file, and where its last authentic frame ends."""

    plain: bytes
    good_end: int


def open_sealed(data: bytes, keyring: Keyring) -> Opened:
    """Decrypts what is authentic. Raises CaptureKeyMissing; CaptureFileError when the file says nothing reliable."""
    from cryptography.exceptions import InvalidTag

    sealed = find_frames(data)
    key = keyring.find(sealed.key_id)
    if key is None:
        raise CaptureKeyMissing(sealed.key_id.hex(), any(keyring.keys))
    decrypt = _cipher(key, sealed.salt).decrypt
    view = memoryview(data)
    plain: list[bytes] = []
    good_end = BEGINNING_BYTES
    for frame in sealed.frames:
        head = view[frame.start : frame.start + _HEAD.size]
        try:
            text = decrypt(_NONCE.pack(0, frame.counter), view[frame.start + FRAME_HEAD_BYTES : frame.end], head)
        except InvalidTag:
            continue
        if not plain and frame.counter != 0:
            break
        plain.append(text)
        good_end = frame.end
    if not plain:
        raise CaptureFileError(
            "the first frame of the encrypted capture file is damaged: nobody knows whose data it is"
        )
    return Opened(b"".join(plain), good_end)


def plain_bytes(data: bytes, keyring: Keyring) -> bytes:
    """The Viam-format bytes of a capture file, encrypted or not. Raises as `open_sealed`."""
    return open_sealed(data, keyring).plain if is_encrypted(data) else data


def read_plain(path: Path | str, keyring: Keyring) -> bytes:
    """`plain_bytes` of a file. Raises OSError too."""
    return plain_bytes(Path(path).read_bytes(), keyring)
