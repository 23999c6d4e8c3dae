"""Training, thread choice and export, on pictures that a few steps can tell apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Generator

from gleaner.learn import metrics
from gleaner.learn.augment import Augmenter, AugmentOptions
from gleaner.learn.export import check_export, export_classifier, fold_temperature
from gleaner.learn.fit import FitPlan, FitResult, Metrics, Samples, annealed, balanced_batches, fit, predict_logits
from gleaner.learn.graph import model_properties
from gleaner.learn.network import build_classifier, parameter_count, planar
from gleaner.learn.threads import ThreadTuner


class StepClock:
    """Each look at it is a moment later, so that a run has the same number of steps on every machine."""

    def __init__(self, step_s: float = 0.05) -> None:
        self.now, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


def colour_samples(count: int, seed: int) -> Samples:
    """Reddish, bluish, or neither."""
    random = np.random.default_rng(seed)
    kinds = np.arange(count) % 3
    base = np.array([(200, 60, 60), (60, 60, 200), (90, 90, 90)])[kinds]
    pictures = np.clip(base[:, None, None] + random.normal(0, 20, (count, 48, 48, 3)), 0, 255).astype(np.uint8)
    targets = np.eye(3, dtype=np.float32)[kinds][:, :2]
    return Samples(pictures, torch.from_numpy(targets))


def run(seed: int, steps: int = 24) -> tuple[FitResult, list[Metrics]]:
    torch.manual_seed(seed)
    seen: list[Metrics] = []
    plan = FitPlan((48, 48), seconds=steps * 0.15, single=True, seed=seed, threads=1, batch_size=16)
    network = build_classifier(2)
    result = fit(network, colour_samples(30, 1), colour_samples(12, 2), plan, StepClock(), lambda m, _: seen.append(m))
    return result, seen


def test_it_learns_what_is_seen_and_says_nothing_about_the_rest() -> None:
    result, seen = run(seed=0)
    test = colour_samples(30, 3)
    probabilities = metrics.sigmoid(predict_logits(result.network, test.pictures).numpy().astype(np.float64))
    said = metrics.decide(probabilities, 0.5, single=True)
    assert metrics.accuracy(said, test.targets.numpy() > 0.5) >= 0.95
    assert seen[0].step == 1  # the curve starts at once
    assert seen[-1].validation_accuracy is not None
    assert seen == result.history
    assert seen[-1].train_loss < seen[0].train_loss


def test_a_seed_repeats_a_run_exactly() -> None:
    first, second = run(seed=4, steps=6)[0], run(seed=4, steps=6)[0]
    other = run(seed=5, steps=6)[0]
    pictures = colour_samples(6, 9).pictures
    assert torch.equal(predict_logits(first.network, pictures), predict_logits(second.network, pictures))
    assert not torch.equal(predict_logits(first.network, pictures), predict_logits(other.network, pictures))


def test_learning_rate_warms_up_and_ends_at_nothing() -> None:
    rates = [annealed(share / 100) for share in range(101)]
    assert rates[0] < 0.05
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_batches_hold_every_label_and_are_not_drowned_by_empty_pictures() -> None:
    targets = torch.zeros(1000, 2)
    targets[:40, 0] = 1
    targets[40:44, 1] = 1  # the rare label
    batches = balanced_batches(targets, 32, Generator().manual_seed(0))
    drawn = torch.cat([next(batches) for _ in range(60)])
    shares = [(drawn < 40).float().mean(), ((drawn >= 40) & (drawn < 44)).float().mean(), (drawn >= 44).float().mean()]
    assert shares[0] > 0.3
    assert shares[1] > 4 / 44 * 0.5 * 1.5
    assert 0.3 < shares[2] < 0.6
    assert len(set(drawn[drawn >= 44].tolist())) > 300  # a fresh draw each time


def test_augmentation_keeps_shape_and_range_and_follows_its_seed() -> None:
    pictures = planar(colour_samples(6, 0).pictures[:])
    first, again, other = (Augmenter(seed).batch(pictures, (32, 48)) for seed in (1, 1, 2))
    assert first.shape == (6, 3, 32, 48)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_mirroring_left_stays_left() -> None:
    pictures = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    pictures[..., :8] = 255
    calm = {
        "zoom": (1.0, 1.0),
        "rotation": 0.0,
        "shear": 0.0,
        "perspective": 0.0,
        "shift": 0.0,
        "stretch": 0.0,
        "erase_share": 0.0,
    }
    for mirror, fewest_left in ((False, 64), (True, 10)):
        out = Augmenter(0, AugmentOptions(mirror=mirror, **calm)).batch(pictures, (32, 32))  # type: ignore[arg-type]
        left = int((out[..., :4].mean((1, 2, 3)) > out[..., -4:].mean((1, 2, 3))).sum())
        assert left >= fewest_left
        assert mirror == (left < 64)


class FakeSteps:
    """Step times by number of threads; remembers what the tuner chose."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds, self.current, self.now = seconds, 0, 0.0
        self.tuner = ThreadTuner(2, self.use)

    def use(self, threads: int) -> None:
        self.current = threads

    def pass_time(self, until_s: float) -> dict[int, int]:
        counts = {1: 0, 2: 0}
        while self.now < until_s:
            counts[self.current] += 1
            step_s = self.seconds[self.current]
            self.now += step_s
            self.tuner.after_step(step_s, self.now)
        return counts


def test_training_moves_to_the_faster_number_of_threads_and_back() -> None:
    steps = FakeSteps({1: 0.07, 2: 0.047})
    free = steps.pass_time(20)
    assert free[2] > 5 * free[1]
    steps.seconds = {1: 0.07, 2: 0.118}  # another program takes a core
    steps.pass_time(30)
    busy = steps.pass_time(60)
    assert busy[1] > 5 * busy[2]


@pytest.mark.parametrize("size", [(48, 48), (64, 96), (80, 112)])
def test_the_exported_file_answers_like_the_network(tmp_path: Path, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = build_classifier(3)
    pictures = np.random.default_rng(0).integers(0, 255, (5, *size, 3), dtype=np.uint8)
    fold_temperature(network, 1.7)
    logits = predict_logits(network, pictures).numpy().astype(np.float64)
    path = tmp_path / "model.onnx"
    export_classifier(network, size, path, model_properties(["a", "b", "c"], "single", 0.45, "v1"))
    assert check_export(path, pictures, metrics.sigmoid(logits)) < 1e-5
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (image,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", [1, *size, 3])
    assert (answer.name, answer.shape) == ("probability", [1, 3])
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["gleaner.labels"]) == ["a", "b", "c"]


def test_an_export_that_answers_differently_is_not_let_through(tmp_path: Path) -> None:
    network = build_classifier(1)
    export_classifier(network, (48, 48), tmp_path / "m.onnx", {})
    with pytest.raises(ValueError, match="answers differently"):
        check_export(tmp_path / "m.onnx", np.zeros((1, 48, 48, 3), np.uint8), np.array([[2.0]]))


def test_the_network_is_as_small_as_promised() -> None:
    assert 1_100_000 < parameter_count(build_classifier(5)) < 1_300_000
