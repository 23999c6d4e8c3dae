"""What `gleaner data` draws fits the terminal, whatever its width, and no number is cut off."""

from __future__ import annotations

import io
import os
import pty
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.cli.data import progress_columns
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import ReadingEncoder


@pytest.mark.parametrize("width", [20, 30, 50, 80, 200])
def test_a_progress_bar_fits_on_one_line_with_whole_numbers(width: int) -> None:
    drawn = io.StringIO()
    progress = Progress(*progress_columns(width), console=Console(file=drawn, width=width, color_system=None))
    progress.add_task("exporting", total=1_000_000, completed=123_456)
    progress.console.print(progress.get_renderable())
    [line] = drawn.getvalue().splitlines()
    assert len(line) <= width
    assert "…" not in line
    assert ("12%" if width < 50 else "123456/1000000") in line


def in_terminal(columns: int, *words: str) -> str:
    """What a command writes to a real pseudo-terminal of that width."""
    near, far = pty.openpty()
    try:
        ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        command = [sys.executable, "-m", "gleaner.cli.main", *words]
        with subprocess.Popen(
            command, stdin=far, stdout=far, stderr=far, env={**environment, "TERM": "dumb"}
        ) as process:
            os.close(far)
            far = -1
            written = b""
            while piece := _read(near):
                written += piece
        assert process.returncode == 0, written
        return written.decode()
    finally:
        os.close(near)
        if far >= 0:
            os.close(far)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: nobody has the other end open any more
        return b""


@pytest.mark.parametrize("columns", [50, 120])
def test_a_list_of_captures_is_whole_in_a_narrow_terminal(tmp_path: Path, columns: int) -> None:
    folder = tmp_path / "rdk_component_sensor" / "imu" / "Readings"
    folder.mkdir(parents=True)
    header = encode_header(DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR))
    records = [encode_record(ReadingEncoder().encode(1, 2, {"readings": {"n": n}})) for n in range(1234)]
    path = folder / "a.capture"
    path.write_bytes(header + b"".join(records))
    shown = in_terminal(columns, "data", "ls", str(tmp_path))
    assert "1,234" in shown
    assert f"{path.stat().st_size:,}" in shown
    assert "…" not in shown
