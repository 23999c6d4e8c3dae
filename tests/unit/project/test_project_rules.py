"""The rules of the layout that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "src" / "gleaner"

#: What each folder may import of Gleaner besides itself.
ALLOWED = {
    "wire": set(),
    "sim": {"wire"},
    "learn": {"wire"},
    "machine": {"wire", "sim"},
    "formats": {"wire"},
    "app": {"wire", "formats"},
    "cli": {"wire", "sim", "learn", "machine", "app", "formats"},
}
#: Of `learn`, what the app asks itself, in its own process: numpy, and no torch.
LIGHT = {
    f"gleaner.learn.{name}" for name in ("backbone_name", "embed", "errors", "instant", "metrics", "request", "split")
}
HEAVY = {"torch", "cv2", "av", "onnxruntime", "duckdb", "sqlalchemy", "fastapi"}


def imported_modules(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_imports_run_one_way(folder: str) -> None:
    allowed = {"__version__", folder, *ALLOWED[folder]}
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (SOURCE / folder).rglob("*.py")
        for name in imported_modules(path)
        if name.startswith("gleaner.") and name.split(".")[1] not in allowed
        if folder != "app" or not (name == "gleaner.learn" or ".".join(name.split(".")[:3]) in LIGHT)
    }
    assert not wrong


def test_what_the_app_asks_of_learn_brings_no_heavy_library() -> None:
    probe = f"import sys\nimport {', '.join(sorted(LIGHT))}\nprint(sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_only_tests_read_the_ground_truth_of_the_sim() -> None:
    readers = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if path.parts[-2] != "sim" and any(name.startswith("gleaner.sim.truth") for name in imported_modules(path))
    }
    assert not readers


@pytest.mark.parametrize("command", [["--help"], ["machine", "--help"], ["app", "--help"], ["demo", "--help"]])
def test_the_command_line_answers_without_loading_heavy_libraries(command: list[str]) -> None:
    probe = (
        "import sys\nfrom gleaner.cli.main import app\n"
        f"try:\n    app({command!r})\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', sorted({HEAVY!r} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "LOADED []"


def test_no_source_file_has_grown_past_reading() -> None:
    long = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in SOURCE.rglob("*.py")}
    assert not {path: lines for path, lines in long.items() if lines > 400}
