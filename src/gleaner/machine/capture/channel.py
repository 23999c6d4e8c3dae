"""What passes from a collector to the writer, and what the writer keeps of each collector."""

from __future__ import annotations

from dataclasses import dataclass, field

from gleaner.machine.capture.directory import Waiting
from gleaner.machine.capture.sink import Sink


@dataclass(frozen=True, slots=True)
class Record:
    """One SensorData to write, in parts so that no picture is copied."""

    header: bytes
    parts: tuple[bytes, ...]
    size_bytes: int


@dataclass(eq=False)
class Channel:
    """What the writer knows of one collector."""

    sink: Sink
    is_binary: bool
    queue_limit: int
    lost: Waiting = field(default_factory=Waiting)
    """Written, then gone before the file was complete."""
    lost_by_hour: dict[int, Waiting] = field(default_factory=dict)
    pending: int = 0
    waiting: list[Record] = field(default_factory=list)
    write_error: str = ""
    settle_error: str = ""

    @property
    def error(self) -> str:
        """The last write's error, empty when it went well."""
        return self.write_error or self.settle_error

    def note_write_error(self, message: str) -> bool:
        """Whether this is news. The same trouble with the next file, named behind it in brackets, is none."""
        is_news = self.write_error.partition(" (")[0] != message.partition(" (")[0]
        self.write_error = message
        return is_news
