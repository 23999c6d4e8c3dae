"""The starting weights can be made again: what is drawn, what is asked of it, and the program that learns it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gleaner.learn.detect.network import build_detector
from gleaner.learn.network import normalize
from gleaner.learn.pretrain.contours import SYMMETRIES, Contours, make_contours
from gleaner.learn.pretrain.drawing import MOST_SHAPES, PAINTS, Drawn, draw
from gleaner.learn.pretrain.task import PretrainNetwork, pretrain_loss

SIZE = (96, 128)


@pytest.fixture(scope="module")
def contours() -> Contours:
    return make_contours(64, torch.Generator().manual_seed(7))


def drawn(contours: Contours, seed: int = 1, count: int = 24) -> Drawn:
    return draw(contours, count, SIZE, torch.Generator().manual_seed(seed))


def test_the_same_seed_draws_the_same(contours: Contours) -> None:
    first, again, other = drawn(contours), drawn(contours), drawn(contours, seed=2)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first.pixels, other.pixels)


def test_contours_are_closed_and_of_every_symmetry(contours: Contours) -> None:
    assert contours.radius.max() <= 1 and contours.radius.min() > 0
    assert set(contours.symmetry.tolist()) == set(range(SYMMETRIES))
    assert torch.isfinite(contours.spectrum).all()


def test_what_is_asked_for_can_be_seen(contours: Contours) -> None:
    made = drawn(contours)
    assert made.pixels.shape == (24, 3, *SIZE) and made.pixels.min() >= 0 and made.pixels.max() <= 1
    assert made.asked.any(1).float().mean() > 0.8 and made.asked.shape == (24, MOST_SHAPES)
    boxes = made.boxes[made.asked]
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (boxes >= 0).all() and (boxes[:, 2] <= SIZE[1]).all() and (boxes[:, 3] <= SIZE[0]).all()


def test_a_shape_has_its_paint_where_its_box_is(contours: Contours) -> None:
    """Of the last shape, which nothing covers: some pixel in its box is nearer to its paint's colour than the ground is."""
    made = drawn(contours, count=64)
    last = MOST_SHAPES - 1
    nearer = []
    for picture, (x0, y0, x1, y1), paint, asked in zip(
        made.pixels, made.boxes[:, last].int().tolist(), made.paint[:, last].tolist(), made.asked[:, last], strict=True
    ):
        if asked:
            direction = torch.nn.functional.normalize(torch.tensor(PAINTS[paint]).float(), dim=0)
            inside = picture[:, y0:y1, x0:x1].flatten(1)
            likeness = (torch.nn.functional.normalize(inside, dim=0) * direction[:, None]).sum(0)
            nearer.append(float(likeness.topk(max(1, len(likeness) // 8)).values.mean()) > 0.97)
    assert len(nearer) > 5 and np.mean(nearer) > 0.9


def test_a_few_steps_learn_something(contours: Contours) -> None:
    torch.manual_seed(0)
    network, made = PretrainNetwork(), drawn(contours, count=8)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    losses = []
    for _ in range(12):
        loss = pretrain_loss(network(normalize(made.pixels)), made, contours)
        optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.total.item())
    assert losses[-1] < 0.8 * losses[0]


def test_pictures_without_a_shape_have_a_loss(contours: Contours) -> None:
    made = drawn(contours, count=2)
    made = made._replace(asked=torch.zeros_like(made.asked))
    loss = pretrain_loss(PretrainNetwork()(normalize(made.pixels)), made, contours)
    assert torch.isfinite(loss.total) and loss.found == 0


def pretrain(out: Path, *more: str) -> str:
    command = [sys.executable, "-m", "gleaner.learn.pretrain", "--out", str(out), "--steps", "3", "--batch-size", "2"]
    command += ["--height", "64", "--width", "64", "--device", "cpu", *more]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def weights(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "backbone.npz") as backbone, np.load(out / "heads.npz") as heads:
        return {**{f"backbone.{name}": backbone[name] for name in backbone.files}, **dict(heads.items())}


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    pretrain(tmp_path / "whole")
    assert "Stopped after 2 of 3 steps" in pretrain(tmp_path / "parts", "--until", "2")
    assert "Going on from step 2" in pretrain(tmp_path / "parts")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {"backbone.npz", "heads.npz"}
    # What came of it is what the detector begins with.
    state = build_detector(1, pretrained=False).state_dict()
    left = {name for name in state if name not in whole and "num_batches" not in name}
    assert left == {"label_head.1.weight", "label_head.1.bias"}
    assert all(whole[name].shape == tuple(state[name].shape) for name in whole)
