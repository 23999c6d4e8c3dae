"""The browser journey alone: plays tests/journey and prints its figures as one line of JSON, last."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "tests/journey",
            "-k",
            "journey_loop or journey_signs",
            "--timeout",
            "900",
            *sys.argv[1:],
        ]
        code = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "GLEANER_JOURNEY_FIGURES": str(figures)}, check=False
        ).returncode
        print(json.dumps(json.loads(figures.read_text()) if figures.exists() else {}))
    return code


if __name__ == "__main__":
    sys.exit(main())
