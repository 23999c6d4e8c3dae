"""Keys at rest. One key-encryption key (KEK) protects every other key.

Where the KEK comes from, first match wins: `GLEANER_KEY` in the environment (64 hex digits or base64 of 32 bytes), the
output of `key_command` (same forms; a KMS or password manager), else `data_dir/keys/kek`, made on first start.
Every other key is random and stored wrapped (AES-256-GCM under the KEK, bound to its purpose): the metadata database's and
the token-signing key in `data_dir/keys/<name>.wrapped`, one data key per pack inside the pack and in the metadata.

Only this module writes in `data_dir/keys` (0700, files 0600). A crash while making a key leaves a `.tmp` file that is
ignored and overwritten. Losing the KEK makes the data unreadable for good; nothing here ever deletes a key.
"""

from __future__ import annotations

import base64
import binascii
import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


class KeyProblem(Exception):
    """The keys cannot be used as they are; the message says what to do. The app refuses to start."""


@dataclass(frozen=True)
class Keys:
    """The unwrapped keys of a running app. `wrap` and `unwrap` protect further keys, each bound to its purpose."""

    database: bytes = field(repr=False)
    tokens: bytes = field(repr=False)
    _kek: bytes = field(repr=False)

    @classmethod
    def open(cls, data_dir: Path, environment: Mapping[str, str], key_command: str = "") -> Keys:
        """Reads the keys of `data_dir`, making what does not exist yet. Raises KeyProblem."""
        folder = data_dir / "keys"
        for path in (data_dir, folder):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(0o700)
        kek = _find_kek(folder, environment, key_command)
        return cls(
            database=_wrapped_key(folder, "database", kek),
            tokens=_wrapped_key(folder, "tokens", kek),
            _kek=kek,
        )

    def wrap(self, key: bytes, purpose: str) -> bytes:
        return wrap(self._kek, key, purpose)

    def unwrap(self, wrapped: bytes, purpose: str) -> bytes:
        """Raises KeyProblem when the key was wrapped for something else or by another KEK."""
        return unwrap(self._kek, wrapped, purpose)


def wrap(kek: bytes, key: bytes, purpose: str) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(kek).encrypt(nonce, key, purpose.encode())


def unwrap(kek: bytes, wrapped: bytes, purpose: str) -> bytes:
    try:
        return AESGCM(kek).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], purpose.encode())
    except (InvalidTag, ValueError) as err:
        raise KeyProblem(
            f"The key for {purpose} cannot be opened: it was protected by another key-encryption key. "
            "Start with the GLEANER_KEY, key command or keys/kek file this data was made with."
        ) from err


def _find_kek(folder: Path, environment: Mapping[str, str], key_command: str) -> bytes:
    if text := environment.get("GLEANER_KEY", ""):
        return _parse(text, "GLEANER_KEY")
    if key_command:
        return _parse(_run(key_command), "the key command's output")
    path = folder / "kek"
    if not path.exists():
        if any(folder.glob("*.wrapped")):
            raise KeyProblem(
                f"{path} is missing, but {folder} holds keys it protects. Put the file back from your backup, "
                "or set GLEANER_KEY to its content."
            )
        write_private(path, os.urandom(KEY_BYTES).hex().encode() + b"\n")
    _refuse_if_readable_by_others(path)
    return _parse(path.read_text(), str(path))


def _run(command: str) -> str:
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as err:
        raise KeyProblem(f"The key command `{command}` failed: {err}. Run it by hand to see why.") from err
    return done.stdout


def _parse(text: str, source: str) -> bytes:
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


def _wrapped_key(folder: Path, name: str, kek: bytes) -> bytes:
    path = folder / f"{name}.wrapped"
    if not path.exists():
        write_private(path, wrap(kek, os.urandom(KEY_BYTES), name))
    _refuse_if_readable_by_others(path)
    return unwrap(kek, path.read_bytes(), name)


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
