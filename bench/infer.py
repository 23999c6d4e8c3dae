"""How fast the exported models answer on one core, beside the same network in PyTorch and YOLO11n at the same size in onnxruntime.

    python bench/infer.py [--yolo <python with ultralytics, onnx>] [--rounds 60]

Weights do not matter for speed: the networks are as they come. The three take turns picture by picture, so that a busy machine slows
all alike; medians. `parity_max_diff`: the largest difference between file and network, of scores and of boxes as shares of the picture,
on the pictures of `rig/shapes.py`. Last line: JSON.
"""

# ruff: noqa: E402 - the threads have to be told before torch is imported

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gleaner.learn.threads import prepare_environment

prepare_environment()

import numpy as np
import torch

from gleaner.learn import metrics
from gleaner.learn.detect.export import check_detector, export_detector
from gleaner.learn.detect.network import build_detector, find
from gleaner.learn.export import check_export, export_classifier
from gleaner.learn.fit import predict_logits
from gleaner.learn.graph import open_session
from gleaner.learn.network import build_classifier
from gleaner.wire.picture import resize_rgb
from rig import shapes

DETECTOR, CLASSIFIER = (240, 320), (144, 192)
LABELS = len(shapes.CLASSES)
EXPORT_YOLO = """
import sys
from pathlib import Path
sys.path.insert(0, {rig!r})
source = Path({rig!r}, "yolo.py").read_text().split("folder, seconds")[0]
exec(source)
model = YOLO("yolo11n.yaml")
print(model.export(format="onnx", imgsz=[240, 320], simplify=False, opset=17))
"""


def yolo_file(python: str, folder: Path) -> Path:
    folder.mkdir()
    script = EXPORT_YOLO.format(rig=str(Path(__file__).parent / "rig"))
    ran = subprocess.run([python, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    found = list(folder.rglob("*.onnx"))
    if ran.returncode or not found:
        raise SystemExit(f"the peer was not exported: {ran.stdout[-1000:]}{ran.stderr[-2000:]}")
    return found[0]


def medians_ms(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 5):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number >= 5:  # the first ones warm up
                times[name].append((time.perf_counter() - began) * 1000)
    return {name: float(np.median(each)) for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yolo", default="", help="a Python that can import ultralytics, torch, torchvision and onnx")
    parser.add_argument("--rounds", type=int, default=60)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pictures, _ = shapes.pictures(8, seed=99)
    small = np.stack([resize_rgb(picture, *CLASSIFIER) for picture in pictures])
    detector, classifier = build_detector(LABELS), build_classifier(LABELS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_detector(detector, DETECTOR, folder / "detector.onnx", {})
        export_classifier(classifier, CLASSIFIER, folder / "classifier.onnx", {})
        parity = max(
            check_detector(folder / "detector.onnx", pictures, find(detector, pictures)),
            check_export(
                folder / "classifier.onnx",
                small,
                metrics.sigmoid(predict_logits(classifier, small).numpy().astype(np.float64)),
            ),
        )
        boxes, classes = open_session(folder / "detector.onnx"), open_session(folder / "classifier.onnx")
        calls: dict[str, Callable[[], object]] = {
            "detector": lambda: boxes.run(None, {"image": pictures[:1]}),
            "detector in PyTorch": lambda: find(detector, pictures[:1]),
            "classifier": lambda: classes.run(None, {"image": small[:1]}),
            "classifier in PyTorch": lambda: predict_logits(classifier, small[:1]),
        }
        if asked.yolo:
            peer = open_session(yolo_file(asked.yolo, folder / "peer"))
            [wanted] = peer.get_inputs()
            given = np.zeros(wanted.shape, np.float32)  # 256×320: its sides are multiples of 32
            given[:, :, : DETECTOR[0]] = pictures[:1].transpose(0, 3, 1, 2) / 255
            calls["YOLO11n (without suppression)"] = lambda: peer.run(None, {wanted.name: given})
        else:
            print("YOLO11n left out: name a Python that has ultralytics with --yolo")
        found = medians_ms(calls, asked.rounds)
    for name, milliseconds in found.items():
        print(f"{name:30} {milliseconds:7.2f} ms  {1000 / milliseconds:6.0f} pictures/s")
    peer_ms = found.get("YOLO11n (without suppression)")
    print(
        json.dumps(
            {
                "detect_fps": round(1000 / found["detector"]),
                "classify_fps": round(1000 / found["classifier"]),
                "x_torch_detect": round(found["detector in PyTorch"] / found["detector"], 2),
                "x_yolo11n": round(peer_ms / found["detector"], 2) if peer_ms else None,
                "parity_max_diff": parity,
            }
        )
    )


if __name__ == "__main__":
    main()
