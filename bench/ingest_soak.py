"""Memory and open files of a real app while one viam-sdk client uploads and somebody looks at the pictures.

    make -s bench ONLY=ingest_soak       # ARGS="--uploads 100000 --bytes … --in-flight … --folder …"

Every twentieth of the uploads is followed by lists, facets and thumbnails over HTTP from several threads, as a gallery asks.
Caches fill at first: growth is from the first quarter on. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from gleaner.cli.rest_client import RestClient
from ingest import Pictures
from rig.app import App, running_app
from rig.sdk import sdk_uploads_per_s

STEPS = 20
LOOKERS = 8


def look(app: App) -> None:
    """What a few open gallery pages ask for."""
    thread = threading.local()

    def ask(path: str) -> None:
        if not hasattr(thread, "client"):
            key_id, key = keys
            thread.client = RestClient(app.address, headers={"key_id": key_id, "key": key})
        thread.client.get(path)

    keys = app.owner_key()
    with ThreadPoolExecutor(LOOKERS) as lookers:
        paths = ["/items/facets", f"/items/facets?part_id={app.part_id}", "/items/facets?tag=bench"] * LOOKERS
        list(lookers.map(ask, paths))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=3000)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to be used")
    chosen = parser.parse_args()
    pictures, step = Pictures(chosen.bytes), chosen.uploads // STEPS
    rss_mb, open_files = [], []
    with (
        tempfile.TemporaryDirectory(prefix=".bench-", dir=chosen.folder) as made,
        running_app(Path(made), "127.0.0.1") as app,
    ):
        process = psutil.Process(app.pid)
        for number in range(STEPS):
            rate = sdk_uploads_per_s(app, range(number * step, (number + 1) * step), chosen.in_flight, pictures)
            look(app)
            rss_mb.append(process.memory_info().rss / 1e6)
            open_files.append(process.num_fds())
            print(f"{(number + 1) * step:8} {rate:6.0f}/s  RSS {rss_mb[-1]:.0f} MB, {open_files[-1]} files", flush=True)
        stored = app.stored()
    if stored != step * STEPS:
        raise RuntimeError(f"{stored} of {step * STEPS} uploads are stored")
    warm = STEPS // 4
    report = {
        "uploads": stored,
        "rss_mb": round(rss_mb[-1], 1),
        "rss_growth_mb": round(rss_mb[-1] - rss_mb[warm], 1),
        "open_files_growth": open_files[-1] - open_files[warm],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
