"""Trains a detector within a time: everything follows the share of the time that has passed, as in `learn.fit`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from gleaner.learn.augment import Augmenter, AugmentOptions
from gleaner.learn.detect.loss import Loss, detection_loss
from gleaner.learn.detect.network import Detector, find
from gleaner.learn.detect.quality import map50
from gleaner.learn.detect.scenes import Boxes, SceneMaker, SceneOptions
from gleaner.learn.fit import Metrics, WeightAverage, adamw, annealed
from gleaner.learn.network import normalize
from gleaner.learn.picture_file import Pictures
from gleaner.learn.threads import ThreadTuner

BOX_WEIGHT = 2.0
_SMOOTHED_STEPS = 20
_VALIDATION_SHARE = 0.06
_MOST_WATCHED = 100
"""Validation pictures that the live curve looks at."""
# (until this share of the time, size): three times the steps per second while the rough is learned.
_SIZES = ((0.35, 0.6), (0.6, 0.8), (1.0, 1.0))
_NO_MOSAIC_FROM = 0.85
"""The last steps see whole pictures, as the machine will."""


@dataclass(frozen=True)
class DetectPlan:
    input_size: tuple[int, int]
    seconds: float
    seed: int = 0
    threads: int = 2
    mirror: bool = True
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    batch_size: int = 16
    """At the full size; smaller pictures come in larger batches."""


@dataclass(frozen=True)
class BoxedPictures:
    """Pictures, and per picture (n, 5) label number and box in pixels."""

    pictures: Pictures
    boxes: Sequence[Boxes]

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass
class DetectResult:
    network: Detector
    """The moving average of the weights, ready to evaluate."""
    steps: int = 0
    pictures_seen: int = 0
    history: list[Metrics] = field(default_factory=list)
    learned: str = "all layers"
    """`train_accuracy` is the share of boxes found, `validation_accuracy` mAP50, `validation_loss` stays None."""


def fit_detector(
    network: Detector,
    train: BoxedPictures,
    validation: BoxedPictures,
    plan: DetectPlan,
    clock: Callable[[], float],
    on_metrics: Callable[[Metrics, float], None],
) -> DetectResult:
    """Trains for `plan.seconds` of `clock`; `on_metrics` gets each point and the share of the time that has passed."""
    started = clock()
    average = WeightAverage(network)
    result = DetectResult(average.network)
    optimizer = adamw(network, plan.learning_rate, plan.weight_decay)
    batches = _Batches(train, plan)
    progress = _Progress(plan, validation, clock, on_metrics, result)
    tuner = ThreadTuner(plan.threads, torch.set_num_threads)
    while (began := clock() - started) < plan.seconds or result.steps == 0:
        share = min(1.0, began / plan.seconds)
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * annealed(share)
        pixels, truths = batches.next(share)
        network.train()
        logits, reaches = network(normalize(pixels))
        loss = detection_loss(logits, reaches, truths)
        optimizer.zero_grad(set_to_none=True)
        (loss.label + BOX_WEIGHT * loss.box).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        average.update(network)
        result.steps += 1
        result.pictures_seen += len(truths)
        elapsed_s = clock() - started
        tuner.after_step(elapsed_s - began, elapsed_s)
        progress.after_step(loss, elapsed_s)
    progress.finish(clock() - started)
    return result


class _Batches:
    """Every picture once per epoch, in a new order; of those without a box at most as many as there are with one."""

    def __init__(self, train: BoxedPictures, plan: DetectPlan) -> None:
        self._train, self._plan = train, plan
        self._scenes = SceneMaker(train.pictures, train.boxes, plan.seed, SceneOptions(mirror=plan.mirror))
        self._look = Augmenter(plan.seed, AugmentOptions(erase_share=0.0))
        self._random = np.random.default_rng(plan.seed)
        self._pending: list[int] = []

    def next(self, share: float) -> tuple[Tensor, list[Tensor]]:
        scale = next(scale for until, scale in _SIZES if share <= until)
        size = self._plan.input_size if scale == 1 else scaled(self._plan.input_size, scale)
        count = max(1, round(self._plan.batch_size / scale**2))
        made = [self._scenes.scene(index, size, share < _NO_MOSAIC_FROM) for index in self._take(count)]
        pixels = torch.from_numpy(np.stack([picture for picture, _ in made])).permute(0, 3, 1, 2)
        return self._look.recolour(pixels), [torch.from_numpy(boxes) for _, boxes in made]

    def _take(self, count: int) -> list[int]:
        while len(self._pending) < count:
            boxed = [index for index, boxes in enumerate(self._train.boxes) if len(boxes)]
            empty = [index for index, boxes in enumerate(self._train.boxes) if not len(boxes)]
            epoch = np.array(boxed + list(self._random.permutation(empty)[: max(1, len(boxed))]), dtype=int)
            self._pending += [int(index) for index in self._random.permutation(epoch)]
        taken, self._pending = self._pending[:count], self._pending[count:]
        return taken


class _Progress:
    """Decides when a point of the curve is worth its cost."""

    def __init__(
        self,
        plan: DetectPlan,
        validation: BoxedPictures,
        clock: Callable[[], float],
        on_metrics: Callable[[Metrics, float], None],
        result: DetectResult,
    ) -> None:
        self._plan, self._clock, self._emit, self._result = plan, clock, on_metrics, result
        self._watched = BoxedPictures(validation.pictures[:_MOST_WATCHED], validation.boxes[:_MOST_WATCHED])
        self._losses: deque[Loss] = deque(maxlen=_SMOOTHED_STEPS)
        self._next_point_s = 0.0
        self._next_validation_s = 0.0

    def after_step(self, loss: Loss, elapsed_s: float) -> None:
        self._losses.append(Loss(loss.label.detach(), loss.box.detach(), loss.found, loss.boxes))
        if elapsed_s >= self._next_point_s:
            self._point(elapsed_s, elapsed_s >= self._next_validation_s)
            self._next_point_s = elapsed_s + max(0.5, self._plan.seconds / 120)

    def finish(self, elapsed_s: float) -> None:
        self._point(elapsed_s, with_validation=True)

    def _point(self, elapsed_s: float, with_validation: bool) -> None:
        quality = None
        if with_validation and len(self._watched):
            began = self._clock()
            quality = map50(find(self._result.network, self._watched.pictures), self._watched.boxes)
            self._next_validation_s = elapsed_s + max(2.0, (self._clock() - began) / _VALIDATION_SHARE)
        losses = [float(each.label + BOX_WEIGHT * each.box) for each in self._losses]
        boxes = sum(each.boxes for each in self._losses)
        point = Metrics(
            round(elapsed_s, 3),
            self._result.steps,
            sum(losses) / len(losses),
            sum(each.found for each in self._losses) / boxes if boxes else 0.0,
            None,
            quality,
        )
        self._result.history.append(point)
        self._emit(point, min(1.0, elapsed_s / self._plan.seconds))


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) at `scale`, in steps of 16 pixels, at least 64."""
    height, width = (max(64, int(side * scale) // 16 * 16) for side in size)
    return min(height, size[0]), min(width, size[1])
