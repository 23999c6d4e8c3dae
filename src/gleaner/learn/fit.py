"""The training loop. Read it top to bottom: everything that changes a weight is in `fit`.

The learning rate follows the clock and not the epoch count, so a run ends on time and properly annealed whether it has
two cores to itself or shares one; a slow machine just makes fewer steps.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from gleaner.learn.augment import Augmenter, AugmentOptions
from gleaner.learn.network import Classifier, normalize, planar, prepared_batches
from gleaner.learn.picture_file import Pictures
from gleaner.learn.threads import ThreadTuner

Network = TypeVar("Network", bound=nn.Module)
FEWEST_USEFUL_STEPS = 100
"""Below this the weights have hardly moved; the worker warns."""
_SMOOTHED_STEPS, _PREDICTED_AT_ONCE = 20, 32
_VALIDATION_SHARE = 0.06
"""Of the time at most goes to watching the validation loss."""


@dataclass(frozen=True)
class FitPlan:
    input_size: tuple[int, int]
    seconds: float
    single: bool
    """Exactly one label or none per picture; only how accuracy is counted depends on it."""
    seed: int = 0
    threads: int = 2
    mirror: bool = True
    learning_rate: float = 3e-3
    """Three times this pretrained backbone's usual rate: at 100–400 steps the loss on unseen photos and views falls by a third."""
    trunk_rate: float = 1.0
    """The backbone's learning rate as a share of the last layer's."""
    weight_decay: float = 0.05
    batch_size: int = 32
    smoothing: float = 0.02
    """Targets are this and one minus this, against confidences that are higher than deserved."""
    start_scale: float = 0.6
    """Pictures begin at this share of the input size: three times the steps per second while the rough is learned."""


@dataclass(frozen=True)
class Metrics:
    """One point of the live curves; losses are binary cross-entropy per label."""

    t_s: float
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass(frozen=True)
class Samples:
    """uint8 (N, H, W, 3) and 0/1 float (N, labels)."""

    pictures: Pictures
    targets: Tensor

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass
class FitResult:
    network: Classifier
    """The moving average of the weights, ready to evaluate."""
    steps: int = 0
    pictures_seen: int = 0
    history: list[Metrics] = field(default_factory=list)
    learned: str = "all layers"


def fit(
    network: Classifier,
    train: Samples,
    validation: Samples | None,
    plan: FitPlan,
    clock: Callable[[], float],
    on_metrics: Callable[[Metrics, float], None],
) -> FitResult:
    """Trains for `plan.seconds` of `clock`; `on_metrics` gets each point and the share of the time that has passed."""
    started = clock()
    average = WeightAverage(network)
    result = FitResult(average.network)
    optimizer = adamw(network, plan.learning_rate, plan.weight_decay, plan.trunk_rate)
    augmenter = Augmenter(plan.seed, AugmentOptions(mirror=plan.mirror))
    batches = balanced_batches(train.targets, plan.batch_size, Generator().manual_seed(plan.seed))
    progress = _Progress(plan, validation, clock, on_metrics, result)
    tuner = ThreadTuner(plan.threads, torch.set_num_threads)
    torch.manual_seed(plan.seed)  # dropout
    while (began := clock() - started) < plan.seconds or result.steps == 0:
        share = min(1.0, began / plan.seconds)
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * group["rate"] * annealed(share)
        chosen = next(batches)
        targets = train.targets[chosen]
        pixels = augmenter.batch(planar(train.pictures[chosen.numpy()]), progressive_size(plan, share))
        network.train()
        logits = network(normalize(pixels))
        loss = functional.binary_cross_entropy_with_logits(logits, _smoothed(targets, plan.smoothing))
        optimizer.zero_grad(set_to_none=True)
        # Summed over labels, not averaged: the gradient of one label must not shrink as labels are added.
        (loss * targets.shape[1] * 0.5).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        average.update(network)
        result.steps += 1
        result.pictures_seen += len(chosen)
        elapsed_s = clock() - started
        tuner.after_step(elapsed_s - began, elapsed_s)
        progress.after_step(float(loss.detach()), _correct(logits.detach(), targets, plan.single), elapsed_s)
    progress.finish(clock() - started)
    return result


def annealed(share: float) -> float:
    """Warms up over the first 8 % of the time, then falls as a half cosine to nothing."""
    warm = min(1.0, share / 0.08 + 0.02)
    return warm * 0.5 * (1 + math.cos(math.pi * max(0.0, (share - 0.08) / 0.92)))


def balanced_batches(targets: Tensor, size: int, random: Generator) -> Iterator[Tensor]:
    """Endless index batches. Each epoch holds every labelled picture, rare labels up to four times, and of the
    unlabelled ones a fresh draw of at most as many as there are labelled: a gallery of empty walls must not drown the labels.
    """
    negatives = torch.nonzero(targets.sum(1) == 0).flatten()
    counts = targets.sum(0).clamp_min(1)
    repeats = (counts.max() / counts).sqrt().round().clamp(1, 4)
    labelled = torch.nonzero(targets.sum(1) > 0).flatten()
    per_picture = (targets[labelled] * repeats).amax(1).long() if len(labelled) else torch.zeros(0, dtype=torch.long)
    positives = labelled.repeat_interleave(per_picture)
    pending = torch.zeros(0, dtype=torch.long)
    while True:
        while len(pending) < size:
            drawn = negatives[torch.randperm(len(negatives), generator=random)][: max(1, len(positives))]
            epoch = torch.cat([positives, drawn])
            pending = torch.cat([pending, epoch[torch.randperm(len(epoch), generator=random)]])
        yield pending[:size]
        pending = pending[size:]


class WeightAverage(Generic[Network]):
    """Exponential moving average of weights and batch-norm statistics: steadier than the last step's on tiny data."""

    def __init__(self, network: Network, keep: float = 0.99) -> None:
        """`keep`: how much of the average stays in each step, once there have been enough to speak of one."""
        self.network = copy.deepcopy(network).eval()
        self.updates = 0
        self._keep = keep

    @torch.no_grad()
    def update(self, network: Network) -> None:
        self.updates += 1
        keep = min(self._keep, self.updates / (self.updates + 9.0))
        for mine, theirs in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - keep)
            else:
                mine.copy_(theirs)


@torch.no_grad()
def predict_logits(network: Classifier, pictures: Pictures) -> Tensor:
    """Raw outputs (N, labels) for pictures of the input size."""
    network.eval()
    if not len(pictures):
        return torch.zeros(0, network.head.out_features)
    return torch.cat([network(batch) for batch in prepared_batches(pictures, _PREDICTED_AT_ONCE)])


class _Progress:
    """Decides when a point of the curve is worth its cost."""

    def __init__(
        self,
        plan: FitPlan,
        validation: Samples | None,
        clock: Callable[[], float],
        on_metrics: Callable[[Metrics, float], None],
        result: FitResult,
    ) -> None:
        self._plan, self._clock, self._emit, self._result = plan, clock, on_metrics, result
        self._validation = validation if validation is not None and len(validation) else None
        self._losses: deque[float] = deque(maxlen=_SMOOTHED_STEPS)
        self._right: deque[float] = deque(maxlen=_SMOOTHED_STEPS)
        self._next_point_s = 0.0
        self._next_validation_s = 0.0

    def after_step(self, loss: float, right: float, elapsed_s: float) -> None:
        self._losses.append(loss)
        self._right.append(right)
        if elapsed_s >= self._next_point_s:
            self._point(elapsed_s, with_validation=elapsed_s >= self._next_validation_s)
            self._next_point_s = elapsed_s + max(0.5, self._plan.seconds / 120)

    def finish(self, elapsed_s: float) -> None:
        self._point(elapsed_s, with_validation=True)

    def _point(self, elapsed_s: float, with_validation: bool) -> None:
        loss = accuracy = None
        if with_validation and self._validation is not None:
            began = self._clock()
            logits = predict_logits(self._result.network, self._validation.pictures)
            targets = self._validation.targets
            loss = float(functional.binary_cross_entropy_with_logits(logits, targets))
            accuracy = _correct(logits, targets, self._plan.single)
            self._next_validation_s = elapsed_s + max(2.0, (self._clock() - began) / _VALIDATION_SHARE)
        metrics = Metrics(
            round(elapsed_s, 3),
            self._result.steps,
            sum(self._losses) / len(self._losses),
            sum(self._right) / len(self._right),
            loss,
            accuracy,
        )
        self._result.history.append(metrics)
        self._emit(metrics, min(1.0, elapsed_s / self._plan.seconds))


def _correct(logits: Tensor, targets: Tensor, single: bool) -> float:
    """Share of pictures whose labels, at one half, are all right; single: only the strongest label counts."""
    said = logits > 0
    if single:
        strongest = functional.one_hot(logits.argmax(1), logits.shape[1]).bool()
        said = said & strongest
    return float((said == (targets > 0.5)).all(1).float().mean())


def _smoothed(targets: Tensor, amount: float) -> Tensor:
    return targets * (1 - 2 * amount) + amount


def progressive_size(plan: FitPlan, share: float) -> tuple[int, int]:
    scale = plan.start_scale + (1 - plan.start_scale) * min(1.0, share / 0.6)
    height, width = (max(32, round(side * scale / 16) * 16) for side in plan.input_size)
    return min(height, plan.input_size[0]), min(width, plan.input_size[1])


def adamw(
    network: nn.Module, learning_rate: float, weight_decay: float, trunk_rate: float = 1.0
) -> torch.optim.Optimizer:
    """Groups say at which share of the learning rate they learn: `rate`."""
    groups = []
    for is_trunk, rate in ((True, trunk_rate), (False, 1.0)):
        chosen = [p for name, p in network.named_parameters() if name.startswith("backbone.") == is_trunk]
        matrices = [p for p in chosen if p.ndim > 1]
        vectors = [p for p in chosen if p.ndim <= 1]  # norms and biases must not be pulled to zero
        groups.append({"params": matrices, "weight_decay": weight_decay, "rate": rate})
        groups.append({"params": vectors, "weight_decay": 0.0, "rate": rate})
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)
