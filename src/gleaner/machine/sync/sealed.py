"""Captures that are encrypted on the disk (`capture/at_rest.py`), read in plain: TLS protects them on the line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from gleaner.machine.capture.at_rest import Keyring, is_encrypted, plain_bytes
from gleaner.machine.capture.errors import CaptureKeyMissing
from gleaner.machine.sync.scan import Candidate
from gleaner.wire.capture_file import ENCRYPTED_MAGIC


class SealedFiles:
    """Not for use by several threads at once."""

    def __init__(self, keyring: Keyring, log: logging.Logger) -> None:
        self._keyring = keyring
        self._log = log
        self._missing: set[str] = set()
        self._big: tuple[Candidate, bytes] | None = None
        """The big file that is being sent in pieces, so that it is decrypted once."""

    def plain(self, content: bytes) -> bytes:
        """Of an encrypted file or any other. Raises CaptureKeyMissing (said once a key), CaptureFileError."""
        try:
            return plain_bytes(content, self._keyring)
        except CaptureKeyMissing as missing:
            if missing.key_id not in self._missing:
                self._missing.add(missing.key_id)
                self._log.error("captures wait on this machine: %s", missing)
            raise

    def piece(
        self, candidate: Candidate, offset: int, size: int, read: Callable[[Candidate], bytes | None]
    ) -> bytes | None:
        """Bytes of the plain text of a big file; None when it cannot be read (any more)."""
        with Path(candidate.path).open("rb") as file:
            if not is_encrypted(file.read(len(ENCRYPTED_MAGIC))):
                file.seek(offset)
                return file.read(size)
        if self._big is None or self._big[0] != candidate:
            content = read(candidate)
            if content is None:
                return None
            self._big = candidate, content
        content = self._big[1]
        if offset + size >= len(content):
            self._big = None
        return content[offset : offset + size]
