"""Keys at rest. One key-encryption key (KEK) protects every other key.

Where the KEK comes from, first match wins: `GLEANER_KEY` in the environment (64 hex digits or base64 of 32 bytes), the
output of `key_command` (same forms; a KMS or password manager), else `data_dir/keys/kek`, made on first start.
Every other key is random and stored wrapped (AES-256-GCM under the KEK, bound to its purpose): the metadata database's and
the token-signing key in `data_dir/keys/<name>.wrapped`, one data key per pack inside the pack and in the metadata.

Rotation gives a new KEK and rewrites no data: `keys/older-<id>.wrapped` holds every earlier KEK wrapped by the one whose id
it names, and what an earlier one protects is opened through it. Written before the new KEK takes over, so a crash at any
instant leaves keys that open everything. A KEK's id is the start of a keyed hash: it tells keys apart and gives nothing away.

Only this module writes in `data_dir/keys` (0700, files 0600). A crash while making a key leaves a `.tmp` file that is
ignored and overwritten. Losing the KEK makes the data unreadable for good; nothing here ever deletes a key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
_OLDER = "older key-encryption keys"


class KeyProblem(Exception):
    """The keys cannot be used as they are; the message says what to do. The app refuses to start."""


@dataclass(frozen=True)
class Keys:
    """The unwrapped keys of a running app. `wrap` and `unwrap` protect further keys, each bound to its purpose."""

    database: bytes = field(repr=False)
    tokens: bytes = field(repr=False)
    _kek: bytes = field(repr=False)
    _older: tuple[bytes, ...] = field(default=(), repr=False)
    """Earlier KEKs, newest first."""

    @classmethod
    def open(cls, data_dir: Path, environment: Mapping[str, str], key_command: str = "") -> Keys:
        """Reads the keys of `data_dir`, making what does not exist yet. Raises KeyProblem."""
        folder = data_dir / "keys"
        for path in (data_dir, folder):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(0o700)
        kek = _find_kek(folder, environment, key_command)
        older = _older_keks(folder, kek)
        return cls(
            database=_wrapped_key(folder, "database", kek, older),
            tokens=_wrapped_key(folder, "tokens", kek, older),
            _kek=kek,
            _older=older,
        )

    @property
    def kek_id(self) -> str:
        """Tells key-encryption keys apart without giving anything away."""
        return kek_id(self._kek)

    def wrap(self, key: bytes, purpose: str) -> bytes:
        return wrap(self._kek, key, purpose)

    def unwrap(self, wrapped: bytes, purpose: str) -> bytes:
        """Raises KeyProblem when the key was wrapped for something else or by a KEK that was never ours."""
        return _unwrap_by_any((self._kek, *self._older), wrapped, purpose)

    def rotated(self, data_dir: Path, new_kek: bytes) -> Keys:
        """Lets `new_kek` open everything these keys open; durable when it returns. The current KEK still does, too."""
        folder = data_dir / "keys"
        older = (self._kek, *(kek for kek in self._older if kek != new_kek))
        sealed = wrap(new_kek, json.dumps([kek.hex() for kek in older]).encode(), _OLDER)
        write_private(folder / f"older-{kek_id(new_kek)}.wrapped", sealed)
        return Keys(self.database, self.tokens, new_kek, older)

    def take_over(self, data_dir: Path) -> None:
        """Makes these keys' KEK the one in `keys/kek`: what comes from the environment or a command goes before it."""
        write_private(data_dir / "keys" / "kek", self._kek.hex().encode() + b"\n")


def kek_id(kek: bytes) -> str:
    return hashlib.blake2b(b"gleaner key-encryption key", key=kek, digest_size=8).hexdigest()


def new_kek() -> bytes:
    return os.urandom(KEY_BYTES)


def wrap(kek: bytes, key: bytes, purpose: str) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(kek).encrypt(nonce, key, purpose.encode())


def unwrap(kek: bytes, wrapped: bytes, purpose: str) -> bytes:
    return _unwrap_by_any((kek,), wrapped, purpose)


def parse_kek(text: str, source: str) -> bytes:
    """32 bytes from 64 hex digits or base64; `source` names where they came from. Raises KeyProblem."""
    text = text.strip()
    try:
        key = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != KEY_BYTES:
        raise KeyProblem(
            f"{source} is not a key: expected 64 hex digits or base64 of 32 bytes (`openssl rand -hex 32` makes one)."
        )
    return key


def run_key_command(command: str) -> bytes:
    """The key a command prints. Raises KeyProblem."""
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=30, check=True)
    except (OSError, ValueError, subprocess.SubprocessError) as err:
        raise KeyProblem(f"The key command `{command}` failed: {err}. Run it by hand to see why.") from err
    return parse_kek(done.stdout, "the key command's output")


def _unwrap_by_any(keks: Sequence[bytes], wrapped: bytes, purpose: str) -> bytes:
    for kek in keks:
        try:
            return AESGCM(kek).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], purpose.encode())
        except (InvalidTag, ValueError):
            continue
    raise KeyProblem(
        f"The key for {purpose} cannot be opened: it was protected by another key-encryption key. "
        "Start with the GLEANER_KEY, key command or keys/kek file this data was made with."
    )


def _find_kek(folder: Path, environment: Mapping[str, str], key_command: str) -> bytes:
    if text := environment.get("GLEANER_KEY", ""):
        return parse_kek(text, "GLEANER_KEY")
    if key_command:
        return run_key_command(key_command)
    path = folder / "kek"
    if not path.exists():
        if any(folder.glob("*.wrapped")):
            raise KeyProblem(
                f"{path} is missing, but {folder} holds keys it protects. Put the file back from your backup, "
                "or set GLEANER_KEY to its content."
            )
        write_private(path, new_kek().hex().encode() + b"\n")
    _refuse_if_readable_by_others(path)
    return parse_kek(path.read_text(), str(path))


def _older_keks(folder: Path, kek: bytes) -> tuple[bytes, ...]:
    path = folder / f"older-{kek_id(kek)}.wrapped"
    if not path.exists():
        return ()
    _refuse_if_readable_by_others(path)
    return tuple(bytes.fromhex(text) for text in json.loads(unwrap(kek, path.read_bytes(), _OLDER)))


def _wrapped_key(folder: Path, name: str, kek: bytes, older: Sequence[bytes]) -> bytes:
    path = folder / f"{name}.wrapped"
    if not path.exists():
        write_private(path, wrap(kek, os.urandom(KEY_BYTES), name))
    _refuse_if_readable_by_others(path)
    sealed = path.read_bytes()
    key = _unwrap_by_any((kek, *older), sealed, name)
    try:
        unwrap(kek, sealed, name)
    except KeyProblem:  # the first start after a rotation: an earlier KEK opens it no more
        write_private(path, wrap(kek, key, name))
    return key


def _refuse_if_readable_by_others(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise KeyProblem(
            f"{path} can be read by others (mode {mode:04o}). Make it private: chmod 600 {shlex.quote(str(path))}"
        )


def write_private(path: Path, content: bytes) -> None:
    """Writes a file only its owner can read; durable and complete or not there at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
