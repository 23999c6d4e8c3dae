"""One detection run from checked examples to the finished output folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gleaner.learn.detect import quality
from gleaner.learn.detect.doubts import review_boxes
from gleaner.learn.detect.export import check_detector, export_detector, fold_calibration
from gleaner.learn.detect.fit import BoxedPictures, DetectPlan, DetectResult, fit_detector
from gleaner.learn.detect.network import Found, build_detector, candidates, find, settled
from gleaner.learn.detect.report import (
    JudgedBoxes,
    calibration_error,
    describe_quality,
    has_every_box,
    list_wrong,
    suggest_threshold,
)
from gleaner.learn.detect.scenes import Boxes
from gleaner.learn.pictures import Loaded, choose_input_size
from gleaner.learn.previous import Answer
from gleaner.learn.request import Example, Skipped, check_examples, not_accepted
from gleaner.learn.run import LEAST_TRAINING_S, OnMetrics, Run
from gleaner.learn.split import Split

USUAL_PIXELS, MOST_PIXELS = 240 * 320, 384 * 512
"""Of the network's input; more only where the boxes would become too small to see."""
LEGIBLE_PX = 14.0
"""The shorter side that a small box should have in the network's input; with less than two cells it is guessed."""
LARGEST_SIDE = 640
_TIMED = 8
_SMALL_SHARE = 0.1
"""The small boxes that the input size is chosen for: larger than this share of all."""


class DetectionRun(Run):
    def work(self, examples: list[Example], skipped: list[Skipped]) -> None:
        size = choose_detector_size(examples, self.request.budget_s)
        loaded = self.load(examples, size)
        self.warn(check_examples([e.labels for e in loaded.examples], self.request, not_accepted(skipped)))
        split = self.split(loaded, "boxes that are missing")
        boxes = [_pixels(example, self.request.labels, size) for example in loaded.examples]
        result = self._train(loaded, boxes, split, size)
        self._finish(result, loaded, boxes, split, [*skipped, *loaded.skipped])

    def _train(self, loaded: Loaded, boxes: Sequence[Boxes], split: Split, size: tuple[int, int]) -> DetectResult:
        self._plan = DetectPlan(
            input_size=size,
            seconds=max(LEAST_TRAINING_S, self.seconds_left - self._judging_s(loaded, split)),
            seed=self.request.seed,
            threads=self.request.threads,
            mirror=self.may_mirror,
        )
        train, watched = (_chosen(loaded, boxes, part) for part in (split.train, split.validation))

        def fit_network(on_metrics: OnMetrics) -> DetectResult:
            network = build_detector(len(self.request.labels))
            return fit_detector(network, train, watched, self._plan, self.elapsed, on_metrics)

        return self.train(self._plan, fit_network, f" on {sum(map(len, boxes))} boxes")

    def _judging_s(self, loaded: Loaded, split: Split) -> float:
        """What it will take to look at the pictures that are kept from training: a third of a minute for two thousand."""
        kept = split.test + split.validation
        network, sample = build_detector(len(self.request.labels)), loaded.pixels.select(kept[:_TIMED])
        candidates(network, sample)  # the first time is slower
        began_s = self.elapsed()
        candidates(network, sample)
        return (self.elapsed() - began_s) * len(kept) / max(1, len(sample))

    def _judged(
        self, peaks: Sequence[Found], loaded: Loaded, boxes: Sequence[Boxes], part: Sequence[int], *calibration: float
    ) -> JudgedBoxes:
        found = [settled(one, *calibration) for one in peaks]
        examples, truths = [loaded.examples[i] for i in part], [boxes[i] for i in part]
        return JudgedBoxes(examples, found, truths, self._plan.input_size)

    def _finish(
        self, result: DetectResult, loaded: Loaded, boxes: Sequence[Boxes], split: Split, skipped: list[Skipped]
    ) -> None:
        self.progress("evaluating")
        count = len(self.request.labels)
        tested, watching = (candidates(result.network, loaded.pixels.select(p)) for p in (split.test, split.validation))
        before = self._judged(tested, loaded, boxes, split.test)
        watched = self._judged(watching, loaded, boxes, split.validation)
        got = quality.answers(watched.found, watched.truths, count)
        slope, offset = quality.fit_calibration(got.scores, got.right)
        fold_calibration(result.network, slope, offset)
        validation = self._judged(watching, loaded, boxes, split.validation, slope, offset)
        test = self._judged(tested, loaded, boxes, split.test, slope, offset)
        threshold = suggest_threshold(validation, count)
        figures = describe_quality(self.request, test, validation, threshold)
        calibration = {
            "temperature": round(1 / slope, 4),
            "offset": offset,
            "ece_before": round(calibration_error(before, count), 5),
            "ece_after": figures["summary"]["ece"],
        }
        samples = self.partial / "samples"
        wrong = list_wrong(self.request, test, threshold, samples)
        errors = review_boxes(
            self.request,
            (("test", test), ("validation", validation)),
            split.train,
            lambda part: self._judged(candidates(result.network, loaded.pixels.select(part)), loaded, boxes, part),
            samples,
            self.time_to_review(),
        )
        pairs = zip(test.found, test.truths, strict=True)
        answers = [Answer(has_every_box(*pair, threshold, count), boxes=pair) for pair in pairs]
        compared = self.compare(loaded, split, answers)
        exported = self._export(result, loaded, split, threshold)
        head = self.head(loaded, split, self._plan, result)
        self.write_report(
            result,
            skipped,
            {
                **head,
                **figures,
                "calibration": calibration,
                "wrong": wrong,
                "label_errors": errors,
                **compared,
                **exported,
            },
        )
        summary = figures["summary"]
        if summary["map50"] is not None:
            self.events.log(
                f"mAP50 {summary['map50']:.1%} on {summary['test_count']} pictures never seen in training; "
                f"{summary['accuracy']:.1%} of them have every box right and none too many"
            )

    def _export(self, result: DetectResult, loaded: Loaded, split: Split, threshold: float) -> dict[str, Any]:
        def write(path: Path, properties: Mapping[str, str]) -> None:
            export_detector(result.network, self._plan.input_size, path, properties)

        def largest_difference(path: Path, pictures: NDArray[np.uint8]) -> float:
            return check_detector(path, pictures, find(result.network, pictures))

        def write_tflite(path: Path) -> None:
            from gleaner.learn.export_tflite import write_detector

            write_detector(result.network, self._plan.input_size, path)

        return self.export(result, loaded, split, threshold, write, write_tflite, largest_difference)


def choose_detector_size(examples: Sequence[Example], budget_s: float) -> tuple[int, int]:
    """(height, width): the pictures' usual shape; larger than usual where small boxes ask for it, smaller when time is short."""
    usual = USUAL_PIXELS if budget_s >= 30 else USUAL_PIXELS // 2
    height, width = choose_input_size(examples, usual, LARGEST_SIDE)
    sides = sorted(
        min((box.x_max - box.x_min) * width, (box.y_max - box.y_min) * height) for e in examples for box in e.boxes
    )
    if not sides:
        return height, width
    small = sides[int(len(sides) * _SMALL_SHARE)]
    area = usual * min(MOST_PIXELS / USUAL_PIXELS, max(1.0, LEGIBLE_PX / max(small, 1e-3)) ** 2)
    return choose_input_size(examples, math.ceil(area), LARGEST_SIDE)


def _pixels(example: Example, labels: Sequence[str], size: tuple[int, int]) -> Boxes:
    height, width = size
    rows = [
        [labels.index(box.label), box.x_min * width, box.y_min * height, box.x_max * width, box.y_max * height]
        for box in example.boxes
    ]
    return np.array(rows, np.float32).reshape(-1, 5)


def _chosen(loaded: Loaded, boxes: Sequence[Boxes], part: Sequence[int]) -> BoxedPictures:
    return BoxedPictures(loaded.pixels.select(part), [boxes[i] for i in part])
