# ruff: noqa: E402 - the threads have to be told before torch is imported
"""How well a detector learns from a handful of pictures, beside YOLO11n from scratch with the same pictures and CPU seconds.

    python bench/train_detect.py [--seconds 180] [--yolo <python with ultralytics>] [--only shapes|raccoon] [--seed 0] [--hard]

`shapes`: 120 generated pictures with 1–4 of twelve shapes (`rig/shapes.py`), 500 others to test. `raccoon`: 200 real photos, the first
160 in order of their numbers to learn from, the last 40 to test, 5 minutes. Time is counted in seconds of all cores (process time divided
by the number of threads), so that a busy machine changes nothing. mAP as COCO counts it. Without `--yolo` the peer is left out, said so.
Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from gleaner.learn.threads import prepare_environment

prepare_environment()

import cv2
import numpy as np
import torch

from gleaner.learn.detect.fit import BoxedPictures, DetectPlan, fit_detector
from gleaner.learn.detect.network import Found, build_detector, find
from gleaner.learn.detect.quality import map50, map50_95
from gleaner.wire.picture import read_rgb, resize_rgb
from rig import shapes

SIZE = (240, 320)
THREADS = 2


def generated(seed: int, hard: bool) -> tuple[BoxedPictures, BoxedPictures, tuple[str, ...]]:
    difficulty = shapes.HARD if hard else shapes.USUAL
    sets = ((10, 120), (20, 500))
    train, test = (BoxedPictures(*shapes.pictures(count, seed + part, difficulty)) for part, count in sets)
    return train, test, shapes.CLASSES


def raccoons(folder: Path) -> tuple[BoxedPictures, BoxedPictures, tuple[str, ...]]:
    pictures, boxes = [], []
    for path in sorted((folder / "annotations").glob("*.xml"), key=lambda p: int(p.stem.rpartition("-")[2])):
        root = ET.parse(path).getroot()
        picture = read_rgb((folder / "images" / f"{path.stem}.jpg").read_bytes())
        scale = np.array([SIZE[1] / picture.shape[1], SIZE[0] / picture.shape[0]] * 2)
        edges = [
            [float(one.findtext(f"bndbox/{edge}") or 0) for edge in ("xmin", "ymin", "xmax", "ymax")]
            for one in root.iter("object")
        ]
        pictures.append(resize_rgb(picture, *SIZE))
        found = np.array(edges).reshape(-1, 4) * scale
        boxes.append(np.concatenate([np.zeros((len(found), 1)), found], 1).astype(np.float32))
    stacked = np.stack(pictures)
    return BoxedPictures(stacked[:160], boxes[:160]), BoxedPictures(stacked[160:], boxes[160:]), ("raccoon",)


def ours(
    train: BoxedPictures, test: BoxedPictures, labels: tuple[str, ...], seconds: float, seed: int
) -> dict[str, float]:
    torch.manual_seed(seed)
    torch.set_num_threads(THREADS)
    none = BoxedPictures(test.pictures[:0], [])
    plan = DetectPlan(SIZE, seconds, seed=seed, threads=THREADS)
    result = fit_detector(
        build_detector(len(labels)),
        train,
        none,
        plan,
        lambda: time.process_time() / THREADS,
        lambda _point, _share: None,
    )
    return figures(find(result.network, test.pictures), test) | {"steps": result.steps}


def figures(found: list[Found], test: BoxedPictures) -> dict[str, float]:
    return {"map50": round(map50(found, test.boxes) or 0, 4), "map5095": round(map50_95(found, test.boxes) or 0, 4)}


def yolo(
    python: str, train: BoxedPictures, test: BoxedPictures, labels: tuple[str, ...], seconds: float
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, own in (("train", train), ("test", test)):
            (folder / "images" / part).mkdir(parents=True)
            (folder / "labels" / part).mkdir(parents=True)
            for number, (picture, boxes) in enumerate(zip(own.pictures, own.boxes, strict=True)):
                cv2.imwrite(str(folder / "images" / part / f"{number:05d}.png"), picture[..., ::-1])
                middles, sides = (boxes[:, 1:3] + boxes[:, 3:]) / 2, boxes[:, 3:] - boxes[:, 1:3]
                rows = np.concatenate([boxes[:, :1], *(each / [SIZE[1], SIZE[0]] for each in (middles, sides))], 1)
                text = "".join(f"{int(row[0])} {' '.join(f'{v:.6f}' for v in row[1:])}\n" for row in rows)
                (folder / "labels" / part / f"{number:05d}.txt").write_text(text)
        listed = json.dumps(dict(enumerate(labels)))
        (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/test\nnames: {listed}\n")
        answers = folder / "answers.npz"
        script = Path(__file__).parent / "rig" / "yolo.py"
        command = [python, str(script), str(folder), str(seconds), str(THREADS), str(answers)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if ran.returncode:
            raise SystemExit(f"the peer failed: {ran.stdout[-1000:]}{ran.stderr[-2000:]}")
        with np.load(answers) as saved:
            places, scores, names, numbers = (torch.from_numpy(saved[f"arr_{i}"]) for i in range(4))
    found = [Found(places[numbers == n], scores[numbers == n], names[numbers == n].long()) for n in range(len(test))]
    return figures(found, test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--raccoon-seconds", type=float, default=300.0)
    parser.add_argument("--yolo", default="", help="a Python that can import ultralytics, torch and torchvision")
    parser.add_argument("--only", choices=("shapes", "raccoon"))
    parser.add_argument("--raccoons", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "raccoon")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hard", action="store_true", help="smaller things that cover each other")
    asked = parser.parse_args()
    last: dict[str, float | None] = {}
    for kind, prefix, seconds in (("shapes", "", asked.seconds), ("raccoon", "raccoon_", asked.raccoon_seconds)):
        if asked.only not in (None, kind):
            continue
        if kind == "raccoon" and not asked.raccoons.is_dir():
            print(f"raccoon left out: there is no {asked.raccoons}")
            continue
        train, test, labels = generated(asked.seed, asked.hard) if kind == "shapes" else raccoons(asked.raccoons)
        print(f"{kind}: {len(train)} pictures to learn from, {len(test)} to test, {seconds:.0f} s of {THREADS} cores")
        own = ours(train, test, labels, seconds, asked.seed)
        print(f"  gleaner  mAP50 {own['map50']:.3f}  mAP50-95 {own['map5095']:.3f}  ({own['steps']} steps)", flush=True)
        last |= {f"{prefix}map50": own["map50"], f"{prefix}map5095": own["map5095"]}
        if not asked.yolo:
            print("  YOLO11n  left out: name a Python that has ultralytics with --yolo")
            continue
        peer = yolo(asked.yolo, train, test, labels, seconds)
        print(f"  YOLO11n  mAP50 {peer['map50']:.3f}  mAP50-95 {peer['map5095']:.3f}", flush=True)
        names = ("x_yolo_map50", "yolo_map50") if kind == "shapes" else ("x_yolo_raccoon_map50", "yolo_raccoon_map50")
        last |= {names[0]: round(own["map50"] / max(peer["map50"], 1e-4), 2), names[1]: peer["map50"]}
    print(json.dumps(last))


if __name__ == "__main__":
    main()
