"""What a machine with one camera costs: how soon it captures, how much memory it keeps, and what a big backlog does to it.

Run: `FILES=1000000 python bench/footprint.py`. A real app and a real machine (its sync process included) with a camera of
640×480 pictures and a sensor; then the same machine again with so many waiting files of five collectors
(`waiting_files.py`): without a link, with one, killed half-way, until the last file has been sent and the ledger and the app
agree (`footprint_backlog.py`). Memory is RSS, added up over the machine's processes; the peer is a bare viam-sdk process,
`python -c "import viam.robot.client"`, which is what any Viam module in Python begins with. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import simplejpeg

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "fault")]
from fault_loop import Loop, answers, settle  # noqa: E402

from footprint_backlog import check, offline, online, wait_for  # noqa: E402
from waiting_files import make_backlog  # noqa: E402


def pictures(folder: Path) -> None:
    """Twenty photos of VGA size."""
    folder.mkdir()
    chance = np.random.default_rng(1)
    for number in range(20):
        small = chance.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        frame = np.ascontiguousarray(np.repeat(np.repeat(small, 10, 0), 10, 1))
        (folder / f"{number:03d}.jpg").write_bytes(simplejpeg.encode_jpeg(frame))


def family_mb(pid: int) -> tuple[float, float]:
    """RSS and PSS of a process and all below it, MB."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    infos = [each.memory_full_info() for each in family]
    return sum(i.rss for i in infos) / 1e6, sum(i.pss for i in infos) / 1e6


def settled_mb(pid: int, seconds: float) -> tuple[float, float]:
    """The median over some seconds of capture and sync."""
    found = []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        found.append(family_mb(pid))
        time.sleep(0.25)
    return median(rss for rss, _ in found), median(pss for _, pss in found)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def peer() -> tuple[float, float]:
    """Seconds to import viam-sdk's client and the memory of that, MB."""
    code = "import viam.robot.client, sys; print(flush=True); sys.stdin.read()"
    began_s = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        took_s = time.monotonic() - began_s
        rss_mb = family_mb(process.pid)[0]
        process.communicate()
    return took_s, rss_mb


def quiet_machine(loop: Loop, seconds: float) -> tuple[float, float, float]:
    """(first capture s, RSS MB, PSS MB) of a machine that captures and syncs."""
    before, known = loop.items(), set(loop.capture_dir.glob("*/cam/*/*"))
    began_s = time.monotonic()
    loop.machine.start()
    assert loop.machine.process is not None
    wait_for(lambda: set(loop.capture_dir.glob("*/cam/*/*")) - known, 60, "the first capture")
    first_s = time.monotonic() - began_s
    wait_for(lambda: loop.items() > before, 60, "the first upload")
    pid = loop.machine.process.pid
    rss_mb, pss_mb = settled_mb(pid, seconds)
    alone_mb = psutil.Process(pid).memory_info().rss / 1e6
    print(
        f"  {first_s:.2f} s, {rss_mb:.0f} MB: machine {alone_mb:.0f}, the rest of its processes {rss_mb - alone_mb:.0f}"
    )
    return first_s, rss_mb, pss_mb


def machine_with_backlog(loop: Loop, count: int) -> dict[str, float]:
    """The figures of `footprint_backlog`; raises when the ledger and the app do not agree to the file."""
    loop.app.stop()
    made = make_backlog(loop.capture_dir, count)
    figures = offline(loop, idle_s=5.0)
    loop.app.start()
    wait_for(lambda: answers(loop), 60, "the app")
    figures |= online(loop, made, kill_after=0.5)
    settle(loop)
    check(loop, made)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    files = int(os.environ.get("FILES", "15000"))
    parser.add_argument("--backlog", type=int, default=files, help="files; a million takes half an hour")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long memory is watched")
    parser.add_argument("--rounds", type=int, default=3, help="starts of the machine without a backlog")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures(folder / "photos")
        web, grpc, machine = free_ports(3)
        loop = Loop(folder, (web, grpc, machine))
        loop.camera = ("gleaner:camera:image-dir", {"path": str(folder / "photos"), "frame_rate": 30})
        loop.app.start()
        try:
            loop.log_in()
            loop.set_up()
            quiet = []
            for _ in range(options.rounds):
                quiet.append(quiet_machine(loop, options.seconds / 2))
                loop.machine.stop()
            first_capture_s, rss_mb, pss_mb = (median(column) for column in zip(*quiet, strict=True))
            print(f"first capture after {first_capture_s:.2f} s; RSS {rss_mb:.0f} MB, PSS {pss_mb:.0f} MB", flush=True)
            figures = machine_with_backlog(loop, options.backlog)
            print(f"{options.backlog} files: first upload after {figures['first_upload_s']:.2f} s")
        finally:
            loop.machine.stop()
            loop.app.stop()
    peer_s, peer_mb = peer()
    print(f"bare viam-sdk process: imported after {peer_s:.2f} s, RSS {peer_mb:.0f} MB (x {rss_mb / peer_mb:.1f})")
    print(
        json.dumps(
            {
                "first_capture_s": round(first_capture_s, 2),
                "rss_mb": round(rss_mb, 1),
                "pss_mb": round(pss_mb, 1),
                "backlog_files": options.backlog,
                **{f"backlog_{name}": round(value, 3) for name, value in figures.items()},
                "viam_sdk_import_s": round(peer_s, 2),
                "viam_sdk_rss_mb": round(peer_mb, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
