"""Errors of capturing.

CaptureError
├── CaptureDirectoryBusy     another machine process owns the directory: stop that one, or choose another directory
├── MethodNotCapturable      the configuration names a method that does not exist there: fix the configuration
├── BadCaptureParameters     `additional_params` are missing or wrong: fix the configuration
├── CaptureKeyMissing        a file is encrypted with a key that this machine does not have: add the key, the file waits
│   └── CaptureFromNewer     a file has a format that this version does not know: update, the file waits
└── BadCaptureKey            the configured key cannot be used: its message says why

A driver's own errors are not wrapped: they become the collector's `last_error`, and the next tick tries again.
"""

from __future__ import annotations


class CaptureError(Exception):
    """Base of this package's errors; the message says what to do next."""


class CaptureDirectoryBusy(CaptureError):
    pass


class MethodNotCapturable(CaptureError):
    pass


class BadCaptureParameters(CaptureError):
    pass


class CaptureKeyMissing(CaptureError):
    """Nothing is lost: the file stays where it is until its key is there."""

    def __init__(self, key_id: str, has_keys: bool) -> None:
        self.key_id = key_id
        which = "another key" if has_keys else "a key, and none is configured"
        super().__init__(
            f"the capture file is encrypted with {which} (id {key_id}): add that key behind the current one, on a line "
            "of its own, where `encryption` of the data manager says"
        )


class CaptureFromNewer(CaptureKeyMissing):
    """Written by a version that came after this one; for those who ask, its key is missing."""

    def __init__(self, version: str) -> None:
        self.key_id = f"version {version}"
        CaptureError.__init__(
            self,
            f"a newer version of Gleaner has written capture files of format {version}, which this version cannot read: "
            "they stay until the machine runs that version again",
        )


class BadCaptureKey(CaptureError):
    pass
