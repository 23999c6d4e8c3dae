"""A training that takes too much memory is ended with its reason, whoever of its family took it."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from gleaner.app.services.job_memory import used_mb, usual_limit_mb
from gleaner.app.services.job_runner import TrainingRun

GREEDY = "import time\nkept = bytearray(b'x') * (400 << 20)\nprint('taken', flush=True)\ntime.sleep(60)"
BY_A_CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {GREEDY!r}])"
MODEST = "import json, time\ntime.sleep(2.5)\nprint(json.dumps({'event': 'done'}))"


@pytest.mark.parametrize("program", [GREEDY, BY_A_CHILD])
def test_the_whole_family_counts(program: str, tmp_path: Path) -> None:
    result = TrainingRun((sys.executable, "-c", program), tmp_path, memory_mb=200).run(lambda _: None)
    assert result.exit_code == -9 and not result.is_done
    assert result.failure is not None
    assert "MB of memory and may use 200 MB" in result.failure["message"]
    assert "--training-memory-mb" in result.failure["hint"]


def test_less_is_left_alone(tmp_path: Path) -> None:
    result = TrainingRun((sys.executable, "-c", MODEST), tmp_path, memory_mb=200).run(lambda _: None)
    assert (result.is_done, result.failure) == (True, None)


def test_the_system_would_end_the_training_first(tmp_path: Path) -> None:
    program = "import json\nprint(json.dumps({'event': 'log', 'message': open('/proc/self/oom_score_adj').read()}))"
    heard: list[str] = []
    wait = f"import time\ntime.sleep(0.5)\n{program}"
    TrainingRun((sys.executable, "-c", wait), tmp_path).run(lambda message: heard.append(str(message.get("message"))))
    assert heard[0].strip() == "500"


def test_the_usual_limit_leaves_a_quarter_of_the_computer() -> None:
    assert 0 < usual_limit_mb() <= psutil.virtual_memory().total * 0.75 / (1 << 20)
    assert used_mb(2**22 + 1) == 0  # nobody has that number
