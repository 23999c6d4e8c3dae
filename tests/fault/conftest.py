from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_loop import Loop, wait_for


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where the computer has such a folder: for thousands of files whose disk is played by the test itself."""
    shared_memory = Path("/dev/shm")
    if not os.access(shared_memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="gleaner-test-", dir=shared_memory) as made:
        yield Path(made)


@pytest.fixture
def loop(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Loop]:
    """An app and a machine whose first picture has arrived."""
    web, grpc, machine = free_ports(3)
    made = Loop(tmp_path, (web, grpc, machine))
    made.app.start()
    try:
        made.log_in()
        made.set_up()
        made.machine.start()
        wait_for(made.items, 60, lambda: "no first picture: " + made.machine.log.read_text()[-2000:])
        yield made
    finally:
        made.machine.stop()
        made.app.stop()
