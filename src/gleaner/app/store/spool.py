"""The spool: uploads too big for memory while they arrive, encrypted, resumable by name.

Layout: `data_dir/spool/<name>.part` = u16 length | wrapped key | frames; a frame = u32 plaintext length | nonce | ciphertext.
A frame counts once it is whole: opening a file reads it through and cuts a torn tail, so `size` is what is really there.
Written by one upload at a time; deleted when its bytes are in a pack, when its upload breaks off (unnamed ones), and at
start (unnamed ones, and named ones nobody touched for a week). A crash leaves a file that the sender continues or that is collected.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gleaner.app.keys import KeyProblem, Keys
from gleaner.app.store.payload import CHUNK_BYTES

_LENGTH = struct.Struct("<I")
_KEY_LENGTH = struct.Struct("<H")
_NONCE = 12
_TAG = 16
_MAX_FRAME = 16 << 20
_PURPOSE = "spool"
_UNNAMED = "upload-"
_ABANDONED_S = 7 * 86400


class Spool:
    def __init__(self, folder: Path, keys: Keys) -> None:
        self._folder = folder
        self._keys = keys
        self._lock = threading.Lock()
        self._named: weakref.WeakValueDictionary[str, SpoolFile] = weakref.WeakValueDictionary()

    def start(self, now_s: float | None = None) -> None:
        """Collects what no upload will continue. At process start only."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        oldest = (time.time() if now_s is None else now_s) - _ABANDONED_S
        for file in self._folder.iterdir():
            if file.name.startswith(_UNNAMED) or file.stat().st_mtime < oldest:
                file.unlink(missing_ok=True)

    def create(self) -> SpoolFile:
        """An unnamed file for an upload that cannot be resumed."""
        return SpoolFile(self._folder / f"{_UNNAMED}{uuid.uuid4().hex}.part", self._keys)

    def open(self, name: str) -> SpoolFile:
        """The file of a resumable upload, continued where it really ends. `name` is made of hex digits only.

        Whoever had it open before (a connection that is dead but not closed yet) can add nothing any more.
        """
        int(name, 16)
        with self._lock:
            if before := self._named.pop(name, None):
                before.close()
            file = self._named[name] = SpoolFile(self._folder / f"{name}.part", self._keys)
        return file


class SpoolFile:
    """A payload on disk. One thread at a time, except that any may close it."""

    def __init__(self, path: Path, keys: Keys) -> None:
        self._path = path
        self._closing = threading.Lock()
        self._first = 0
        self._frames: list[tuple[int, int]] = []  # (position in the file, plaintext length)
        self._size = 0
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._cipher = self._open_key(keys)

    @property
    def size(self) -> int:
        return self._size

    @property
    def in_memory(self) -> int:
        return CHUNK_BYTES

    def append(self, data: bytes, *, durable: bool = False) -> None:
        """Adds at the end; with `durable` the bytes survive a power cut once this returns. Raises OSError."""
        with self._closing:
            self._append(data, durable=durable)

    def _append(self, data: bytes, *, durable: bool) -> None:
        if data:
            nonce = os.urandom(_NONCE)
            frame = _LENGTH.pack(len(data)) + nonce + self._cipher.encrypt(nonce, data, None)
            position = self._end()
            _write_all(self._handle, frame, position)
            self._frames.append((position, len(data)))
            self._size += len(data)
        if durable:
            os.fdatasync(self._handle)

    def lengths(self) -> list[int]:
        """Plaintext bytes of each frame, for readers that do not start at the front."""
        return [length for _, length in self._frames]

    def frame(self, number: int) -> bytes:
        return self._read_frame(*self._frames[number])

    def frames(self) -> Iterator[bytes]:
        for position, length in self._frames:
            yield self._read_frame(position, length)

    def chunks(self) -> Iterator[bytes]:
        pending = bytearray()
        for frame in self.frames():
            pending += frame
            while len(pending) >= CHUNK_BYTES:
                yield bytes(pending[:CHUNK_BYTES])
                del pending[:CHUNK_BYTES]
        if pending:
            yield bytes(pending)

    def head(self, length: int) -> bytes:
        found = bytearray()
        for frame in self.frames():
            found += frame
            if len(found) >= length:
                break
        return bytes(found[:length])

    def read_all(self) -> bytes:
        return b"".join(self.frames())

    def discard(self) -> None:
        self.close()
        self._path.unlink(missing_ok=True)

    def abandon(self) -> None:
        if self._path.name.startswith(_UNNAMED):
            self.discard()
        else:
            self.close()

    def close(self) -> None:
        """Lets go of the file and keeps it, to be continued later."""
        with self._closing:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1

    def _open_key(self, keys: Keys) -> AESGCM:
        start = os.pread(self._handle, 1024, 0)
        if len(start) >= _KEY_LENGTH.size:
            (length,) = _KEY_LENGTH.unpack_from(start)
            wrapped = start[_KEY_LENGTH.size : _KEY_LENGTH.size + length]
            try:
                cipher = AESGCM(keys.unwrap(wrapped, _PURPOSE))
            except KeyProblem:
                pass  # torn while it was made, or of another key: nothing in it was acknowledged for good, start over
            else:
                self._first = _KEY_LENGTH.size + length
                self._scan(cipher)
                return cipher
        key = AESGCM.generate_key(256)
        wrapped = keys.wrap(key, _PURPOSE)
        os.ftruncate(self._handle, 0)
        _write_all(self._handle, _KEY_LENGTH.pack(len(wrapped)) + wrapped, 0)
        self._first = _KEY_LENGTH.size + len(wrapped)
        return AESGCM(key)

    def _scan(self, cipher: AESGCM) -> None:
        self._cipher = cipher
        position, end = self._first, os.fstat(self._handle).st_size
        while position + _LENGTH.size <= end:
            (length,) = _LENGTH.unpack(os.pread(self._handle, _LENGTH.size, position))
            if length > _MAX_FRAME or position + _LENGTH.size + _NONCE + length + _TAG > end:
                break
            try:
                self._read_frame(position, length)
            except InvalidTag:
                break
            self._frames.append((position, length))
            self._size += length
            position = self._end()
        os.ftruncate(self._handle, self._end())

    def _read_frame(self, position: int, length: int) -> bytes:
        sealed = os.pread(self._handle, _NONCE + length + _TAG, position + _LENGTH.size)
        return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)

    def _end(self) -> int:
        if not self._frames:
            return self._first
        position, length = self._frames[-1]
        return position + _LENGTH.size + _NONCE + length + _TAG


def _write_all(handle: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, position)
        view, position = view[written:], position + written
