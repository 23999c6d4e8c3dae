"""What the report tells beside the test: wrong tags, what more pictures are worth, what the model looked at."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gleaner.learn.attention import attention, overlaid
from gleaner.learn.doubts import find_doubts
from gleaner.learn.html_review import label_errors, learning_curve
from gleaner.learn.network import build_classifier, normalize
from gleaner.learn.outlook import Answers, look_ahead
from gleaner.learn.picture_file import PictureFile
from gleaner.learn.pictures import Loaded
from gleaner.learn.request import Example, RunRequest, Task
from gleaner.learn.review import NO_TIME, Material, review
from gleaner.learn.split import Split

Floats = NDArray[np.float64]


def tagged(
    per_label: int, labels: int, strength: float, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Points around a place for each label, `strength` apart."""
    random = np.random.default_rng(seed)
    which = np.repeat(np.arange(labels), per_label)
    middles = random.normal(size=(labels, 64))
    middles *= strength / np.linalg.norm(middles, axis=1, keepdims=True)
    points = middles[which] + random.normal(size=(len(which), 64))
    return points.astype(np.float32), np.eye(labels, dtype=np.bool_)[which]


def alone(count: int) -> list[list[int]]:
    return [[i] for i in range(count)]


def test_a_picture_that_others_surely_call_otherwise_is_doubted_and_a_hard_one_is_not() -> None:
    targets = np.eye(2, dtype=np.bool_)[[0] * 6 + [1] * 6]
    logits = np.where(targets, 3.0, -3.0)
    logits[0] = [-4.0, 4.0]
    logits[1] = [0.1, -0.1]
    found = find_doubts(logits, targets, np.ones(12, np.bool_), single=True)
    assert [(one.picture, one.said) for one in found] == [(0, (1,))] and found[0].confidence > 0.9


def test_none_of_these_is_an_answer_too() -> None:
    targets = np.zeros((12, 2), np.bool_)
    targets[:4, 0] = targets[4:8, 1] = True
    logits = np.where(targets, 4.0, -4.0)
    logits[0] = [-5.0, -5.0]
    logits[11] = [5.0, -5.0]
    found = find_doubts(logits, targets, np.ones(12, np.bool_), single=True)
    assert {one.picture: one.said for one in found} == {0: (), 11: (0,)}


def test_of_several_labels_only_the_doubtful_one_changes() -> None:
    targets = np.zeros((20, 2), np.bool_)
    targets[:10, 0] = targets[5:15, 1] = True
    logits = np.where(targets, 4.0, -4.0)
    logits[7] = [4.0, -6.0]
    (found,) = find_doubts(logits, targets, np.ones(20, np.bool_), single=False)
    assert found.picture == 7 and found.said == (0,)


def test_what_no_head_could_be_asked_about_is_not_doubted() -> None:
    targets = np.eye(2, dtype=np.bool_)[[0] * 6 + [1] * 6]
    logits = np.where(targets, -3.0, 3.0)
    assert find_doubts(logits, targets, np.zeros(12, np.bool_), single=True) == []


def trained_like(targets: NDArray[np.bool_], wrong: int, seed: int = 1) -> Answers:
    """Answers of a model whose `wrong` first pictures of the first label look least like it of all."""
    scores = np.where(targets, 0.9, 0.1) + np.random.default_rng(seed).normal(0, 0.02, targets.shape)
    scores[:wrong, 0] = 0.0
    return Answers(scores, targets)


def test_more_pictures_are_worth_something_where_the_error_still_falls() -> None:
    vectors, targets = tagged(30, 3, 2.5, seed=2)
    kept = np.repeat(np.eye(3, dtype=np.bool_), 40, axis=0)
    hard, easy, _ = look_ahead(vectors, targets, alone(len(targets)), trained_like(kept, 10))
    assert hard.verdict == "more" and hard.gain is not None and hard.interval is not None
    assert hard.interval[0] <= hard.gain <= hard.interval[1] and 0.03 < hard.gain < 0.1
    assert easy.verdict != "more"
    assert [round(p.pictures) for p in hard.points] == sorted(round(p.pictures) for p in hard.points)


def test_without_a_wrong_test_picture_no_gain_is_promised() -> None:
    """However steeply the error of the untrained network's heads falls."""
    vectors, targets = tagged(24, 3, 2.0)
    kept = np.repeat(np.eye(3, dtype=np.bool_), 8, axis=0)
    outlooks = look_ahead(vectors, targets, alone(len(targets)), trained_like(kept, 0))
    assert {one.verdict for one in outlooks} <= {"unknown", "nothing"}


def test_too_few_pictures_or_tests_make_the_outlook_unknown() -> None:
    vectors, targets = tagged(6, 2, 3.0)
    outlook = look_ahead(vectors, targets, alone(12), trained_like(targets, 0))[0]
    assert outlook.verdict == "unknown" and outlook.why == "only 6 pictures of it; 8 can tell"
    vectors, targets = tagged(20, 2, 3.0)
    outlook = look_ahead(vectors, targets, alone(40), Answers(np.zeros((2, 2)), np.eye(2, dtype=np.bool_)))[0]
    assert outlook.verdict == "unknown" and outlook.why.startswith("only 1 test pictures")


def test_what_spoke_for_a_label_adds_up_to_its_answer() -> None:
    torch.manual_seed(0)
    network = build_classifier(2).eval()
    torch.nn.init.normal_(network.head.weight, std=0.1)
    picture = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    planar = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        logit = float(network(normalize(planar))[0, 1] - network.head.bias[1])
    heat = attention(network, picture, 1)
    assert heat.shape == (12, 16)
    assert float(heat.sum()) == pytest.approx(logit, rel=0.15, abs=0.3)
    shown = overlaid(picture, heat)
    assert shown.shape == picture.shape and shown.dtype == np.uint8


def test_what_was_looked_at_stands_out() -> None:
    picture = np.full((96, 96, 3), 120, np.uint8)
    heat = np.zeros((12, 12), np.float32)
    heat[2, 9] = 1.0
    shown = overlaid(picture, heat).astype(int).sum(2)
    assert shown[20, 76] > 2 * shown[76, 20]


def material(count: int, wrong: int) -> tuple[RunRequest, Material]:
    """Dark and bright pictures, of which the first bright ones are tagged dark."""
    random = np.random.default_rng(3)
    bright = np.arange(count) % 2 == 0
    pixels = np.where(bright, 190, 60)[:, None, None, None] + random.integers(-40, 40, (count, 64, 64, 3))
    tags = bright.copy()
    tags[np.flatnonzero(bright)[:wrong]] = False
    targets = np.stack([tags, ~tags], 1)
    labels = ("bright", "dark")
    examples = [
        Example(f"p{i}", Path("/none"), frozenset({labels[0 if tag else 1]}), float(i), "")
        for i, tag in enumerate(tags)
    ]
    request = RunRequest(task=Task.SINGLE_LABEL, labels=labels)
    stored = PictureFile(Path(tempfile.gettempdir()), (pixels.shape[1], pixels.shape[2]))
    stored.append(pixels.astype(np.uint8))
    loaded = Loaded(examples, stored, [], 0)
    split = Split(list(range(10, count)), [], list(range(10)), count)
    return request, Material(loaded, targets, split, alone(count))


def test_wrong_tags_are_found_by_heads_that_have_not_learned_them(tmp_path: Path) -> None:
    request, given = material(48, wrong=2)
    trained = Answers(given.targets[:10].astype(np.float64), given.targets[:10])
    network = build_classifier(2).backbone
    report = review(request, given, [network], trained, tmp_path, lambda share: True)
    errors = report["label_errors"]
    assert errors["checked"] == 48 and not errors["reason"]
    assert {one["id"] for one in errors["pictures"]} == {"p0", "p2"}
    assert errors["pictures"][0]["suggested"] == ["bright"] and errors["pictures"][0]["part"] == "test"
    assert [one["label"] for one in report["learning_curve"]["labels"]] == ["bright", "dark"]
    page = label_errors(errors, tmp_path) + learning_curve(report["learning_curve"])
    assert "<b>bright</b>" in page and "p0, tested" in page and "20 more are worth" in page


def test_without_time_the_report_says_so_instead(tmp_path: Path) -> None:
    request, given = material(40, wrong=0)
    trained = Answers(given.targets[:10].astype(np.float64), given.targets[:10])
    report = review(request, given, [build_classifier(2).backbone], trained, tmp_path, lambda share: False)
    assert report["label_errors"]["reason"] == report["learning_curve"]["reason"] == NO_TIME
    page = label_errors(report["label_errors"], tmp_path) + learning_curve(report["learning_curve"])
    assert page.count(NO_TIME) == 2
