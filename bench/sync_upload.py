"""Files per second from the capture folder of a machine into the app, beside rclone to sftp and rsync over ssh.

    make -s bench ONLY=sync_upload       # ARGS="--files … --big-files … --rounds …"

- gleaner: the real sync process (idle and connected), TLS on loopback, a real app in its own process that encrypts,
  indexes and fsyncs before it acknowledges; then the local file is counted and removed;
- gleaner at 100 ms: the same through a process that delays each direction by 50 ms;
- limited: the same under a `sync_bandwidth_limit` of 5 MB/s; `limit_used` is the files' bytes over what it allows;
- floor: the least that a Python program pays to list, read, hash, send and remove the same files (`rig/floor.py`);
- rclone, rsync: `rclone move` to OpenSSH's sftp with its four transfers (16 were slower) and `rsync
  --remove-source-files` over ssh, nothing fsynced; the time of the same command with an empty folder is subtracted, so
  that their start and handshake cost them nothing.
Medians of the rounds; programs take turns within a round. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from viam.proto.app.datasync import DataCaptureMetadata, DataType

from gleaner.machine.sync.settings import SyncSettings
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import encode_binary
from rig.app import HOST, App, running_app
from rig.floor import Floor, running_floor
from rig.lines import running_delay
from rig.peers import NoPeers, Server, ssh_server, timed
from rig.sender import running_sender

PICTURES = "rdk_component_camera/cam/ReadImage"
SMALL_BYTES, BIG_BYTES = 30_000, 1_000_000
LIMIT, LIMITED_S = 5_000_000, 8
_HEADER = encode_header(
    DataCaptureMetadata(
        component_type="rdk:component:camera",
        component_name="cam",
        method_name="ReadImage",
        type=DataType.DATA_TYPE_BINARY_SENSOR,
        mime_type="image/jpeg",
        file_extension=".jpeg",
    )
)


def put_files(folder: Path, count: int, size: int) -> None:
    """Captures of pictures that are all different, each `size` bytes of payload."""
    folder.mkdir(parents=True)
    noise = os.urandom(size)
    for number in range(count):
        payload = b"\xff\xd8\xff\xe0" + os.urandom(16) + noise[20:]
        content = _HEADER + encode_record(b"".join(encode_binary(time.time_ns(), time.time_ns(), payload)))
        (folder / f"2026-01-01T00_00_00.{number:06d}Z.capture").write_bytes(content)


class Gleaner:
    """Sends through one connected sync process; `cpu_us` collects the client's processor time per file."""

    def __init__(self, app: App, folder: Path, address: str) -> None:
        self.folder = folder
        self.cpu_us: list[float] = []
        self.app_cpu_us: list[float] = []
        self.limit: Callable[[int], None] = lambda _bytes_per_s: None
        self._app = app
        self._settings = SyncSettings(str(folder), app.part_id, app.secret, address, app.ca_certificate)

    @contextlib.contextmanager
    def running(self) -> Iterator[Callable[[Path, int], float]]:
        with running_sender(self._settings) as sender:
            sender.wait_connected()
            self.limit = lambda bytes_per_s: sender.command("limit", bytes_per_s=bytes_per_s)

            def send(made: Path, count: int) -> float:
                target = self.folder / PICTURES
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(target, ignore_errors=True)
                made.rename(target)
                before, app_before, began = sender.cpu_s(), self._app.cpu_s(), time.perf_counter()
                sender.sync()
                seconds = time.perf_counter() - began
                self.cpu_us.append((sender.cpu_s() - before) / count * 1e6)
                self.app_cpu_us.append((self._app.cpu_s() - app_before) / count * 1e6)
                left = len(list(target.iterdir()))
                if left:
                    raise RuntimeError(f"{left} of {count} files were not sent")
                return seconds

            yield send


class Peer:
    def __init__(self, name: str, command: Callable[[Path, Path], list[str]], folder: Path) -> None:
        self.name = name
        self.cpu_us: list[float] = []
        self._command, self._folder = command, folder
        self._folder.mkdir()
        self._idle_s = statistics.median(self._run(self._empty())[0] for _ in range(3))

    def send(self, made: Path, count: int) -> float:
        seconds, cpu = self._run(made)
        self.cpu_us.append(cpu / count * 1e6)
        return max(seconds - self._idle_s, 1e-6)

    def _empty(self) -> Path:
        folder = self._folder / "empty"
        folder.mkdir(exist_ok=True)
        return folder

    def _run(self, source: Path) -> tuple[float, float]:
        target = self._folder / "target"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        expected = len(list(source.iterdir()))
        result = timed(self._command(source, target))
        if len(list(target.iterdir())) != expected:
            raise RuntimeError(f"{self.name} left files behind")
        shutil.rmtree(target)
        return result


def measure(folder: Path, chosen: argparse.Namespace) -> tuple[dict[str, list[float]], Gleaner, list[Peer], Floor]:
    """Files per second by name, of each round."""
    rates: dict[str, list[float]] = {}

    def note(name: str, send: Callable[[Path, int], float], count: int, size: int) -> None:
        made = folder / "made"
        shutil.rmtree(made, ignore_errors=True)
        put_files(made, count, size)
        app.wait_idle()
        rates.setdefault(name, []).append(count / send(made, count))

    with contextlib.ExitStack() as stack:
        app = stack.enter_context(running_app(folder))
        gleaner = Gleaner(app, folder / "near", app.address)
        floor = stack.enter_context(running_floor(folder / "app" / "tls"))
        peers: list[Peer] = []
        if not chosen.alone:
            with contextlib.suppress(NoPeers):
                peers = _peers(stack, folder)
        send = stack.enter_context(gleaner.running())
        line = stack.enter_context(running_delay(HOST, app.port, 50))
        far = stack.enter_context(Gleaner(app, folder / "far", f"https://127.0.0.1:{line.port}").running())
        note("warm", send, 500, SMALL_BYTES)
        note("warm_100ms", far, 500, SMALL_BYTES)
        gleaner.cpu_us.clear()
        gleaner.app_cpu_us.clear()
        for _ in range(chosen.rounds):
            note("gleaner", send, chosen.files, SMALL_BYTES)
            note("floor", floor.send, chosen.files, SMALL_BYTES)
            for peer in peers:
                note(peer.name, peer.send, chosen.files, SMALL_BYTES)
            note("gleaner_100ms", far, chosen.files, SMALL_BYTES)
        small_cpu = list(gleaner.cpu_us)
        for _ in range(chosen.rounds):
            note("gleaner_1mb", send, chosen.big_files, BIG_BYTES)
            for peer in peers:
                note(f"{peer.name}_1mb", peer.send, chosen.big_files, BIG_BYTES)
        gleaner.limit(LIMIT)
        note("limited", send, LIMIT * LIMITED_S // SMALL_BYTES // 2, SMALL_BYTES)
        note("limited_1mb", send, LIMIT * LIMITED_S // BIG_BYTES // 2, BIG_BYTES)
        gleaner.cpu_us = small_cpu
    return rates, gleaner, peers, floor


def _peers(stack: contextlib.ExitStack, folder: Path) -> list[Peer]:
    try:
        server: Server = stack.enter_context(ssh_server(folder / "ssh"))
    except NoPeers as error:
        print(f"without peers: {error}")
        raise
    return [
        Peer("rclone", lambda source, target: server.rclone(source, target, 4), folder / "rclone"),
        Peer("rsync", server.rsync, folder / "rsync"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=3000, help="of 30 kB, in a round")
    parser.add_argument("--big-files", type=int, default=100, help="of 1 MB, in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="without the peers")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sync-bench-") as folder:
        rates, gleaner, peers, floor = measure(Path(folder), chosen)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:16} {medians[name]:9,.0f} files/s   of {', '.join(f'{v:,.0f}' for v in values)}")
    for peer in peers:
        print(f"{peer.name:16} {statistics.median(peer.cpu_us[: chosen.rounds]):9,.0f} µs of processor a 30 kB file")
    print(f"{'app':16} {statistics.median(gleaner.app_cpu_us[: chosen.rounds]):9,.0f} µs of processor a 30 kB file")
    figures: dict[str, float | None] = {
        "files_per_s": round(medians["gleaner"]),
        "x_rclone": _ratio(medians, "gleaner", "rclone"),
        "x_rsync": _ratio(medians, "gleaner", "rsync"),
        "client_us_per_file": round(statistics.median(gleaner.cpu_us), 1),
        "floor_us_per_file": round(statistics.median(floor.us_per_file), 1),
        "app_us_per_file": round(statistics.median(gleaner.app_cpu_us[: chosen.rounds]), 1),
        "files_per_s_100ms": round(medians["gleaner_100ms"]),
        "mb_per_s_1mb": round(medians["gleaner_1mb"] * BIG_BYTES / 1e6, 1),
        "x_rsync_1mb": _ratio(medians, "gleaner_1mb", "rsync_1mb"),
        "limit_used": round(medians["limited"] * SMALL_BYTES / LIMIT, 3),
        "limit_used_1mb": round(medians["limited_1mb"] * BIG_BYTES / LIMIT, 3),
    }
    print(json.dumps(figures))


def _ratio(medians: dict[str, float], name: str, peer: str) -> float | None:
    return round(medians[name] / medians[peer], 2) if peer in medians else None


if __name__ == "__main__":
    main()
