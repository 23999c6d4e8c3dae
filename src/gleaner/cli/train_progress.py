"""What `gleaner train` shows while it runs: a bar, the last figures and their curve; plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_BLOCKS = "▁▂▃▄▅▆▇█"
_CURVE = 48
_EVERY = 500


class Progress(Protocol):
    def reads(self, pictures: int) -> None: ...
    def starts(self, task: str, labels: list[str], pictures: int, seconds: float) -> None: ...
    def warns(self, text: str) -> None: ...
    def hears(self, message: dict[str, Any]) -> None:
        """One event of the run (docs/architecture.md, "Training run")."""


@contextmanager
def progress_for(quiet: bool) -> Iterator[Progress]:
    """On stderr: stdout has the result."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _Lines(console, quiet)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield _Screen(live)


class _Lines:
    """For logs: phases, warnings, and nothing that moves."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self._console, self._quiet, self._phase = console, quiet, ""

    def reads(self, pictures: int) -> None:
        if pictures % _EVERY == 0:
            self._say(f"{pictures:,} pictures read")

    def starts(self, task: str, labels: list[str], pictures: int, seconds: float) -> None:
        self._say(_headline(task, labels, pictures, seconds))

    def warns(self, text: str) -> None:
        self._say(f"warning: {text}")

    def hears(self, message: dict[str, Any]) -> None:
        match message["event"]:
            case "warning":
                self.warns(str(message.get("message", "")))
            case "log":
                self._say(str(message.get("message", "")))
            case _:
                return

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Screen:
    def __init__(self, live: Live) -> None:
        self._live = live
        self._head = "reading the pictures"
        self._phase, self._share, self._eta_s = "", 0.0, 0.0
        self._scores: list[float] = []
        self._last: dict[str, Any] = {}

    def reads(self, pictures: int) -> None:
        if pictures % 20 == 0:
            self._head = f"reading the pictures: {pictures:,}"
            self._draw()

    def starts(self, task: str, labels: list[str], pictures: int, seconds: float) -> None:
        self._live.console.print(_headline(task, labels, pictures, seconds), markup=False, highlight=False)
        self._head = ""
        self._draw()

    def warns(self, text: str) -> None:
        self._live.console.print(Text(text, style="yellow"))

    def hears(self, message: dict[str, Any]) -> None:
        match message["event"]:
            case "progress":
                self._phase, self._share = str(message["phase"]), float(message["fraction"])
                self._eta_s = float(message["eta_s"] or 0)
            case "metrics":
                self._last = message
                if message.get("validation_accuracy") is not None:
                    self._scores.append(float(message["validation_accuracy"]))
            case "warning":
                self.warns(str(message.get("message", "")))
            case _:
                return
        self._draw()

    def _draw(self) -> None:
        if self._head:
            self._live.update(Text(self._head))
            return
        bar = Table.grid(padding=(0, 2))
        left = f"{self._eta_s:.0f} s left" if self._eta_s else ""
        bar.add_row(self._phase, ProgressBar(1.0, self._share, width=30), f"{self._share:.0%}", left)
        lines: list[Any] = [bar]
        if self._last:
            held = f"held-out {self._scores[-1]:.1%}  {curve(self._scores)}" if self._scores else ""
            told = f"step {self._last['step']:,}  loss {self._last['train_loss']:.3f}  {held}"
            lines.append(Text(told))
        self._live.update(Group(*lines))


def curve(scores: list[float]) -> str:
    """Shares, 0–1, as little bars, the last at the right."""
    stride = max(1, -(-len(scores) // _CURVE))
    shown = scores[::-1][::stride][::-1]
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, int(score * len(_BLOCKS)))] for score in shown)


def _headline(task: str, labels: list[str], pictures: int, seconds: float) -> str:
    named = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
    kind = task.replace("_", " ").replace("single label", "single-label").replace("multi label", "multi-label")
    return f"{kind}: {named}; {pictures:,} pictures, {seconds:.0f} s"
