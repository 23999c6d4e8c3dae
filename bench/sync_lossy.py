"""How well a slow line that is cut again and again is used, beside a sender that begins each file anew.

    make -s bench ONLY=sync_lossy        # ARGS="--bytes-per-s … --cut-every-s … --seconds …"

A process of its own plays the line: 64 kB/s in each direction, every connection aborted each 20 s, what is on the way lost.
The real sync process sends small pictures, captures of more than a megabyte, a file of `additional_sync_paths` and readings
through it to a real app with TLS. Everything is noise, so that compression flatters nothing. `link_used` is the files'
bytes over what the line could have carried until the last file was confirmed, `bytes_ratio` what the line carried over the
files' bytes. Peer on a line of its own at the same time: rsync over ssh with --whole-file and without --partial, started
again whenever it ends. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from gleaner.machine.sync.settings import SyncSettings
from rig.app import HOST, running_app
from rig.lines import RunningLine, running_line
from rig.peers import NoPeers, Server, ssh_server
from rig.sender import running_sender
from sync_upload import put_files

SMALL_BYTES, BIG_BYTES = 30_000, 1_030_000
BUFFER_BYTES = 16 * 1024


@dataclass(frozen=True)
class Figures:
    seconds: float
    counts: dict[str, int]
    done_bytes: int


def fill(root: Path, outside: Path, total: int) -> int:
    """About `total` bytes, an eighth of them in a file outside the capture folder, half in big captures; the exact sum."""
    put_files(root / "rdk_component_camera/cam/ReadImage", max(1, total * 3 // 8 // SMALL_BYTES), SMALL_BYTES)
    put_files(root / "rdk_component_camera/video/ReadImage", max(1, total // 2 // BIG_BYTES), BIG_BYTES)
    outside.mkdir()
    (outside / "log.bin").write_bytes(os.urandom(total // 8))
    return size_of(root) + size_of(outside)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and ".gleaner" not in path.parts)


def gleaner(folder: Path, options: list[str], total: int) -> Figures:
    root, outside = folder / "capture", folder / "outside"
    size = fill(root, outside, total)
    count = sum(path.is_file() for place in (root, outside) for path in place.rglob("*"))
    with contextlib.ExitStack() as stack:
        app = stack.enter_context(running_app(folder))
        line = stack.enter_context(running_line(HOST, app.port, *options))
        settings = SyncSettings(
            str(root),
            app.part_id,
            app.secret,
            f"https://127.0.0.1:{line.port}",
            app.ca_certificate,
            additional_sync_paths=(str(outside),),
            settle_ms=0,
        )
        sender = stack.enter_context(running_sender(settings))
        began = time.perf_counter()
        while size_of(root) + size_of(outside):
            time.sleep(0.05)
            if sender.process.poll() is not None:
                raise RuntimeError("the sync process ended")
        figures = Figures(time.perf_counter() - began, line.counts(), size)
        if (stored := app.stored()) != count:
            raise RuntimeError(f"the app has {stored} of {count} files")
    return figures


def peer(folder: Path, server: Server, line: RunningLine, done: threading.Event) -> Figures:
    """Until `done`: everything from the start whenever the line breaks."""
    source, target = folder / "peer", folder / "arrived"
    target.mkdir()
    before = size_of(source)
    began = time.perf_counter()
    while not done.is_set() and size_of(source):
        with subprocess.Popen(
            Server(server.folder, line.port, server.key).rsync(source, target, "--whole-file"),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            while process.poll() is None and not done.wait(0.1):
                pass
            process.terminate()
    return Figures(time.perf_counter() - began, line.counts(), before - size_of(source))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes-per-s", type=float, default=64_000)
    parser.add_argument("--cut-every-s", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=65, help="that the files take at best")
    chosen = parser.parse_args()
    total = int(chosen.bytes_per_s * chosen.seconds)
    options = ["--bytes-per-s", str(chosen.bytes_per_s), "--cut-every-s", str(chosen.cut_every_s)]
    options += ["--buffer", str(BUFFER_BYTES)]
    done, other = threading.Event(), list[Figures]()
    with tempfile.TemporaryDirectory(prefix="sync-lossy-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        thread = None
        try:
            server = stack.enter_context(ssh_server(folder / "ssh"))
        except NoPeers as error:
            print(f"without a peer: {error}")
        else:
            line = stack.enter_context(running_line("127.0.0.1", server.port, *options))
            fill(folder / "peer", folder / "peer" / "outside", total)
            thread = threading.Thread(target=lambda: other.append(peer(folder, server, line, done)))
            thread.start()
        try:
            ours = gleaner(folder, options, total)
        finally:
            done.set()
            if thread is not None:
                thread.join()
        shutil.rmtree(folder / "arrived", ignore_errors=True)
    used, ratio = report("gleaner", ours, chosen.bytes_per_s)
    result: dict[str, float | None] = {"link_used": used, "bytes_ratio": ratio}
    for one in other:
        result["restart_link_used"], result["restart_bytes_ratio"] = report("restart", one, chosen.bytes_per_s)
    print(json.dumps(result))


def report(name: str, figures: Figures, bytes_per_s: float) -> tuple[float, float | None]:
    used = figures.done_bytes / (bytes_per_s * figures.seconds)
    ratio = figures.counts["up_out"] / figures.done_bytes if figures.done_bytes else None
    print(
        f"{name:8} {figures.done_bytes / 1e6:5.2f} MB of files in {figures.seconds:5.1f} s, {figures.counts['cuts']} cuts, "
        f"{figures.counts['connections']} connections; the line carried {figures.counts['up_out'] / 1e6:.2f} MB"
    )
    return round(used, 3), round(ratio, 3) if ratio else None


if __name__ == "__main__":
    main()
