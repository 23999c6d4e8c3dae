"""What a machine with one camera costs: how soon it captures, how much memory it keeps, and what a big backlog does to it.

Run: `python bench/footprint.py [--backlog 200000]`. A real app and a real machine (its sync process included) with a
camera of 640×480 pictures at 10 Hz; then the same machine again with a backlog of so many files. Memory is RSS, added up
over the machine's processes; the peer is a bare viam-sdk process, `python -c "import viam.robot.client"`, which is what
any Viam module in Python begins with. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import simplejpeg
from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import encode_binary

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "fault")]
from fault_loop import Loop  # noqa: E402

PICTURES = "rdk_component_camera/old/GetImages"
HEADER = encode_header(
    DataCaptureMetadata(
        component_type="rdk:component:camera",
        component_name="old",
        method_name="GetImages",
        type=DataType.DATA_TYPE_BINARY_SENSOR,
        mime_type="image/jpeg",
    )
)
FILES_PER_FOLDER_STEP = 5000


def pictures(folder: Path) -> None:
    """Twenty photos of VGA size."""
    folder.mkdir()
    chance = np.random.default_rng(1)
    for number in range(20):
        small = chance.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        frame = np.ascontiguousarray(np.repeat(np.repeat(small, 10, 0), 10, 1))
        (folder / f"{number:03d}.jpg").write_bytes(simplejpeg.encode_jpeg(frame))


def backlog(root: Path, count: int) -> None:
    """Small captures with different content, as weeks offline leave them."""
    folder = root / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    picture = b"\xff\xd8\xff" + os.urandom(400)
    began_ns = time.time_ns() - 10**9 * count
    for number in range(count):
        times = (began_ns + 10**9 * number, began_ns + 10**9 * number + 1)
        content = HEADER + encode_record(b"".join(encode_binary(*times, picture + number.to_bytes(4, "big"))))
        (folder / f"{number:08d}.capture").write_bytes(content)


def wait_for(condition: Callable[[], object], timeout_s: float, what: str) -> float:
    """Seconds until the condition held."""
    began_s, pause = time.monotonic(), threading.Event()
    while not condition():
        if time.monotonic() - began_s > timeout_s:
            raise SystemExit(f"{what}: not within {timeout_s:.0f} s")
        pause.wait(0.01)
    return time.monotonic() - began_s


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


def machine_with_backlog(loop: Loop, count: int, seconds: float) -> tuple[float, float]:
    """(first upload s after the start, growth of RSS MB while it sends)."""
    backlog(loop.capture_dir, count)
    before = loop.items()
    began_s = time.monotonic()
    loop.machine.start()
    assert loop.machine.process is not None
    wait_for(lambda: loop.items() > before, 300, "the first upload of the backlog")
    first_s = time.monotonic() - began_s
    pid = loop.machine.process.pid
    time.sleep(2)  # buffers fill once
    early_mb, _ = settled_mb(pid, 1.0)
    late_mb, _ = settled_mb(pid, seconds)
    return first_s, late_mb - early_mb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backlog", type=int, default=200_000, help="files; a million takes minutes to make")
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
            first_upload_s, growth_mb = machine_with_backlog(loop, options.backlog, options.seconds)
            print(f"{options.backlog} files: first upload after {first_upload_s:.2f} s; RSS +{growth_mb:.1f} MB")
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
                "backlog_first_upload_s": round(first_upload_s, 2),
                "backlog_rss_growth_mb": round(growth_mb, 1),
                "viam_sdk_import_s": round(peer_s, 2),
                "viam_sdk_rss_mb": round(peer_mb, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
