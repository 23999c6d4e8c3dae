"""How the commands print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Of a pipe or a file: a table that is folded to 80 columns there cuts names that somebody searches for.
_WIDE = 240


def output() -> Console:
    """A rich console on the output: as wide as the terminal, and never folding what goes to a program or a file."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_WIDE)


def counted(number: int, noun: str) -> str:
    """`1 picture`, `1,200 pictures`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
