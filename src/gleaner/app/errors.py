"""Errors that services raise and both doors (REST and gRPC) translate.

AppError
├── InvalidInput        the request can never work as it is          400 / INVALID_ARGUMENT
│   └── ConfigRejected  a machine configuration, with each problem   422 / INVALID_ARGUMENT
├── Unauthenticated     no credentials, or they are not known        401 / UNAUTHENTICATED
├── PermissionDenied    known, but the role does not allow it        403 / PERMISSION_DENIED
├── NotFound            no such thing, or not visible to the caller  404 / NOT_FOUND
├── Conflict            exists already, or changed meanwhile         409 / ALREADY_EXISTS
├── TooLarge            over a stated limit                          413 / RESOURCE_EXHAUSTED
├── TookTooLong         stopped after a stated time                  504 / DEADLINE_EXCEEDED
├── Stopped             whoever asked has stopped it, or is gone     499 / CANCELLED
├── Unsupported         this app has no such thing, by design        501 / UNIMPLEMENTED
└── Unavailable         may work later: retry                        503 / UNAVAILABLE
    └── DamagedReadings a lake file is damaged; made again from its batches
"""

from __future__ import annotations

from dataclasses import dataclass


class AppError(Exception):
    """What failed, on what and why (`message`), and what the user can do next (`hint`)."""

    code = "internal"
    http_status = 500
    grpc_status = 13

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidInput(AppError):
    code, http_status, grpc_status = "invalid_input", 400, 3


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a machine configuration; `path` is written like `components[0].attributes.width_px`."""

    path: str
    message: str
    hint: str = ""


class ConfigRejected(InvalidInput):
    code, http_status = "config_rejected", 422

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first.path}: {first.message}{more}", first.hint)
        self.problems = problems


class Unauthenticated(AppError):
    code, http_status, grpc_status = "unauthenticated", 401, 16


class PermissionDenied(AppError):
    code, http_status, grpc_status = "permission_denied", 403, 7


class NotFound(AppError):
    code, http_status, grpc_status = "not_found", 404, 5


class Conflict(AppError):
    code, http_status, grpc_status = "conflict", 409, 6


class TooLarge(AppError):
    code, http_status, grpc_status = "too_large", 413, 8


class TookTooLong(AppError):
    code, http_status, grpc_status = "took_too_long", 504, 4


class Stopped(AppError):
    # 499 is nobody's standard; nginx's logs made it known. Nobody is there to read it.
    code, http_status, grpc_status = "stopped", 499, 1


class Unsupported(AppError):
    code, http_status, grpc_status = "unsupported", 501, 12


class Unavailable(AppError):
    code, http_status, grpc_status = "unavailable", 503, 14


class DamagedReadings(Unavailable):
    """A lake file that a query read cannot be opened. What it was made of is in other packs (`app/lake/mending.py`)."""
