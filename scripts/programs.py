"""Programs the tests drive, as far as they can be installed here: a Chromium (Debian's as root, else Playwright's
download) and PostgreSQL (Debian's as root). Tests without theirs skip and say why."""

import glob
import os
import shutil
import subprocess
import sys


def main() -> None:
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        chromium()
    if not (shutil.which("initdb") or glob.glob("/usr/lib/postgresql/*/bin/initdb")) and not apt("postgresql"):
        print("  PostgreSQL is not installed: the tests on it will be skipped.", file=sys.stderr)


def chromium() -> None:
    if apt("chromium") and shutil.which("chromium"):
        return
    print("  Downloading Chromium for the browser tests (Playwright)", file=sys.stderr)
    if subprocess.run(
        [sys.executable, "-m", "playwright", "install", "chromium"], check=False, stdout=subprocess.DEVNULL
    ).returncode:
        print("  No Chromium could be installed: the browser tests will be skipped.", file=sys.stderr)


def apt(package: str) -> bool:
    """Installs a Debian package; False if this is no Debian, or we are not root."""
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return False
    print(f"  Installing {package} for the tests (apt)", file=sys.stderr)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment, **quiet)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    return subprocess.run(install, check=False, env=environment, **quiet).returncode == 0


if __name__ == "__main__":
    main()
