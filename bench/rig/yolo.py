# ruff: noqa: E402 - torchvision can be imported only beside its missing operators
"""The peer of `train_detect`: YOLO11n by Ultralytics, from scratch. Run by a Python of its own (AGPL: never a dependency of ours).

    <python with ultralytics> yolo.py <folder with data.yaml> <seconds of all cores> <threads> <answers.npz>

Writes what the trained model finds in `test/` (1e-3 and above, its own suppression): boxes in pixels, scores, labels, picture numbers.
torchvision's compiled operators need the torch that it was built for; the one that is used here stands in plain Python.
"""

import os
import sys
import time
from pathlib import Path

os.environ.update(YOLO_OFFLINE="True", YOLO_AUTOINSTALL="False", OMP_WAIT_POLICY="passive")

import numpy as np
import torch

_library = torch.library.Library("torchvision", "DEF")
try:
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
except RuntimeError:
    pass  # torchvision brought its own


def nms(boxes, scores, overlap):
    boxes, order = boxes.detach().float().numpy(), scores.detach().float().numpy().argsort()[::-1]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept = []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        low, high = np.maximum(boxes[first, :2], boxes[rest, :2]), np.minimum(boxes[first, 2:], boxes[rest, 2:])
        common = (high - low).clip(0).prod(1)
        order = rest[common / (areas[first] + areas[rest] - common + 1e-9) <= overlap]
    return torch.tensor(np.array(kept, dtype=np.int64))


_library.impl("nms", nms, "CPU")
import torchvision.extension

torchvision.extension._has_ops = lambda: True
torchvision.extension._assert_has_ops = lambda: None
import torchvision.ops.boxes

torchvision.ops.boxes._assert_has_ops = lambda: None
import ultralytics.engine.trainer
from ultralytics import YOLO

folder, seconds, threads, answers = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(threads)


class CpuClock:
    """Ultralytics' own time limit, counted in seconds of all cores."""

    def __getattr__(self, name):
        return getattr(time, name)

    def time(self):
        return 1e9 + time.process_time() / threads


ultralytics.engine.trainer.time = CpuClock()
model = YOLO("yolo11n.yaml")
model.train(
    data=str(folder / "data.yaml"), imgsz=320, batch=16, device="cpu", workers=0, amp=False, plots=False, val=False,
    pretrained=False, time=seconds / 3600, epochs=400, verbose=False, project=str(folder / "runs"), name="peer",
    cos_lr=True, cache="ram", patience=0, exist_ok=True,
)  # fmt: skip
model = YOLO(f"{model.trainer.save_dir}/weights/last.pt")
boxes, scores, labels, numbers = [], [], [], []
for number, path in enumerate(sorted((folder / "images" / "test").glob("*.png"))):
    [found] = model.predict(str(path), imgsz=320, conf=1e-3, iou=0.6, max_det=100, verbose=False, device="cpu")
    boxes.append(found.boxes.xyxy.numpy())
    scores.append(found.boxes.conf.numpy())
    labels.append(found.boxes.cls.numpy())
    numbers.append(np.full(len(found.boxes), number))
np.savez(answers, *map(np.concatenate, (boxes, scores, labels, numbers)))
