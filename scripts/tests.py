"""Every test, in less time: those that wait (processes, disks, lines) run beside those that compute, and what is timed alone.

The last line is pytest's closing line with the sum of all (unstable tests, if any, are named above it). With arguments it is pytest with those arguments, in one piece.
"""

import dataclasses
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
TESTS_FAILED = 1  # pytest's exit code for it
SECOND_TRIES = 4  # failures of a run that may be accidents


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


def counted(report):
    """How the tests of one run ended; a run that was killed before it wrote its report is one error."""
    counts = dict.fromkeys(("failed", "passed", "skipped", "error"), 0)
    if not report.exists():
        return counts | {"error": 1}
    for suite in ElementTree.parse(report).iter("testsuite"):
        failed, errors, skipped = (int(suite.get(name)) for name in ("failures", "errors", "skipped"))
        counts["failed"] += failed
        counts["error"] += errors
        counts["skipped"] += skipped
        counts["passed"] += int(suite.get("tests")) - failed - errors - skipped
    return counts


@dataclasses.dataclass(frozen=True)
class Run:
    """One pytest process: what it runs and the folder of its report and of what failed."""

    folder: Path
    what: tuple

    @property
    def report(self):
        return self.folder / "report.xml"

    def command(self, report):
        return pytest(*self.what, f"--junitxml={report}", "-o", f"cache_dir={self.folder / 'cache'}")


def ended(run, code):
    """What a run comes to: its exit code, how its tests ended, and the names of the unstable among them.

    The few that failed are tried once more, alone: two cores that hundreds of processes share fail a test now and then
    that is right. What passes alone is unstable, not broken: it is named, so that it is mended, and holds up nobody. More
    than a few failures are no accident, and a run that was cut short has no second try.
    """
    counts = counted(run.report)
    failed = counts["failed"] + counts["error"]
    if code != TESTS_FAILED or not run.report.exists() or failed > SECOND_TRIES:
        return code, counts, []
    print("\nOnce more, alone:", flush=True)
    report = run.folder / "again.xml"
    second = [*run.command(report), "--last-failed", "--last-failed-no-failures=none"]
    if code := subprocess.run(second, cwd=ROOT, check=False).returncode:
        return code, counts, []
    unstable = [f"{case.get('classname')}::{case.get('name')}" for case in ElementTree.parse(report).iter("testcase")]
    return 0, counts | {"failed": 0, "error": 0, "passed": counts["passed"] + counted(report)["passed"]}, unstable


def closing_line(all_counts, seconds):
    """The sum of all runs, in the words of pytest."""
    total = {name: sum(counts[name] for counts in all_counts) for name in all_counts[0]}
    said = ", ".join(f"{number} {name}" for name, number in total.items() if number)
    return f" {said} in {seconds:.2f}s ({datetime.timedelta(seconds=int(seconds))}) ".center(80, "=")


def main():
    if sys.argv[1:]:
        return subprocess.run(pytest("tests", *sys.argv[1:]), cwd=ROOT, check=False).returncode
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        runs = [Run(Path(folder, str(number)), what) for number, what in enumerate((COMPUTING, WAITING, TIMED))]
        commands = [run.command(run.report) for run in runs]
        codes = beside(commands[0], commands[1])
        codes.append(subprocess.run(commands[2], cwd=ROOT, check=False).returncode)
        ends = [ended(run, code) for run, code in zip(runs, codes, strict=True)]
    for name in [name for _, _, names in ends for name in names]:
        print(f"UNSTABLE: {name} failed among others and passed alone; please mend it")
    print(f"\nAll three runs:\n{closing_line([counts for _, counts, _ in ends], time.monotonic() - began)}")
    return next((code for code, _, _ in ends if code), 0)


if __name__ == "__main__":
    sys.exit(main())
