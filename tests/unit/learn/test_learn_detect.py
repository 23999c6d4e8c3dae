"""The detector's parts: scenes, loss, suppression, COCO's figures, calibration and the exported file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gleaner.learn.detect import quality
from gleaner.learn.detect.boxes import complete_iou, iou
from gleaner.learn.detect.export import check_detector, export_detector, fold_calibration
from gleaner.learn.detect.loss import detection_loss
from gleaner.learn.detect.network import (
    MOST_BOXES,
    Found,
    boxes_of,
    build_detector,
    candidates,
    find,
    settled,
    suppressed,
)
from gleaner.learn.detect.report import JudgedBoxes, describe_quality
from gleaner.learn.detect.run import choose_detector_size
from gleaner.learn.detect.scenes import SceneMaker, SceneOptions, move_boxes, no_boxes
from gleaner.learn.graph import open_session
from gleaner.learn.request import Example, LabelledBox, RunRequest, Task
from gleaner.machine.vision.detect import decode_boxes, find_outputs

SIZE = (96, 128)


def found(*rows: tuple[float, float, float, float, float, int]) -> Found:
    """From (x_min, y_min, x_max, y_max, score, label)."""
    values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Found(values[:, :4], values[:, 4], values[:, 5].long())


def truth(*rows: tuple[float, float, float, float, float]) -> np.ndarray:
    """From (label, x_min, y_min, x_max, y_max)."""
    return np.array(rows, np.float32).reshape(-1, 5)


def square_picture(left: int, top: int, side: int) -> np.ndarray:
    picture = np.full((*SIZE, 3), 40, np.uint8)
    picture[top : top + side, left : left + side] = 250
    return picture


# --- overlap ---------------------------------------------------------------------------------------------------------


def test_overlap_of_boxes_that_are_the_same_apart_and_half() -> None:
    box = torch.tensor([0.0, 0, 10, 10])
    others = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 5]])
    assert iou(box, others).tolist() == pytest.approx([1, 0, 0.5], abs=1e-6)
    # A box that is apart still learns where to go: farther away is worse.
    near, far = complete_iou(box, torch.tensor([[12.0, 0, 22, 10], [40, 0, 50, 10]])).tolist()
    assert far < near < 0


# --- scenes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mosaic", [False, True])
def test_boxes_stay_around_what_they_were_drawn_around(mosaic: bool) -> None:
    pictures = np.stack([square_picture(20 + 5 * n, 15 + 4 * n, 30) for n in range(6)])
    boxes = [truth((0, 20 + 5 * n, 15 + 4 * n, 50 + 5 * n, 45 + 4 * n)) for n in range(6)]
    options = SceneOptions(mosaic_share=float(mosaic), rotation=0.0)
    maker = SceneMaker(pictures, boxes, 7, options)
    seen = 0
    for number in range(60):
        scene, own = maker.scene(number % 6, (64, 96), allow_mosaic=mosaic)
        assert scene.shape == (64, 96, 3)
        for _, x_min, y_min, x_max, y_max in own:
            assert 0 <= x_min < x_max <= 96 and 0 <= y_min < y_max <= 64
            inside = scene[round(y_min) + 2 : round(y_max) - 2, round(x_min) + 2 : round(x_max) - 2]
            assert np.mean(inside > 150) > 0.8
            seen += 1
    assert seen > 60


def test_turned_boxes_are_hulls_and_what_left_the_picture_is_dropped() -> None:
    shift = np.array([[1.0, 0, 100], [0, 1, 0]])
    kept = move_boxes(truth((3, 0, 0, 20, 20), (4, 20, 0, 60, 20)), shift, (96, 128))
    assert kept.tolist() == [[3, 100, 0, 120, 20]]
    assert len(move_boxes(no_boxes(), shift, (96, 128))) == 0


def test_the_same_seed_draws_the_same_scenes() -> None:
    pictures, boxes = np.stack([square_picture(20, 15, 30)] * 2), [truth((0, 20, 15, 50, 45)), no_boxes()]
    first, second = (SceneMaker(pictures, boxes, 5) for _ in range(2))
    for number in range(8):
        (a, a_boxes), (b, b_boxes) = (maker.scene(number % 2, SIZE, True) for maker in (first, second))
        assert np.array_equal(a, b) and np.array_equal(a_boxes, b_boxes)


# --- loss ------------------------------------------------------------------------------------------------------------


def test_a_box_smaller_than_a_cell_is_taught_to_the_cell_it_lies_in() -> None:
    tiny = torch.tensor([[1.0, 41, 41, 46, 46]])
    logits = torch.full((1, 2, 12, 16), -6.0, requires_grad=True)
    reaches = torch.zeros(1, 4, 12, 16, requires_grad=True)
    loss = detection_loss(logits, reaches, [tiny])
    (loss.label + loss.box).backward()
    assert logits.grad is not None and reaches.grad is not None
    assert torch.nonzero(logits.grad < 0).tolist() == [
        [0, 1, 5, 5]
    ]  # this one is to become surer, all others less sure
    assert bool((reaches.grad[0, :, 5, 5] > 0).all())  # and its box smaller
    assert (loss.found, loss.boxes) == (0, 1)


def test_a_box_that_some_cell_has_right_counts_as_found() -> None:
    logits, reaches = torch.full((1, 2, 12, 16), -6.0), torch.full((1, 4, 12, 16), 0.0)
    logits[0, 1, 5, 5] = 6.0
    reaches[0, :, 5, 5] = float(np.log(2.5 / 8))
    assert detection_loss(logits, reaches, [torch.tensor([[1.0, 41, 41, 46, 46]])]).found == 1
    assert detection_loss(logits, reaches, [torch.tensor([[0.0, 41, 41, 46, 46]])]).found == 0


def test_pictures_without_boxes_teach_silence() -> None:
    logits = torch.zeros(2, 3, 12, 16, requires_grad=True)
    reaches = torch.zeros(2, 4, 12, 16, requires_grad=True)
    loss = detection_loss(logits, reaches, [torch.zeros(0, 5)] * 2)
    (loss.label + loss.box).backward()
    assert logits.grad is not None and bool((logits.grad > 0).all())
    assert reaches.grad is not None and float(reaches.grad.abs().sum()) == 0


# --- suppression -----------------------------------------------------------------------------------------------------


def test_of_boxes_that_mean_the_same_the_surest_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 40], [2, 0, 42, 40], [0, 0, 40, 40], [60, 0, 90, 40]])
    assert suppressed(boxes, torch.tensor([0, 0, 1, 0])).tolist() == [False, True, False, False]


def test_what_overlaps_only_something_suppressed_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 10], [10, 0, 50, 10], [20, 0, 60, 10]])
    assert iou(boxes[0], boxes[1]) > 0.55 > iou(boxes[0], boxes[2])
    assert suppressed(boxes, torch.zeros(3)).tolist() == [False, True, False]


# --- quality ---------------------------------------------------------------------------------------------------------


def test_average_precision_is_cocos() -> None:
    """Right, wrong, right for two boxes: precision 1 up to half of them, 2/3 up to all, read at 101 recalls."""
    guesses = found((0, 0, 10, 10, 0.9, 0), (50, 50, 60, 60, 0.8, 0), (20, 20, 30, 30, 0.7, 0))
    real = truth((0, 0, 0, 10, 10), (0, 20, 20, 30, 30))
    assert quality.map50([guesses], [real]) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_box_is_found_once_and_only_with_its_label() -> None:
    twice = found((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.8, 0), (0, 0, 10, 10, 0.95, 1))
    real = truth((0, 0, 0, 10, 10))
    assert quality.match([twice], [real], 0, 0.5).right.tolist() == [True, False]
    assert quality.match([twice], [real], 1, 0.5).right.tolist() == [False]
    assert quality.map50([found()], [real]) == 0
    assert quality.map50([twice], [no_boxes()]) is None


def test_the_same_figures_as_cocos_own_program() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    random = np.random.default_rng(3)
    truths, guesses, annotations, results = [], [], [], []
    for picture in range(1, 31):
        corners = random.uniform(0, 70, (random.integers(0, 5), 2))
        real = np.concatenate([random.integers(0, 3, (len(corners), 1)), corners, corners + 25], 1).astype(np.float32)
        said = real + np.concatenate([np.zeros((len(real), 1)), random.normal(0, 3, (len(real), 4))], 1)
        said = np.concatenate([said, truth((1, 5, 5, 30, 30))]).astype(np.float32)
        scores = np.sort(random.uniform(0, 1, len(said)).astype(np.float32))[::-1].copy()
        truths.append(real)
        guesses.append(
            Found(torch.from_numpy(said[:, 1:].copy()), torch.from_numpy(scores), torch.from_numpy(said[:, 0]).long())
        )
        for label, x0, y0, x1, y1 in real.tolist():
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append({"id": len(annotations) + 1, "image_id": picture, "category_id": int(label), "bbox": box, "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
        for (label, x0, y0, x1, y1), score in zip(said.tolist(), scores.tolist(), strict=True):
            results.append({"image_id": picture, "category_id": int(label), "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score})  # fmt: skip
    real_set = coco.COCO()
    real_set.dataset = {
        "info": {}, "images": [{"id": n} for n in range(1, 31)], "annotations": annotations,
        "categories": [{"id": n, "name": str(n)} for n in range(3)],
    }  # fmt: skip
    real_set.createIndex()
    judge = COCOeval(real_set, real_set.loadRes(results), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert quality.map50(guesses, truths) == pytest.approx(judge.stats[1], abs=1e-6)
    assert quality.map50_95(guesses, truths) == pytest.approx(judge.stats[0], abs=1e-6)


def test_calibration_makes_scores_come_true() -> None:
    random = np.random.default_rng(1)
    scores = random.uniform(0.06, 0.99, 2000)
    right = random.uniform(size=2000) < scores**2  # far surer than deserved
    slope, offset = quality.fit_calibration(scores, right)
    adjusted = 1 / (1 + np.exp(-(slope * np.log(scores / (1 - scores)) + offset)))
    gap = abs(float(adjusted.mean()) - float(right.mean()))
    assert gap < 0.03 < abs(float(scores.mean()) - float(right.mean()))
    assert quality.fit_calibration(np.zeros(0), np.zeros(0, bool)) == (1.0, 0.0)


def test_the_report_counts_missed_wrong_and_invented_boxes() -> None:
    request = RunRequest(task=Task.DETECTION, labels=("cat", "dog"))
    real = [truth((0, 0, 0, 10, 10), (1, 20, 20, 40, 40)), truth((0, 0, 0, 10, 10)), no_boxes()]
    said = [
        found((0, 0, 10, 10, 0.9, 0), (20, 20, 40, 40, 0.8, 0)),  # the dog is called a cat
        found((50, 50, 60, 60, 0.9, 1), (0, 0, 10, 10, 0.2, 0)),  # a dog is invented, the cat not said loudly enough
        found((0, 0, 10, 10, 0.1, 0)),
    ]
    examples = [Example(str(n), Path(), frozenset(), None, "") for n in range(3)]
    judged = JudgedBoxes(examples, said, real, SIZE)
    got = describe_quality(request, judged, judged, 0.5)
    assert got["confusion"]["matrix"] == [[1, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert got["confusion"]["cells"] == {"0,0": ["0"], "0,2": ["1"], "1,0": ["0"], "2,1": ["1"]}
    assert got["summary"]["accuracy"] == pytest.approx(1 / 3, abs=1e-4)
    assert [(row["support"], row["recall"]) for row in got["per_label"]] == [(2, 0.5), (1, 0.0)]


# --- size ------------------------------------------------------------------------------------------------------------


def test_small_things_get_a_larger_input(tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((960, 1280, 3), np.uint8))
    large, small = (
        [Example("a", path, frozenset("x"), None, "", (LabelledBox("x", 0.1, 0.1, 0.1 + side, 0.1 + side),))]
        for side in (0.3, 0.03)
    )
    assert choose_detector_size(large, 60) == (240, 320)
    assert choose_detector_size(large, 10) == (176, 224)
    assert choose_detector_size(small, 60) == (384, 512)


# --- export ----------------------------------------------------------------------------------------------------------


def test_candidates_settle_like_a_network_with_the_calibration_folded_in() -> None:
    torch.manual_seed(3)
    network = build_detector(2)
    with torch.no_grad():
        network.label_head[-1].weight.mul_(20)  # type: ignore[union-attr,operator]
    pictures = np.stack([square_picture(30, 20, 40), square_picture(10, 30, 30)])
    looked = candidates(network, pictures)
    plain = [settled(one) for one in looked]
    for mine, whole in zip(plain, find(network, pictures), strict=True):
        assert torch.equal(mine.boxes, whole.boxes) and torch.allclose(mine.scores, whole.scores, atol=1e-6)
    fold_calibration(network, 0.7, -0.4)
    for mine, whole in zip([settled(one, 0.7, -0.4) for one in looked], find(network, pictures), strict=True):
        sure = whole.scores > 1e-3
        assert torch.allclose(mine.scores, whole.scores, atol=1e-5)
        assert torch.allclose(mine.boxes[sure], whole.boxes[sure], atol=1e-3)
    assert not torch.allclose(plain[0].scores, settled(looked[0], 0.7, -0.4).scores)


def test_the_exported_file_answers_like_the_network_and_as_the_vision_service_reads_it(tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = build_detector(3)
    with torch.no_grad():  # untrained, it would be sure of nothing
        network.label_head[-1].bias.fill_(0.5)  # type: ignore[union-attr,operator]
        network.label_head[-1].weight.mul_(20)  # type: ignore[union-attr,operator]
    fold_calibration(network, 0.5, -0.5)
    pictures = np.random.default_rng(0).integers(0, 255, (3, *SIZE, 3), dtype=np.uint8)
    pictures[1] = square_picture(30, 20, 40)
    expected = find(network, pictures)
    path = tmp_path / "model.onnx"
    export_detector(network, SIZE, path, {"gleaner.task": "object_detection"})
    assert check_detector(path, pictures, expected) < 1e-3
    session = open_session(path)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {"image": pictures[1:2]}), strict=True))
    assert outputs["location"].shape == (1, MOST_BOXES, 4)
    boxes = decode_boxes(outputs, find_outputs(outputs, {}), ["a", "b", "c"], (1, 0, 3, 2), SIZE, (960, 1280))
    best, wanted = boxes[0], expected[1]
    assert best.label == "abc"[int(wanted.labels[0])]
    assert best.confidence == pytest.approx(float(wanted.scores[0]), abs=1e-3)
    assert best.x_min == pytest.approx(float(wanted.boxes[0, 0]) * 10, abs=2)
    assert best.y_max == pytest.approx(float(wanted.boxes[0, 3]) * 10, abs=2)


def test_an_export_that_differs_is_not_handed_out(tmp_path: Path) -> None:
    network = build_detector(2)
    export_detector(network, SIZE, tmp_path / "model.onnx", {})
    picture = np.zeros((1, *SIZE, 3), np.uint8)
    said = find(network, picture)
    said[0].scores[0] += 0.1
    with pytest.raises(ValueError, match="answers differently"):
        check_detector(tmp_path / "model.onnx", picture, said)


def test_boxes_are_reached_from_the_middles_of_cells() -> None:
    reaches = torch.log(torch.tensor([1.0, 2.0, 3.0, 4.0])).reshape(1, 4, 1, 1).expand(1, 4, 2, 2)
    assert boxes_of(reaches)[0, 3].tolist() == pytest.approx([12 - 8, 12 - 16, 12 + 24, 12 + 32])
