"""One classification run from checked examples to the finished output folder; `worker.py` gives it its surroundings."""

from __future__ import annotations

import json
import platform
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gleaner import __version__
from gleaner.learn import metrics
from gleaner.learn.events import Events, utc_text
from gleaner.learn.export import (
    check_export,
    classifier_properties,
    export_classifier,
    fold_temperature,
    measure_inference_ms,
)
from gleaner.learn.fit import FEWEST_USEFUL_STEPS, FitPlan, FitResult, Metrics, Samples, fit, predict_logits
from gleaner.learn.network import build_classifier, parameter_count
from gleaner.learn.pictures import Loaded, choose_input_size, load_pictures
from gleaner.learn.report import Judged, describe_quality, list_wrong
from gleaner.learn.request import Example, RunRequest, Skipped, Task, check_examples
from gleaner.learn.split import Split, fingerprint, group_pictures, split_groups

FINISH_S = 4.0
"""Judging and exporting take about this long after training; only the shown estimate depends on it."""
READING_SHARE = 0.35
"""Of the budget at most goes to reading pictures; the rest of an oversized dataset is left out, with a warning."""
LEAST_TRAINING_S = 2.0
_CHECKED_PICTURES = 4
_DIRECTION = re.compile(r"(?i)(?<![a-z])(left|right)(?![a-z])")


@dataclass(frozen=True)
class Surroundings:
    """What a run needs from outside itself."""

    run_dir: Path
    events: Events
    elapsed: Callable[[], float]
    """Seconds since the run's process was asked to start."""


class ClassificationRun:
    def __init__(self, request: RunRequest, surroundings: Surroundings) -> None:
        self._request = request
        self._events = surroundings.events
        self._elapsed = surroundings.elapsed
        self._out = surroundings.run_dir / request.output_dir
        self._partial = self._out.with_name(self._out.name + ".partial")
        self._single = request.task is Task.SINGLE_LABEL
        torch.set_num_threads(request.threads)

    def run(self, examples: list[Example], skipped: list[Skipped]) -> None:
        """Leaves the complete output folder or none at all."""
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        size = choose_input_size(examples)
        loaded = self._load(examples, size)
        self._warn(check_examples([e.labels for e in loaded.examples], self._request))
        split = self._split(loaded)
        targets = self._targets(loaded.examples)
        result = self._train(loaded, targets, split, size)
        self._finish(result, loaded, targets, split, [*skipped, *loaded.skipped])
        shutil.rmtree(self._out, ignore_errors=True)
        self._partial.rename(self._out)

    def _load(self, examples: list[Example], size: tuple[int, int]) -> Loaded:
        self._events.log(f"Reading {len(examples)} pictures at {size[1]}×{size[0]}")
        order = list(examples)
        random.Random(self._request.seed).shuffle(order)
        started, limit_s = self._elapsed(), READING_SHARE * self._request.budget_s
        loaded = load_pictures(
            order,
            size,
            self._request.threads,
            lambda: self._elapsed() - started < limit_s,
            lambda _: self._progress("reading"),
        )
        if loaded.skipped:
            first = loaded.skipped[0]
            self._warn([f"{len(loaded.skipped)} pictures could not be used; the first, {first.id}: {first.reason}."])
        if loaded.left_out:
            read = len(examples) - loaded.left_out
            self._warn(
                [f"Only {read} of {len(examples)} pictures were read in the time given: allow more time to use all."]
            )
        return loaded

    def _split(self, loaded: Loaded) -> Split:
        self._progress("splitting")
        prints = np.stack([fingerprint(picture) for picture in loaded.pixels])
        groups = group_pictures(prints, loaded.examples)
        label_sets = [example.labels for example in loaded.examples]
        mixed = sum(len({label_sets[i] for i in group}) > 1 for group in groups)
        if mixed:
            self._warn(
                [f"{mixed} sets of nearly identical pictures carry different tags: look for mistakes in tagging."]
            )
        split = split_groups(groups, label_sets, self._request.seed)
        untested = [label for label in self._request.labels if not any(label in label_sets[i] for i in split.test)]
        if untested:
            self._warn(
                [f"No test picture of {', '.join(untested)}: all of them look the same. Capture from other places too."]
            )
        parts = f"{len(split.train)} to learn from, {len(split.validation)} to watch, {len(split.test)} to test"
        self._events.log(f"{len(loaded.examples)} pictures in {split.group_count} groups: {parts}")
        return split

    def _targets(self, examples: list[Example]) -> NDArray[np.bool_]:
        return np.array(
            [[label in example.labels for label in self._request.labels] for example in examples], dtype=np.bool_
        )

    def _train(self, loaded: Loaded, targets: NDArray[np.bool_], split: Split, size: tuple[int, int]) -> FitResult:
        torch.manual_seed(self._request.seed)
        network = build_classifier(len(self._request.labels))
        plan = FitPlan(
            input_size=size,
            seconds=max(LEAST_TRAINING_S, self._request.budget_s - self._elapsed()),
            single=self._single,
            seed=self._request.seed,
            threads=self._request.threads,
            mirror=not any(_DIRECTION.search(label) for label in self._request.labels),
        )
        self._events.log(f"Training for {plan.seconds:.0f} s")
        started = self._elapsed()

        def on_metrics(point: Metrics, _share: float) -> None:
            self._events.metrics(replace(point, t_s=round(started + point.t_s, 3)))
            self._progress("training")

        train, validation = (_samples(loaded, targets, part) for part in (split.train, split.validation))
        result = fit(network, train, validation, plan, self._elapsed, on_metrics)
        result.history[:] = [replace(point, t_s=round(started + point.t_s, 3)) for point in result.history]
        self._train_s = self._elapsed() - started
        self._plan = plan
        self._events.log(f"{result.steps} steps, {result.pictures_seen} pictures seen in {self._train_s:.1f} s")
        if result.steps < FEWEST_USEFUL_STEPS:
            self._warn(
                [f"Only {result.steps} training steps fitted into the time: allow more time for a better model."]
            )
        return result

    def _judge(self, result: FitResult, loaded: Loaded, targets: NDArray[np.bool_], part: list[int]) -> Judged:
        logits = predict_logits(result.network, _samples(loaded, targets, part).pictures).numpy().astype(np.float64)
        return Judged([loaded.examples[i] for i in part], metrics.sigmoid(logits), targets[part])

    def _finish(
        self, result: FitResult, loaded: Loaded, targets: NDArray[np.bool_], split: Split, skipped: list[Skipped]
    ) -> None:
        self._progress("evaluating")
        before = self._judge(result, loaded, targets, split.test)
        watched = _samples(loaded, targets, split.validation).pictures
        logits = predict_logits(result.network, watched).numpy().astype(np.float64)
        temperature = metrics.fit_temperature(logits, targets[split.validation])
        fold_temperature(result.network, temperature)
        validation = self._judge(result, loaded, targets, split.validation)
        test = self._judge(result, loaded, targets, split.test)
        threshold = metrics.suggest_threshold(validation.probabilities, validation.targets, self._single)
        quality = describe_quality(self._request, test, validation, threshold)
        calibration = {
            "temperature": temperature,
            "ece_before": round(metrics.expected_calibration_error(before.probabilities, before.targets), 5),
            "ece_after": quality["summary"]["ece"],
        }
        wrong = list_wrong(self._request, test, threshold, self._partial / "samples")
        exported = self._export(result, loaded, split, threshold)
        report = {
            **self._head(loaded, split),
            **quality,
            "calibration": calibration,
            "wrong": wrong,
            "skipped": [asdict(s) for s in skipped],
            "history": [asdict(point) for point in result.history],
            **exported,
        }
        text = json.dumps(report, ensure_ascii=False, allow_nan=False)
        (self._partial / "report.json").write_text(text, encoding="utf-8")
        summary = quality["summary"]
        if summary["accuracy"] is not None:
            self._events.log(
                f"{summary['accuracy']:.1%} of {summary['test_count']} pictures never seen in training are right"
            )

    def _export(self, result: FitResult, loaded: Loaded, split: Split, threshold: float) -> dict[str, Any]:
        self._progress("exporting")
        started = self._elapsed()
        request, path, size = self._request, self._partial / "model.onnx", self._plan.input_size
        properties = classifier_properties(list(request.labels), request.task.value, threshold, request.model_version)
        export_classifier(result.network, size, path, properties)
        (self._partial / "labels.txt").write_text("".join(f"{label}\n" for label in request.labels), encoding="utf-8")
        some = (split.test + split.validation + split.train)[:_CHECKED_PICTURES]
        chosen = torch.from_numpy(loaded.pixels[some]).permute(0, 3, 1, 2)
        expected = metrics.sigmoid(predict_logits(result.network, chosen).numpy().astype(np.float64))
        difference = check_export(path, loaded.pixels[some], expected)
        return {
            "timings": {
                "train_s": round(self._train_s, 2),
                "export_s": round(self._elapsed() - started, 2),
                "inference_ms": measure_inference_ms(path, loaded.pixels[some[0]]),
                "total_s": round(self._elapsed(), 2),
            },
            "model": {
                "size_bytes": path.stat().st_size,
                "parameters": parameter_count(result.network),
                "input_shape": [1, *size, 3],
                "largest_difference": difference,
                "steps": result.steps,
            },
        }

    def _head(self, loaded: Loaded, split: Split) -> dict[str, Any]:
        request, plan = self._request, self._plan
        return {
            "format": 1,
            "task": request.task.value,
            "labels": list(request.labels),
            "model_name": request.model_name,
            "model_version": request.model_version,
            "created_at": utc_text(datetime.now(UTC)),
            "dataset": {
                "hash": request.dataset_hash,
                "item_count": len(loaded.examples),
                "groups": split.group_count,
                "split": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
            },
            "config": {
                "input_size": list(plan.input_size),
                "seed": request.seed,
                "budget_s": request.budget_s,
                "threads": request.threads,
                "batch_size": plan.batch_size,
                "learning_rate": plan.learning_rate,
                "mirror": plan.mirror,
            },
            "versions": _versions(),
        }

    def _progress(self, phase: str) -> None:
        whole = max(self._request.budget_s, LEAST_TRAINING_S) + FINISH_S
        elapsed = self._elapsed()
        self._events.progress(min(0.99, elapsed / whole), phase, whole - elapsed)

    def _warn(self, messages: list[str]) -> None:
        for message in messages:
            self._events.warning(message)


def _samples(loaded: Loaded, targets: NDArray[np.bool_], part: list[int]) -> Samples:
    pictures = torch.from_numpy(loaded.pixels[part]).permute(0, 3, 1, 2).contiguous()
    return Samples(pictures, torch.from_numpy(targets[part].astype(np.float32)))


def _versions() -> dict[str, str]:
    import onnx
    import onnxruntime

    return {
        "gleaner": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }
