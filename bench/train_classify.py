"""What training gives for a handful of pictures per tag, beside peers on the same pictures.

    python bench/train_classify.py [--budget 60] [--counts 40,20,12] [--seeds 0,1,2] [--digits 0123456789]
    python bench/train_classify.py --arena

Ten hand signs from photos (folders of `--photos`): the first 40, 20 or 12 of each folder in name order are learned, the last
20 are asked; neighbours are often the same hand. Medians over the seeds. The worker runs as a process of its own, as the app
starts it, and its model.onnx is asked through the machine's own picture rule: right is whose label is the strongest.
Peers on the largest count: MobileNetV3-Small from scratch in the same seconds, with our own loop and augmentation at our input
size, Frigate's recipe from scratch (`rig/mobilenet_v2.py`), and scikit-learn's RBF support vector machine on HOG and colour
histograms and logistic regression on raw pixels, both also taught the mirrored pictures. The instant model is what the app suggests
tags with.
`--arena`: four signs of the simulated arena and pictures of none, learned from one set of places and asked at others; right is
the label, or "none of these", at the suggested threshold. Needs scikit-learn (pip install scikit-learn). Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gleaner.learn.threads import prepare_environment
from gleaner.wire.picture import Rgb, read_rgb, resize_rgb

ARENA_LABELS = ("red_star", "blue_star", "blue_circle", "yellow_circle")
PEER_SIZE = (96, 96)
ASKED = 20

Labelled = list[tuple[str | None, bytes]]


def signs(photos: Path, digits: str, count: int) -> tuple[Labelled, Labelled]:
    train: Labelled = []
    asked: Labelled = []
    for digit in digits:
        files = sorted((photos / digit).glob("*.jpg"))
        train += [(digit, f.read_bytes()) for f in files[:count]]
        asked += [(digit, f.read_bytes()) for f in files[-ASKED:]]
    return train, asked


def arena(count: int, asked_count: int, seed: int) -> tuple[Labelled, Labelled]:
    from gleaner.sim.views import labelled_views

    names: list[str | None] = [*ARENA_LABELS, None]

    def views(count: int, seed: int) -> Labelled:
        return [(view.label, view.jpeg) for name in names for view in labelled_views(name, count, seed)]

    return views(count, 1000 + seed), views(asked_count, 2000 + seed)


def train(
    run_dir: Path, pictures: Labelled, labels: list[str], budget_s: float, seed: int
) -> tuple[dict[str, object], float]:
    """(report, seconds) of one run of the worker."""
    lines = []
    for index, (label, data) in enumerate(pictures):
        (run_dir / f"{index}.jpg").write_bytes(data)
        tags = [{"annotation_label": label}] if label else []
        lines.append({"image_path": f"{index}.jpg", "classification_annotations": tags, "binary_data_id": str(index)})
    (run_dir / "dataset.jsonl").write_text("\n".join(map(json.dumps, lines)))
    request = {
        "task": "single_label_classification",
        "labels": labels,
        "seed": seed,
        "budget_s": budget_s,
        "threads": 2,
    }
    (run_dir / "run.json").write_text(json.dumps(request))
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "gleaner.learn.worker", str(run_dir)], capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - began
    if ran.returncode:
        sys.exit(f"the worker failed: {ran.stdout[-1500:]}{ran.stderr[-1500:]}")
    return json.loads((run_dir / "out" / "report.json").read_text()), seconds


def ask(model: Path, pictures: Labelled, labels: list[str], threshold: float) -> tuple[float, float]:
    """(share right, mean confidence in the true label) of the exported file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    _, height, width, _ = session.get_inputs()[0].shape
    right, confidences = 0, []
    for label, data in pictures:
        image = resize_rgb(read_rgb(data, fit=(height, width)), height, width)
        scores = session.run(["probability"], {"image": image[None]})[0][0]
        said = labels[int(scores.argmax())] if scores.max() >= threshold else None
        right += said == label
        if label:
            confidences.append(float(scores[labels.index(label)]))
    return right / len(pictures), float(np.mean(confidences))


def instant_model(pictures: Labelled, asked: Labelled, labels: list[str], folder: Path) -> dict[str, float]:
    """A head over the starting weights, as the app suggests tags with; the backbone's graph is there already in an app."""
    from gleaner.learn import embed, instant
    from gleaner.learn.request import Example
    from gleaner.learn.split import fingerprint, group_pictures

    embed.write_graph(folder / "backbone.onnx")
    began = time.monotonic()
    embedder = embed.Embedder(folder / "backbone.onnx")
    taught = [(label, read_rgb(data)) for label, data in pictures if label]
    examples = [Example(str(n), Path(), frozenset({label}), 10.0 * n, "") for n, (label, _) in enumerate(taught)]
    groups = group_pictures(np.stack([fingerprint(picture) for _, picture in taught]), examples)
    targets = np.array([[label == one for one in labels] for label, _ in taught])
    learned = instant.learn(np.stack([embedder.vector(picture) for _, picture in taught]), targets, groups)
    seconds = time.monotonic() - began
    questions = [(label, read_rgb(data)) for label, data in asked if label]
    said = learned.head.logits(np.stack([embedder.vector(picture) for _, picture in questions])).argmax(1)
    right = float(np.mean([labels[i] == label for i, (label, _) in zip(said, questions, strict=True)]))
    claimed = float((learned.held_out.argmax(1) == targets.argmax(1))[learned.is_tested].mean())
    return {"accuracy": round(right, 4), "held_out_accuracy": round(claimed, 4), "train_s": round(seconds, 2)}


def peers(pictures: Labelled, asked: Labelled) -> dict[str, dict[str, float]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    small = [(label or "", resize_rgb(read_rgb(data, fit=PEER_SIZE), *PEER_SIZE)) for label, data in pictures]
    taught = small + [(label, np.ascontiguousarray(picture[:, ::-1])) for label, picture in small]
    questions = [(label or "", resize_rgb(read_rgb(data, fit=PEER_SIZE), *PEER_SIZE)) for label, data in asked]
    found = {}
    for name, feature, model in (
        ("raw_pixels_logistic_regression", _raw, LogisticRegression(C=0.01, max_iter=500)),
        ("hog_colour_svm", _hog, SVC(C=10)),
    ):
        began = time.monotonic()
        pipeline = make_pipeline(StandardScaler(), model)
        pipeline.fit(_features(taught, feature), [label for label, _ in taught])
        seconds = time.monotonic() - began
        answers = pipeline.predict(_features(questions, feature))
        right = float(np.mean([a == label for a, (label, _) in zip(answers, questions, strict=True)]))
        found[name] = {"accuracy": round(right, 4), "train_s": round(seconds, 2)}
    return found


def _features(pictures: Iterable[tuple[str, Rgb]], feature: object) -> np.ndarray:
    return np.stack([feature(picture) for _, picture in pictures])  # type: ignore[operator]


def _raw(picture: Rgb) -> np.ndarray:
    return resize_rgb(picture, 32, 32).ravel().astype(np.float32)


def _hog(picture: Rgb) -> np.ndarray:
    """Nine orientations in 8×8-pixel cells, normalized in 2×2 blocks (Dalal and Triggs 2005), and an HSV histogram."""
    import cv2

    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=1), cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=1)
    strength, angle = np.hypot(dx, dy), np.mod(np.arctan2(dy, dx), np.pi) / np.pi * 9
    rows, columns = (side // 8 for side in grey.shape)
    cells = np.zeros((rows, columns, 9), np.float32)
    for orientation in range(9):
        part = np.where(angle.astype(int) % 9 == orientation, strength, 0)
        cells[..., orientation] = part.reshape(rows, 8, columns, 8).sum((1, 3))
    blocks = np.concatenate([cells[:-1, :-1], cells[1:, :-1], cells[:-1, 1:], cells[1:, 1:]], axis=2)
    blocks /= np.linalg.norm(blocks, axis=2, keepdims=True) + 1e-3
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    colours = np.sqrt(cv2.calcHist([hsv], [0, 1, 2], None, [12, 4, 3], [0, 180, 0, 256, 0, 256]).ravel())
    return np.concatenate([blocks.ravel(), colours / (np.linalg.norm(colours) + 1e-6) * 3])


def measure(name: str, pictures: Labelled, asked: Labelled, budget_s: float, seed: int) -> dict[str, object]:
    labels = sorted({label for label, _ in pictures if label})
    with tempfile.TemporaryDirectory(prefix="gleaner-bench-") as folder:
        report, seconds = train(Path(folder), pictures, labels, budget_s, seed)
        summary: dict[str, float] = report["summary"]  # type: ignore[assignment]
        model = Path(folder) / "out" / "model.onnx"
        threshold = summary["suggested_threshold"]
        right, confidence = ask(model, asked, labels, threshold)
        right_at_half, _ = ask(model, asked, labels, 0.5)
        instant_found = instant_model(pictures, asked, labels, Path(folder))
    found = {
        "accuracy": round(right, 4),
        "accuracy_at_0.5": round(right_at_half, 4),
        "confidence": round(confidence, 3),
        "reported_accuracy": summary["accuracy"],
        "threshold": threshold,
        "total_s": round(seconds, 1),
        "steps": report["model"]["steps"],  # type: ignore[index]
        "inference_ms": report["timings"]["inference_ms"],  # type: ignore[index]
        "input": report["config"]["input_size"],  # type: ignore[index]
        "asked": len(asked),
        "instant": instant_found,
        "peers": peers(pictures, asked),
    }
    print(f"{name}: {json.dumps(found)}", flush=True)
    return found


def measure_signs(options: argparse.Namespace) -> dict[str, float]:
    """The keys of the last line."""
    counts = [int(one) for one in options.counts.split(",")]
    seeds = [int(one) for one in options.seeds.split(",")]
    found: dict[str, float] = {}
    for count in counts:
        pictures, asked = signs(options.photos, options.digits, count)
        labels = sorted(options.digits)
        runs, steps = [], []
        for seed in seeds:
            with tempfile.TemporaryDirectory(prefix="gleaner-bench-") as folder:
                report, _ = train(Path(folder), pictures, labels, options.budget, seed)
                right, _ = ask(Path(folder) / "out" / "model.onnx", asked, labels, 0.0)
                runs.append(right)
                steps.append(report["model"]["steps"])  # type: ignore[index]
        with tempfile.TemporaryDirectory(prefix="gleaner-bench-") as folder:
            quick = instant_model(pictures, asked, labels, Path(folder))
        found |= {f"acc_{count}": statistics.median(runs), f"instant_{count}": quick["accuracy"]}
        print(f"{count} of each: {[round(one, 4) for one in runs]} in {steps} steps; instant {quick}", flush=True)
        classical = peers(pictures, asked)
        found[f"hog_{count}"] = classical["hog_colour_svm"]["accuracy"]
        print(f"{count} of each: {classical}", flush=True)
    pictures, asked = signs(options.photos, options.digits, counts[0])
    scratch = [mobilenet(pictures, asked, sorted(options.digits), options.budget, seed) for seed in seeds]
    print(f"{counts[0]} of each, MobileNetV3-Small from scratch: {scratch}", flush=True)
    found[f"mobilenet_{counts[0]}"] = statistics.median(scratch)
    recipe = [frigates(pictures, asked, sorted(options.digits), options.budget, seed) for seed in seeds]
    print(f"{counts[0]} of each, Frigate's recipe from scratch: {recipe}", flush=True)
    found[f"frigate_{counts[0]}"] = statistics.median(recipe)
    return {name: round(value, 4) for name, value in found.items()}


def mobilenet(pictures: Labelled, asked: Labelled, labels: list[str], budget_s: float, seed: int) -> float:
    import torch

    from gleaner.learn.fit import FitPlan, Samples, fit, predict_logits
    from rig.mobilenet import MobileNetV3Small

    def samples(given: Labelled) -> Samples:
        pixels = np.stack([resize_rgb(read_rgb(data, fit=PEER_SIZE), *PEER_SIZE) for _, data in given])
        targets = np.array([[label == one for one in labels] for label, _ in given], np.float32)
        return Samples(pixels, torch.from_numpy(targets))

    torch.manual_seed(seed)
    plan = FitPlan(PEER_SIZE, budget_s, single=True, seed=seed, threads=2, learning_rate=1e-3)
    result = fit(MobileNetV3Small(len(labels)), samples(pictures), None, plan, time.monotonic, lambda *_: None)  # type: ignore[arg-type]
    questions = samples(asked)
    said = predict_logits(result.network, questions.pictures).argmax(1)
    return round(float((said == questions.targets.argmax(1)).float().mean()), 4)


def frigates(pictures: Labelled, asked: Labelled, labels: list[str], budget_s: float, seed: int) -> float:
    import torch

    from rig import mobilenet_v2

    def arrays(given: Labelled) -> tuple[Rgb, NDArray[np.int64]]:
        size = mobilenet_v2.SIZE
        pixels = np.stack([resize_rgb(read_rgb(data, fit=size), *size) for _, data in given])
        return pixels, np.array([labels.index(label or "") for label, _ in given])

    torch.set_num_threads(2)
    return round(mobilenet_v2.accuracy(arrays(pictures), arrays(asked), len(labels), budget_s, seed), 4)


def main() -> None:
    prepare_environment()  # of the peers that are trained in this process
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for each run")
    parser.add_argument("--counts", default="40,20,12", help="photos of each sign that are learned")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--digits", default="0123456789")
    parser.add_argument("--photos", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "signs")
    parser.add_argument("--arena", action="store_true")
    parser.add_argument("--per-label", type=int, default=16, help="views of the arena per label that are learned")
    parser.add_argument("--asked", type=int, default=40, help="held-out views of the arena per label")
    options = parser.parse_args()
    if options.arena:
        results = measure("arena", *arena(options.per_label, options.asked, 0), options.budget, 0)
        print(json.dumps({"arena": results}))
    elif options.photos.is_dir():
        print(json.dumps(measure_signs(options)))
    else:
        sys.exit(f"There are no photos in {options.photos}: name their folder with --photos, or ask for --arena.")


if __name__ == "__main__":
    main()
