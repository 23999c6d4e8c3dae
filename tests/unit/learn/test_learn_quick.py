"""A run with little time: the starting weights with a new last layer, kept where they are better."""

from __future__ import annotations

import numpy as np
import torch
from test_learn_worker import COLORS, draw

from gleaner.learn.backbones.start import own_start
from gleaner.learn.fit import FitResult, Samples, predict_logits
from gleaner.learn.network import build_classifier
from gleaner.learn.quick import quick_classifier, take_quick


def discs(start: int, per_label: int) -> Samples:
    named = [label for label in COLORS if label]
    drawn = [(label, draw(label, start + n)) for n in range(per_label) for label in COLORS]
    pictures = np.stack([picture[:, :, ::-1] for _, picture in drawn])
    targets = np.array([[label == one for one in named] for label, _ in drawn], np.float32)
    return Samples(pictures, torch.from_numpy(targets))


def right(samples: Samples, network: torch.nn.Module) -> float:
    said = predict_logits(network, samples.pictures) > 0  # type: ignore[arg-type]
    return float((said == (samples.targets > 0.5)).all(1).float().mean())


def test_a_new_last_layer_alone_tells_colours_apart() -> None:
    assert right(discs(500, 20), quick_classifier(discs(0, 12), own_start().trunk())) >= 0.8


def test_the_better_network_is_kept() -> None:
    torch.manual_seed(0)
    train, validation = discs(0, 8), discs(100, 8)
    untrained = FitResult(build_classifier(2).eval())
    before = untrained.network
    quick = quick_classifier(train, own_start().trunk())
    assert take_quick(untrained, quick, validation)
    assert untrained.network is not before
    both = Samples(
        np.concatenate([train.pictures[:], validation.pictures[:]]), torch.cat([train.targets, validation.targets])
    )
    knows_the_answers = FitResult(quick_classifier(both, own_start().trunk()))
    before = knows_the_answers.network
    assert not take_quick(knows_the_answers, quick, validation)
    assert knows_the_answers.network is before
    assert not take_quick(FitResult(before), quick, Samples(train.pictures[:0], train.targets[:0]))
