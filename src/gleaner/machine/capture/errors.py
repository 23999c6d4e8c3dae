"""Errors of capturing.

CaptureError
├── CaptureDirectoryBusy     another machine process owns the directory: stop that one, or choose another directory
├── MethodNotCapturable      the configuration names a method that does not exist there: fix the configuration
└── BadCaptureParameters     `additional_params` are missing or wrong: fix the configuration

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
