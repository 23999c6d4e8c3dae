"""Every test, in less time: those that wait (processes, disks, lines) run beside those that compute, and what is timed alone.

The last line is pytest's closing line with the sum of all. With arguments it is pytest with those arguments, in one piece.
"""

import datetime
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
# Training has a budget in seconds and the browser is timed: both want the computer for themselves.
TIMED = ("tests/unit/learn", "tests/journey")
WAITING = ("tests/compat", "tests/fault")
COMPUTING = ("tests/unit", "tests/property", "--ignore=tests/unit/learn")


def pytest(*arguments):
    return [sys.executable, "-m", "pytest", *arguments]


def beside(first, second):
    """Both at once; the output of the second comes when the first is done. Returns both exit codes."""
    with tempfile.TemporaryFile() as output:
        other = subprocess.Popen(second, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = subprocess.run(first, cwd=ROOT, check=False).returncode
            other.wait()
        finally:
            if other.poll() is None:  # we were interrupted: pytest ends what its tests have started
                other.terminate()
                other.wait()
            output.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return [code, other.returncode]


def closing_line(reports, seconds):
    """The sum of all runs, in the words of pytest."""
    counts = dict.fromkeys(("failed", "passed", "skipped", "error"), 0)
    for report in reports:
        if not report.exists():  # that run was killed
            counts["error"] += 1
            continue
        for suite in ElementTree.parse(report).iter("testsuite"):
            failed, errors, skipped = (int(suite.get(name)) for name in ("failures", "errors", "skipped"))
            counts["failed"] += failed
            counts["error"] += errors
            counts["skipped"] += skipped
            counts["passed"] += int(suite.get("tests")) - failed - errors - skipped
    said = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    return f" {said} in {seconds:.2f}s ({datetime.timedelta(seconds=int(seconds))}) ".center(80, "=")


def main():
    if sys.argv[1:]:
        return subprocess.run(pytest("tests", *sys.argv[1:]), cwd=ROOT, check=False).returncode
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        reports = [Path(folder, f"{name}.xml") for name in ("computing", "waiting", "timed")]
        runs = [
            pytest(*what, f"--junitxml={report}")
            for what, report in zip((COMPUTING, WAITING, TIMED), reports, strict=True)
        ]
        codes = beside(runs[0], runs[1])
        codes.append(subprocess.run(runs[2], cwd=ROOT, check=False).returncode)
        print(f"\nAll three runs:\n{closing_line(reports, time.monotonic() - began)}")
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
