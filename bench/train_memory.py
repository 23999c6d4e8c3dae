"""How much memory a training takes, and whether more pictures take more.

    python bench/train_memory.py [--seconds 60] [--big 2000] [--many 20000] [--only classifier,detector,peer]

The worker runs as the app starts it, on generated JPEG pictures of two labels with one boxed thing each: `--big` of 12 megapixels
(4000×3000), and both a tenth of `--many` and `--many` of 640×480. Each run has its time for reading and training alike, and reads as
much of the pictures as a third of that allows: what it read is printed. Memory is the largest sum over the run's processes of what
each has for itself and its part of what they share (PSS), looked at ten times a second.
The peer is the usual recipe: MobileNetV3-Small from scratch and PyTorch's DataLoader with two workers that decode each picture with
OpenCV when its turn comes, on the big pictures, the same size of input and batch.
Needs 5 GB below the folder for temporary files. Last line: JSON, in MB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from gleaner.app.services.job_memory import used_mb

LABELS = ("amber", "teal")
COLOURS = ((230, 150, 30), (30, 150, 150))
BIG, SMALL = (3000, 4000), (480, 640)
INPUT = (144, 192)
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each run")
    parser.add_argument("--big", type=int, default=2000)
    parser.add_argument("--many", type=int, default=20_000)
    parser.add_argument("--only", default="classifier,detector,peer")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        _be_the_peer(options.peer, options.seconds)
        return
    chosen = options.only.split(",")
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="train-memory-") as name:
        folder = Path(name)
        sets = (("big", options.big, BIG), ("few", options.many // 10, SMALL), ("many", options.many, SMALL))
        for set_name, count, size in sets:
            began = time.monotonic()
            draw_set(folder / set_name, count, size)
            print(f"{count} pictures of {size[1]}×{size[0]} drawn in {time.monotonic() - began:.0f} s", flush=True)
            for kind, task in (("classifier", "single_label_classification"), ("detector", "object_detection")):
                if kind in chosen:
                    found[f"{kind}_{set_name}_mb"] = ours(folder / set_name, task, options.seconds)
        if "peer" in chosen:
            found["dataloader_big_mb"] = peer(folder / "big", options.seconds)
    for kind in chosen:
        if f"{kind}_many_mb" in found:
            found[f"{kind}_growth"] = round(found[f"{kind}_many_mb"] / found[f"{kind}_few_mb"], 3)
    if {"dataloader_big_mb", "classifier_big_mb"} <= set(found):
        found["x_dataloader"] = round(found["dataloader_big_mb"] / found["classifier_big_mb"], 2)
    print(json.dumps(found))


def draw_set(folder: Path, count: int, size: tuple[int, int]) -> None:
    """A run's folder; pictures of as many kinds of light, so that none is taken for another one's twin."""
    folder.mkdir()
    with ProcessPoolExecutor(2) as pool:
        lines = pool.map(partial(_draw, folder, size), range(count), chunksize=16)
        (folder / "dataset.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _draw(folder: Path, size: tuple[int, int], number: int) -> dict[str, object]:
    chance = np.random.default_rng(number)
    height, width = size
    coarse = chance.integers(40, 215, (6, 8, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = chance.integers(0, 24, (height // 4, width // 4, 3), dtype=np.uint8)
    picture = cv2.add(picture, cv2.resize(grain, (width, height), interpolation=cv2.INTER_NEAREST))
    label = number % len(LABELS)
    radius = chance.uniform(0.1, 0.2) * height
    x, y = chance.uniform(radius, width - radius), chance.uniform(radius, height - radius)
    cv2.circle(picture, (int(x), int(y)), int(radius), COLOURS[label], -1)
    (folder / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, quality=90))
    edges = ((x - radius) / width, (y - radius) / height, (x + radius) / width, (y + radius) / height)
    names = ("x_min_normalized", "y_min_normalized", "x_max_normalized", "y_max_normalized")
    return {
        "image_path": f"{number}.jpg",
        "binary_data_id": str(number),
        "classification_annotations": [{"annotation_label": LABELS[label]}],
        "bounding_box_annotations": [{"annotation_label": LABELS[label], **dict(zip(names, edges, strict=True))}],
    }


def ours(folder: Path, task: str, seconds: float) -> float:
    settings = {"task": task, "labels": LABELS, "budget_s": seconds, "threads": 2, "seed": 0, "output_dir": task}
    (folder / "run.json").write_text(json.dumps(settings))
    began = time.monotonic()
    most, said = most_memory([sys.executable, "-m", "gleaner.learn.worker", str(folder)])
    report = json.loads((folder / task / "report.json").read_text())
    events = [json.loads(line) for line in said.splitlines()]
    left_out = [one["message"] for one in events if one["event"] == "warning" and "were read" in one["message"]]
    took = f"{time.monotonic() - began:.0f} s, {report['model']['steps']} steps"
    print(
        f"{task} of {folder.name}: {most:.0f} MB, {took}. {' '.join(left_out) or 'All pictures were read.'}", flush=True
    )
    return most


def peer(folder: Path, seconds: float) -> float:
    command = [sys.executable, __file__, "--peer", str(folder), "--seconds", str(seconds)]
    most, said = most_memory(command)
    print(f"DataLoader of {folder.name}: {most:.0f} MB. {said.strip()}", flush=True)
    return most


def most_memory(command: list[str]) -> tuple[float, str]:
    """(MB, what it printed). Ends this program if that one fails."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        seen: list[int] = []
        is_over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, seen.append, is_over))
        watcher.start()
        said, errors = process.communicate()
        is_over.set()
        watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed: {said[-1500:]}{errors[-1500:]}")
    return float(max(seen)), said


def _watch(pid: int, seen: Callable[[int], None], is_over: threading.Event) -> None:
    while not is_over.wait(0.1):
        seen(used_mb(pid))


def _be_the_peer(folder: Path, seconds: float) -> None:
    import torch
    from torch.utils.data import DataLoader, Dataset

    from rig.mobilenet import MobileNetV3Small

    class Pictures(Dataset[tuple[torch.Tensor, int]]):
        def __init__(self) -> None:
            self._lines = [json.loads(line) for line in (folder / "dataset.jsonl").open()]

        def __len__(self) -> int:
            return len(self._lines)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            line = self._lines[index]
            picture = cv2.imread(str(folder / line["image_path"]))
            assert picture is not None
            small = cv2.resize(picture, INPUT[::-1], interpolation=cv2.INTER_AREA)
            label = LABELS.index(line["classification_annotations"][0]["annotation_label"])
            return torch.from_numpy(small).permute(2, 0, 1).float() / 255, label

    torch.set_num_threads(2)
    network, steps, began = MobileNetV3Small(len(LABELS)), 0, time.monotonic()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    while time.monotonic() - began < seconds:
        for pictures, labels in DataLoader(Pictures(), BATCH, shuffle=True, num_workers=2):
            loss = torch.nn.functional.cross_entropy(network(pictures), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if time.monotonic() - began >= seconds:
                break
    print(f"{steps} steps of {BATCH} pictures")


if __name__ == "__main__":
    main()
