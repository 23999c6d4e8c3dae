"""The instant model's head on made-up vectors, and the graph against the network it was written from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gleaner.learn import embed, instant, metrics
from gleaner.learn.network import Backbone, load_backbone, normalize


def clouds(count: int, labels: int, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(vectors, targets) of `labels` clouds in 40 dimensions."""
    random = np.random.default_rng(seed)
    middles = random.normal(0, apart, (labels, 40))
    which = np.arange(count) % labels
    vectors = (middles[which] + random.normal(0, 1, (count, 40))).astype(np.float32)
    return vectors, np.eye(labels, dtype=np.bool_)[which]


def test_what_is_apart_is_told_apart() -> None:
    vectors, targets = clouds(120, 4, 1.5)
    learned = instant.learn(vectors[:80], targets[:80], [[i] for i in range(80)])
    said = learned.head.logits(vectors[80:]).argmax(1)
    assert (said == targets[80:].argmax(1)).mean() >= 0.95
    assert (learned.held_out.argmax(1) == targets[:80].argmax(1)).mean() >= 0.95


def test_without_anything_to_learn_it_is_not_sure() -> None:
    random = np.random.default_rng(1)
    vectors = random.normal(0, 1, (90, 40)).astype(np.float32)
    targets = np.eye(3, dtype=np.bool_)[random.integers(0, 3, 90)]
    learned = instant.learn(vectors, targets, [[i] for i in range(90)])
    assert metrics.sigmoid(learned.held_out).max(1).mean() < 0.7
    assert (learned.held_out.argmax(1) == targets.argmax(1)).mean() < 0.6


def test_copies_of_a_picture_are_tested_together() -> None:
    """Noise that was seen in a copy would be told for sure."""
    random = np.random.default_rng(2)
    vectors = np.repeat(random.normal(0, 1, (30, 40)), 3, axis=0).astype(np.float32)
    targets = np.repeat(np.eye(2, dtype=np.bool_)[random.integers(0, 2, 30)], 3, axis=0)
    groups = [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(30)]
    folds = instant.divide(groups, targets, 5, seed=0)
    assert all(len({int(folds[i]) for i in group}) == 1 for group in groups)
    together = instant.learn(vectors, targets, groups).held_out.argmax(1) == targets.argmax(1)
    divided = instant.learn(vectors, targets, [[i] for i in range(90)]).held_out.argmax(1) == targets.argmax(1)
    assert divided.mean() > together.mean() + 0.1


def test_pictures_that_are_all_alike_test_nothing() -> None:
    vectors, targets = clouds(40, 2, 1.5)
    of_label = [list(range(0, 40, 2)), list(range(1, 40, 2))]
    learned = instant.learn(vectors, targets, of_label)
    assert not learned.is_tested.any()
    assert (learned.head.logits(vectors).argmax(1) == targets.argmax(1)).all()
    assert (metrics.sigmoid(learned.head.logits(vectors)).max(1) > 0.5).all()
    one_more = instant.learn(vectors, targets, [of_label[0][:10], of_label[0][10:], of_label[1]])
    assert one_more.is_tested.tolist() == [number % 2 == 0 for number in range(40)]


def test_folds_have_their_share_of_each_label() -> None:
    _, targets = clouds(100, 5, 1.0)
    folds = instant.divide([[i] for i in range(100)], targets, 5, seed=3)
    assert all(targets[folds == fold].sum(0).tolist() == [4] * 5 for fold in range(5))


def test_the_solver_finds_the_least() -> None:
    random = np.random.default_rng(3)
    a = random.normal(0, 1, (30, 12))
    b = random.normal(0, 1, 30)

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        rest = a @ x - b
        return float(rest @ rest) / 2, np.asarray(a.T @ rest)

    found = instant.minimize(cost, np.zeros(12))
    assert np.allclose(found, np.linalg.lstsq(a, b, rcond=None)[0], atol=1e-3)


def test_the_graph_answers_like_the_backbone_at_any_size(tmp_path: Path) -> None:
    path = tmp_path / "backbone.onnx"
    embed.write_graph(path)
    backbone = Backbone()
    load_backbone(backbone)
    backbone.eval()
    embedder = embed.Embedder(path)
    random = np.random.default_rng(4)
    for height, width in ((90, 130), (240, 320), (300, 200)):
        picture = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        small = embed.resize_rgb(picture, *embed.input_size(height, width))
        with torch.no_grad():
            pixels = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
            wanted = backbone(normalize(pixels)).numpy()[0]
        assert np.abs(embedder.vector(picture) - wanted).max() < 1e-3
    assert [path.name for path in tmp_path.iterdir()] == ["backbone.onnx"]
