"""A test that fails among others and passes alone does not hold up `make test`, and is named."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "tests.py"
UNSTABLE = """
from pathlib import Path

def test_right():
    pass

def test_unstable():
    seen = Path(__file__).with_suffix(".seen")
    if not seen.exists():
        seen.touch()
        raise AssertionError("the first time only")
"""
BROKEN = "def test_broken():\n    raise AssertionError\n"
MANY = "import pytest\n@pytest.mark.parametrize('n', range(5))\ndef test_broken(n):\n    raise AssertionError\n"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tests_script", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcome(script: ModuleType, folder: Path, **files: str) -> tuple[int, dict[str, int], list[str]]:
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    run = script.Run(folder / "run", (str(folder), "-q", f"--rootdir={folder}"))
    code = subprocess.run(run.command(run.report), cwd=folder, check=False, capture_output=True).returncode
    ended: tuple[int, dict[str, int], list[str]] = script.ended(run, code)
    return ended


def test_what_passes_alone_is_named_and_holds_up_nobody(script: ModuleType, tmp_path: Path) -> None:
    code, counts, unstable = outcome(script, tmp_path, moody=UNSTABLE)
    assert (code, counts["passed"], counts["failed"]) == (0, 2, 0)
    assert unstable == ["test_moody::test_unstable"]


def test_what_fails_again_fails_the_run(script: ModuleType, tmp_path: Path) -> None:
    code, counts, unstable = outcome(script, tmp_path, moody=UNSTABLE, broken=BROKEN)
    assert (code, counts["failed"], unstable) == (1, 2, [])


def test_many_failures_have_no_second_try(
    script: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, counts, _ = outcome(script, tmp_path, many=MANY)
    assert (code, counts["failed"]) == (1, 5)
    assert "Once more" not in capfd.readouterr().out


def test_a_run_that_was_killed_fails(script: ModuleType, tmp_path: Path) -> None:
    assert script.ended(script.Run(tmp_path, ()), -9) == (-9, {"failed": 0, "passed": 0, "skipped": 0, "error": 1}, [])
