"""Makes sure the browser tests have a Chromium: Debian's as root, else Playwright's download, else they skip and say why."""

import os
import shutil
import subprocess
import sys


def main() -> None:
    if any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return
    if shutil.which("apt-get") and os.geteuid() == 0:
        print("  Installing Chromium for the browser tests (apt)", file=sys.stderr)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment, **quiet)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
            check=False,
            env=environment,
            **quiet,
        )
        if shutil.which("chromium"):
            return
    print("  Downloading Chromium for the browser tests (Playwright)", file=sys.stderr)
    if subprocess.run(
        [sys.executable, "-m", "playwright", "install", "chromium"], check=False, stdout=subprocess.DEVNULL
    ).returncode:
        print("  No Chromium could be installed: the browser tests will be skipped.", file=sys.stderr)


if __name__ == "__main__":
    main()
