"""What a run with little time falls back to: the instant model's head (`instant.py`) over the starting weights as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from gleaner.learn import instant, metrics
from gleaner.learn.fit import FitResult, Samples, predict_logits
from gleaner.learn.network import Classifier, Trunk, build_classifier, prepared_batches

STRENGTH = 0.03
_BATCH = 32


@torch.no_grad()
def quick_classifier(train: Samples, start: Trunk, in_time: Callable[[], bool] = lambda: True) -> Classifier:
    """Fitted in a second: the pictures go through the network once, only its last layer learns. `start` becomes its backbone.

    What is not in time is left out; at least one batch is seen.
    """
    network = build_classifier(train.targets.shape[1], backbone=start).eval()
    found: list[torch.Tensor] = []
    for batch in prepared_batches(train.pictures, _BATCH):
        if found and not in_time():
            break
        found.append(network.backbone(batch))
    vectors = torch.cat(found).numpy()
    head = instant.fit_head(vectors, train.targets[: len(vectors)].numpy() > 0.5, STRENGTH)
    network.head.weight.copy_(torch.from_numpy(head.weight.astype(np.float32)))
    network.head.bias.copy_(torch.from_numpy(head.bias.astype(np.float32)))
    return network


def take_quick(result: FitResult, quick: Classifier, validation: Samples, calibrated: bool = False) -> bool:
    """Whether so few steps left the network worse than it was with a last layer of its own; then that is the result.

    `calibrated`: each at the temperature that suits it, so that smoothed targets do not count against the trained one.
    """
    if not len(validation):
        return False
    if _loss(quick, validation, calibrated) >= _loss(result.network, validation, calibrated):
        return False
    result.network = quick
    return True


def _loss(network: Classifier, samples: Samples, calibrated: bool) -> float:
    logits = predict_logits(network, samples.pictures)
    if calibrated:
        logits /= metrics.fit_temperature(logits.numpy().astype(np.float64), samples.targets.numpy() > 0.5)
    return float(functional.binary_cross_entropy_with_logits(logits, samples.targets))
