"""One classification run from checked examples to the finished output folder; `worker.py` gives it its surroundings."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gleaner.learn import metrics
from gleaner.learn.attention import attention, overlaid
from gleaner.learn.backbone_name import check_backbone
from gleaner.learn.backbones.start import Start, foreign_start, own_start
from gleaner.learn.export import check_export, export_classifier, fold_temperature
from gleaner.learn.fit import FitPlan, FitResult, Samples, fit, predict_logits, progressive_size
from gleaner.learn.network import Classifier, build_classifier
from gleaner.learn.outlook import Answers
from gleaner.learn.pictures import Loaded, choose_input_size
from gleaner.learn.previous import Answer
from gleaner.learn.quick import quick_classifier, take_quick
from gleaner.learn.report import Judged, describe_quality, list_wrong
from gleaner.learn.request import Example, Skipped, Task, check_examples
from gleaner.learn.review import Material, backbones, review
from gleaner.learn.run import LAST_LAYER, OnMetrics, Run
from gleaner.learn.split import Split
from gleaner.wire.picture import Rgb

_FEW_STEPS = 300
"""Beyond, the whole network has always measured better."""
_USUAL_PIXELS, _USUAL_LARGEST = 224 * 224, 320
"""What other backbones have nearly all been trained at; they see much less in smaller pictures."""
_QUICK_SHARE = 0.1
"""Of the time at most, on top of it: as many pictures as that is enough for."""
_LAST_LAYER_SHARE = 0.3
"""Of the time at most goes into the last layer over another backbone; pictures it does not reach wait for the rest."""


class ClassificationRun(Run):
    def work(self, examples: list[Example], skipped: list[Skipped]) -> None:
        size = choose_input_size(examples, *((_USUAL_PIXELS, _USUAL_LARGEST) if self.request.backbone else ()))
        self._start = self._starting_point(size)
        loaded = self.load(examples, size)
        self.warn(check_examples([e.labels for e in loaded.examples], self.request))
        split = self.split(loaded, "mistakes in tagging")
        targets = self._targets(loaded.examples)
        result = self._train(loaded, targets, split, size)
        self._finish(result, loaded, targets, split, [*skipped, *loaded.skipped])

    @property
    def _single(self) -> bool:
        return self.request.task is Task.SINGLE_LABEL

    def _targets(self, examples: list[Example]) -> NDArray[np.bool_]:
        return np.array(
            [[label in example.labels for label in self.request.labels] for example in examples], dtype=np.bool_
        )

    def _starting_point(self, size: tuple[int, int]) -> Start:
        name = check_backbone(self.request.backbone, detects=False)
        if name is None:
            return own_start()
        began_s = self.elapsed()
        plan = self._plan_for(size, is_own=False)
        sizes = sorted({progressive_size(plan, share) for share in (0.0, 1.0)})
        start = foreign_start(name, self.request.accept_license, sizes, self.events.log)
        self.fetching_s = self.elapsed() - began_s
        self.events.log(f"Starting from {name}, licence {start.about['license']}")
        return start

    def _plan_for(self, size: tuple[int, int], is_own: bool) -> FitPlan:
        plan = FitPlan(
            input_size=size,
            seconds=self.seconds_left,
            single=self._single,
            seed=self.request.seed,
            threads=self.request.threads,
            mirror=self.may_mirror,
        )
        return plan if is_own else replace(plan, learning_rate=5e-4, trunk_rate=0.2, batch_size=16, start_scale=1.0)

    def _train(self, loaded: Loaded, targets: NDArray[np.bool_], split: Split, size: tuple[int, int]) -> FitResult:
        self._plan = self._plan_for(size, self._start.is_own)
        train, validation = (_samples(loaded, targets, part) for part in (split.train, split.validation))

        def fit_network(on_metrics: OnMetrics) -> FitResult:
            if not self._start.is_own:
                return self._fit_foreign(train, validation, on_metrics)
            network = build_classifier(len(self.request.labels), backbone=self._start.trunk())
            result = fit(network, train, validation, self._plan, self.elapsed, on_metrics)
            if result.steps < _FEW_STEPS and len(validation):
                began_s, share_s = self.elapsed(), _QUICK_SHARE * self._plan.seconds
                quick = quick_classifier(train, self._start.trunk(), lambda: self.elapsed() - began_s < share_s)
                _keep_better(result, quick, validation)
            return result

        return self.train(self._plan, fit_network)

    def _fit_foreign(self, train: Samples, validation: Samples, on_metrics: OnMetrics) -> FitResult:
        """The last layer first, then all of them gently: a random last layer's gradients would spoil what the backbone knows
        (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features")."""
        began_s = self.elapsed()
        share_s = _LAST_LAYER_SHARE * self._plan.seconds
        quick = quick_classifier(train, self._start.trunk(), lambda: self.elapsed() - began_s < share_s)
        self._plan = replace(self._plan, seconds=self.seconds_left)
        result = fit(deepcopy(quick), train, validation, self._plan, self.elapsed, on_metrics)
        _keep_better(result, quick, validation, calibrated=True)
        return result

    def _judged(
        self, logits: NDArray[np.float64], loaded: Loaded, targets: NDArray[np.bool_], part: list[int]
    ) -> Judged:
        return Judged([loaded.examples[i] for i in part], metrics.sigmoid(logits), targets[part])

    def _finish(
        self, result: FitResult, loaded: Loaded, targets: NDArray[np.bool_], split: Split, skipped: list[Skipped]
    ) -> None:
        self.progress("evaluating")
        tested, watched = (
            predict_logits(result.network, loaded.pixels.select(part)).numpy().astype(np.float64)
            for part in (split.test, split.validation)
        )
        before = self._judged(tested, loaded, targets, split.test)
        temperature = metrics.fit_temperature(watched, targets[split.validation])
        fold_temperature(result.network, temperature)
        validation = self._judged(watched / temperature, loaded, targets, split.validation)
        test = self._judged(tested / temperature, loaded, targets, split.test)
        threshold = metrics.suggest_threshold(validation.probabilities, validation.targets, self._single)
        quality = describe_quality(self.request, test, validation, threshold)
        calibration = {
            "temperature": temperature,
            "ece_before": round(metrics.expected_calibration_error(before.probabilities, before.targets), 5),
            "ece_after": quality["summary"]["ece"],
        }
        samples = self.partial / "samples"

        def looked_at(picture: int, label: int, sample: Rgb) -> Rgb:
            return overlaid(sample, attention(result.network, loaded.pixels[split.test[picture]], label))

        wrong = list_wrong(self.request, test, threshold, samples, looked_at)
        answers = Answers(*(np.concatenate(both) for both in _both(test, validation)))
        reviewed = review(
            self.request,
            Material(loaded, targets, split, self.groups),
            backbones(result, self._start.trunk()),
            answers,
            samples,
            self.time_to_review(),
        )
        said = metrics.decide(test.probabilities, threshold, self._single)
        compared = self.compare(
            loaded,
            split,
            [Answer(bool((row == wanted).all()), row) for row, wanted in zip(said, test.targets, strict=True)],
        )
        exported = self._export(result, loaded, split, threshold)
        head = self.head(loaded, split, self._plan, result)
        if not self._start.is_own:
            head["config"]["backbone"] = self._start.about
            library = "timm" if self.request.backbone.startswith("timm:") else "transformers"
            head["versions"][library] = version(library)
        self.write_report(
            result,
            skipped,
            {**head, **quality, "calibration": calibration, "wrong": wrong, **reviewed, **compared, **exported},
        )
        summary = quality["summary"]
        if summary["accuracy"] is not None:
            self.events.log(
                f"{summary['accuracy']:.1%} of {summary['test_count']} pictures never seen in training are right"
            )

    def _export(self, result: FitResult, loaded: Loaded, split: Split, threshold: float) -> dict[str, Any]:
        def write(path: Path, properties: Mapping[str, str]) -> None:
            about = {f"gleaner.backbone_{key}": value for key, value in self._start.about.items()}
            export_classifier(result.network, self._plan.input_size, path, {**properties, **about})

        def largest_difference(path: Path, pictures: NDArray[np.uint8]) -> float:
            expected = metrics.sigmoid(predict_logits(result.network, pictures).numpy().astype(np.float64))
            return check_export(path, pictures, expected)

        def write_tflite(path: Path) -> None:
            from gleaner.learn.export_tflite import write_classifier

            write_classifier(result.network, self._plan.input_size, path)

        return self.export(result, loaded, split, threshold, write, write_tflite, largest_difference)


def _keep_better(result: FitResult, quick: Classifier, validation: Samples, calibrated: bool = False) -> None:
    if take_quick(result, quick, validation, calibrated):
        result.learned = LAST_LAYER


def _both(test: Judged, validation: Judged) -> tuple[tuple[NDArray[Any], NDArray[Any]], ...]:
    """Probabilities and targets of all pictures that were kept from training."""
    return (test.probabilities, validation.probabilities), (test.targets, validation.targets)


def _samples(loaded: Loaded, targets: NDArray[np.bool_], part: list[int]) -> Samples:
    return Samples(loaded.pixels.select(part), torch.from_numpy(targets[part].astype(np.float32)))
