"""What keeps files from being sent although the app is there, in words: for who asked for a sync, and for the ledger."""

from __future__ import annotations

import logging
import threading

_REMEMBERED = 256


class Problems:
    """Any thread."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._last = ""
        self._unreadable: dict[str, str] = {}
        self._waits: dict[str, str] = {}
        self.count = 0
        """How many files could not be sent so far: set aside, not readable, not taken."""

    def note(self, words: str) -> None:
        """One file could not be sent."""
        with self._lock:
            self.count += 1
            self._last = words

    def unreadable(self, path: str, error: OSError) -> None:
        """It stays and is tried again with every pass; said once for as long as there are such files."""
        words = f"{path} cannot be read ({error.strerror}): give the machine's user the right to"
        self.note(words)
        with self._lock:
            if not self._unreadable:
                self._log.warning("%s", words)
            if len(self._unreadable) < _REMEMBERED:
                self._unreadable[path] = words

    def readable(self, path: str) -> None:
        """Or gone."""
        if self._unreadable:
            with self._lock:
                self._unreadable.pop(path, None)

    def wait(self, why: str, words: str) -> None:
        """Files stay here until somebody mends `why` (a key, say) and the machine looks at them anew."""
        with self._lock:
            self._waits[why] = words

    @property
    def words(self) -> str:
        """What waits although the app is there; empty when nothing does."""
        with self._lock:
            found = [*self._waits.values(), *list(self._unreadable.values())[:1]]
        return "; ".join(found)

    def words_since(self, count: int) -> str:
        """What to say to somebody for whom everything should have been sent since `count` was read; "" if it was."""
        failed = self.count - count
        if failed <= 0:
            return self.words
        what = "one file was not sent" if failed == 1 else f"{failed} files were not sent, the last one"
        return f"{what}: {self._last}"
