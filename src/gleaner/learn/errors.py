"""What ends a run.

RunProblem   the user must change something; message and hint go to the page
Canceled     SIGTERM or SIGINT; a BaseException, so that no handler on the way swallows it
"""

from __future__ import annotations


class RunProblem(Exception):
    """Training cannot go on: `message` says what and why, `hint` what to do next."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Canceled(BaseException):
    """The run was asked to stop."""
