"""Makes .venv ready: `python scripts/bootstrap.py all|dev`. Runs on any Python 3, to be able to say that it is too old.

Does nothing in a tenth of a second when nothing changed: a stamp keeps the hash of what was installed.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
LOG = os.path.join(ROOT, ".cache", "setup.log")
TORCH = "torch==2.13.0"
# The Linux wheel of `torch` on the default index brings gigabytes of CUDA; this is where PyTorch publishes the CPU build.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def fail(line, hint=""):
    sys.stderr.write("\n  " + line + "\n" + ("  " + hint + "\n" if hint else ""))
    sys.exit(1)


def digest(paths):
    found = hashlib.sha256()
    for path in [os.path.join(ROOT, name) for name in paths]:
        files = [path]
        if os.path.isdir(path):
            files = []
            for folder, folders, names in os.walk(path):
                folders[:] = sorted(f for f in folders if f not in ("node_modules", "dist"))
                files += [os.path.join(folder, name) for name in sorted(names)]
        for name in files:
            found.update(name[len(ROOT) :].encode())
            with open(name, "rb") as handle:
                found.update(handle.read())
    return found.hexdigest()


def python_of_venv():
    return os.path.join(VENV, "Scripts" if os.name == "nt" else "bin", "python")


def step(title, command, may_fail=False, env=None):
    """Runs a command with its output in the log; shows the seconds while it runs. Returns whether it worked."""
    os.makedirs(os.path.dirname(LOG), exist_ok=True)
    started = time.time()
    lively = sys.stderr.isatty()
    with open(LOG, "ab") as log:
        log.write(("\n$ " + " ".join(command) + "\n").encode())
        log.flush()
        begin = log.tell()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=env)
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if lively:
                    sys.stderr.write("\r  %s … %d s " % (title, time.time() - started))
                    sys.stderr.flush()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            fail("Stopped. Run the same command again to go on.")
    if process.returncode == 0:
        sys.stderr.write("%s  %s: done in %.0f s\n" % ("\r" if lively else "", title, time.time() - started))
        return True
    if not may_fail:
        with open(LOG, "rb") as log:
            log.seek(begin)
            tail = log.read().decode("utf-8", "replace").strip().splitlines()[-12:]
        fail(title + " failed:\n    " + "\n    ".join(tail), "The whole output is in " + os.path.relpath(LOG, ROOT))
    return False


def check_python():
    if sys.version_info < (3, 11):
        fail(
            "Gleaner needs Python 3.11 or newer; %s is %s." % (sys.executable, platform.python_version()),
            "Install a newer one and run: make demo PYTHON=python3.12",
        )


def make_venv():
    if os.path.exists(python_of_venv()):
        return
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail(
            "This Python cannot make virtual environments (the venv module is missing).",
            "On Debian or Ubuntu: sudo apt install python3-venv",
        )
    if os.path.isdir(VENV):
        shutil.rmtree(VENV)
    step("Making a virtual environment in .venv", [sys.executable, "-m", "venv", VENV])


def install_torch(pip):
    """The CPU build: from a local folder of wheels if pip is set up with one, else from PyTorch's own index."""
    needs_cpu_build = sys.platform == "linux" and not shutil.which("nvidia-smi")
    if not needs_cpu_build:
        step("Installing PyTorch", pip + [TORCH])
    elif not step("Installing PyTorch (CPU build)", pip + [TORCH + "+cpu"], may_fail=True):
        step("Installing PyTorch (CPU build, about 200 MB)", pip + [TORCH, "--index-url", TORCH_CPU_INDEX])


def main():
    check_python()
    extra = sys.argv[1] if len(sys.argv) > 1 else "all"
    stamp = os.path.join(VENV, ".ready-" + extra)
    wanted = digest(["pyproject.toml", "constraints.txt", "hatch_build.py", "web"])
    if os.path.exists(stamp):
        with open(stamp) as handle:
            if handle.read() == wanted:
                return
    sys.stderr.write("Setting Gleaner up (once; later starts take seconds)\n")
    make_venv()
    pip = [
        python_of_venv(),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "-c",
        os.path.join(ROOT, "constraints.txt"),
    ]
    install_torch(pip)
    # Editable, so that a newcomer's change to the source is what runs; the build hook makes the web pages on the way.
    step("Installing Gleaner, its libraries and the web pages", pip + ["-e", ROOT + "[" + extra + "]"])
    with open(stamp, "w") as handle:
        handle.write(wanted)


if __name__ == "__main__":
    main()
