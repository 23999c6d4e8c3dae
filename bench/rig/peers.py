"""rclone → sftp and rsync over ssh to an sshd of our own on loopback. Debian packages, installed when we may."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {"rclone": "rclone", "rsync": "rsync", "ssh": "openssh-client", "/usr/sbin/sshd": "openssh-server"}
START_S = 10.0


class NoPeers(Exception):
    """Why there is nothing to compare with; the message is for people."""


@dataclass(frozen=True)
class Server:
    folder: Path
    port: int
    key: Path

    def ssh(self) -> list[str]:
        quiet = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "IdentitiesOnly=yes"]
        return ["ssh", "-p", str(self.port), "-i", str(self.key), *(x for o in quiet for x in ("-o", o))]

    def rsync(self, source: Path, target: Path, *options: str) -> list[str]:
        return [
            *("rsync", "-a", "--remove-source-files", *options),
            *("-e", " ".join(self.ssh()), f"{source}/", f"{_user()}@127.0.0.1:{target}/"),
        ]

    def rclone(self, source: Path, target: Path, transfers: int) -> list[str]:
        return [
            *("rclone", "move", str(source), f":sftp:{target}", "--config", str(self.folder / "rclone.conf")),
            *("--sftp-host", "127.0.0.1", "--sftp-port", str(self.port), "--sftp-user", _user()),
            *("--sftp-key-file", str(self.key), "--sftp-disable-hashcheck"),
            *("--transfers", str(transfers), "--checkers", str(transfers)),
        ]


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[Server]:
    """Raises NoPeers."""
    _install()
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    (folder / "rclone.conf").touch()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "config"
    config.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile {folder}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        "Subsystem sftp internal-sftp\nMaxStartups 100\nMaxSessions 100\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port, process)
        yield Server(folder, port, folder / "user")
    finally:
        process.terminate()
        process.wait()


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds, and processor seconds of the command and its children."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - began, os.times()
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]}")
    return seconds, after.children_user + after.children_system - before.children_user - before.children_system


def _install() -> None:
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoPeers(f"{' '.join(missing)} not installed, and only root can: apt-get install {' '.join(missing)}")
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
    ):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise NoPeers(f"{' '.join(missing)} cannot be installed: {done.stderr.strip()[-300:]}")


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline, pause = time.monotonic() + START_S, threading.Event()
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        pause.wait(0.05)
    raise NoPeers("sshd does not start")


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
