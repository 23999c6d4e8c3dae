"""Writes a trained detector as an ONNX file that answers with boxes, as Viam's vision service reads them.

Input `image`: uint8 (1, H, W, 3), RGB. Outputs, surest first: `location` float32 (1, 50, 4) y_min, x_min, y_max, x_max, each
0–1; `category` (1, 50) label numbers; `score` (1, 50), each 0–1. What is left of neighbours that mean the same thing is
suppressed inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from gleaner.learn.detect.network import (
    CANDIDATES,
    LOG_REACH,
    MOST_BOXES,
    SAME_THING,
    SECOND_LABEL,
    STRIDE,
    SUPPRESSION_ROUNDS,
    Detector,
    Found,
)
from gleaner.learn.graph import LARGEST_DIFFERENCE, Graph, open_session


def export_detector(network: Detector, input_size: tuple[int, int], path: Path, properties: Mapping[str, str]) -> None:
    """Writes `path`; `properties` become the file's metadata."""
    network.eval()
    graph = Graph()
    _, fine = graph.maps(network.backbone, graph.image())
    cells = (input_size[0] // STRIDE) * (input_size[1] // STRIDE)
    candidates = min(CANDIDATES, cells * last_of(network.label_head).out_channels)
    scores, where = _top(graph, _speaking(graph, _head(graph, network.label_head, fine)), candidates)
    per_label = graph.integers(cells)
    labels = graph.add("Cast", [graph.add("Div", [where, per_label])], to=TensorProto.FLOAT)
    cell = graph.add("Squeeze", [graph.add("Mod", [where, per_label]), graph.integers(0)])
    corners = _corners(graph, _head(graph, network.box_head, fine), input_size)
    boxes = graph.add("Transpose", [graph.add("Gather", [corners, cell], axis=2)], perm=[0, 2, 1])
    count = min(MOST_BOXES, candidates)
    score, order = _top(graph, graph.add("Mul", [scores, _worth(graph, boxes, labels, candidates)]), count)
    flat = graph.add("Squeeze", [order, graph.integers(0)])
    location, category = (graph.add("Gather", [each, flat], axis=1) for each in (boxes, labels))
    for value, name in ((location, "location"), (category, "category"), (score, "score")):
        graph.nodes.append(helper.make_node("Identity", [value], [name]))
    outputs = {"location": [1, count, 4], "category": [1, count], "score": [1, count]}
    graph.save(path, "detector", input_size, outputs, properties)


def fold_calibration(network: Detector, slope: float, offset: float) -> None:
    """Makes every label logit `slope` · logit + `offset` for good, by way of the last layer."""
    last = last_of(network.label_head)
    with torch.no_grad():
        last.weight.mul_(slope)
        assert last.bias is not None
        last.bias.mul_(slope).add_(offset)


def check_detector(path: Path, pictures: NDArray[np.uint8], expected: list[Found]) -> float:
    """Runs the file as a machine would and returns the largest difference from `expected`: of scores, and of boxes as shares of the
    picture where the label is the same.

    Raises:
        ValueError: it exceeds LARGEST_DIFFERENCE; such a file must not be handed out.
    """
    session = open_session(path)
    height, width = pictures.shape[1:3]
    worst = 0.0
    for picture, wanted in zip(pictures, expected, strict=True):
        location, category, score = (each[0] for each in session.run(None, {"image": picture[None]}))
        wanted_boxes = wanted.boxes.numpy()[:, [1, 0, 3, 2]] / np.array([height, width, height, width])
        worst = max(worst, float(np.abs(score - wanted.scores.numpy()).max()))
        # Equal scores may come in either order; what is far down the list says nothing.
        same = (category == wanted.labels.numpy()) & (score > 0.05) & (np.abs(np.gradient(score)) > 1e-4)
        if same.any():
            worst = max(worst, float(np.abs(location - wanted_boxes)[same].max()))
    if not worst <= LARGEST_DIFFERENCE:
        raise ValueError(f"the exported model answers differently by {worst:.4f} from the one that was trained")
    return worst


def _head(graph: Graph, head: nn.Sequential, x: str) -> str:
    return graph.conv(last_of(head), graph.stage(nn.Sequential(*list(head)[:-1]), x))


def last_of(head: nn.Sequential) -> nn.Conv2d:
    return cast(nn.Conv2d, head[-1])


def _speaking(graph: Graph, logits: str) -> str:
    """`network.peaks`: (1, labels · cells)."""
    probabilities = graph.add("Sigmoid", [logits])
    best = graph.add("ReduceMax", [probabilities], axes=[1], keepdims=1)
    around = graph.add("MaxPool", [best], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    is_peak = graph.add("Cast", [graph.add("GreaterOrEqual", [best, around])], to=TensorProto.FLOAT)
    return graph.add("Flatten", [graph.add("Mul", [probabilities, is_peak])], axis=1)


def _top(graph: Graph, values: str, count: int) -> tuple[str, str]:
    """The `count` largest of (1, n) and their places, each (1, count)."""
    best, where = f"best_{len(graph.nodes)}", f"where_{len(graph.nodes)}"
    inputs = [values, graph.integers(count)]
    graph.nodes.append(helper.make_node("TopK", inputs, [best, where], axis=1, largest=1, sorted=1))
    return best, where


def _worth(graph: Graph, boxes: str, labels: str, count: int) -> str:
    """(1, count): 1 for a box that stays, less for one that gives a thing another label, 0 for one that repeats it."""
    same = _overlapping(graph, boxes)
    column, row = (graph.add("Unsqueeze", [labels, graph.integers(axis)]) for axis in (1, 2))
    repeats = graph.add("And", [same, graph.add("Equal", [column, row])])
    first, only = _stays(graph, same, count), _stays(graph, repeats, count)
    least, rest = (graph.constant(np.float32(value)) for value in (SECOND_LABEL, 1 - SECOND_LABEL))
    return graph.add("Mul", [only, graph.add("Add", [graph.add("Mul", [first, rest]), least])])


def _overlapping(graph: Graph, boxes: str) -> str:
    """(1, count, count) bool, by the IoU of boxes of 0–1."""
    low, high = (
        graph.add("Slice", [boxes, graph.integers(a), graph.integers(b), graph.integers(2)])
        for a, b in ((0, 2), (2, 4))
    )
    sides = graph.add("Sub", [high, low])
    area = graph.add("ReduceProd", [sides], axes=[2], keepdims=1)  # (1, count, 1)
    across = [graph.add("Unsqueeze", [each, graph.integers(1)]) for each in (low, high)]  # (1, 1, count, 2)
    down = [graph.add("Unsqueeze", [each, graph.integers(2)]) for each in (low, high)]  # (1, count, 1, 2)
    overlap = graph.add("Sub", [graph.add("Min", [across[1], down[1]]), graph.add("Max", [across[0], down[0]])])
    zero = graph.constant(np.float32(0))
    common = graph.add("ReduceProd", [graph.add("Max", [overlap, zero])], axes=[3], keepdims=0)  # (1, count, count)
    both = graph.add("Add", [area, graph.add("Transpose", [area], perm=[0, 2, 1])])
    union = graph.add("Sub", [both, common])
    return graph.add("Greater", [common, graph.add("Mul", [union, graph.constant(np.float32(SAME_THING))])])


def _stays(graph: Graph, alike: str, count: int) -> str:
    """`network.suppressed`, the other way round: (1, count), 1 for a box that stays."""
    surer = graph.constant(np.triu(np.ones((1, count, count), np.float32), 1))
    by_surer = graph.add("Mul", [graph.add("Cast", [alike], to=TensorProto.FLOAT), surer])
    stays = graph.constant(np.ones((1, 1, count), np.float32))
    for _ in range(SUPPRESSION_ROUNDS):
        pressed = graph.add("MatMul", [stays, by_surer])
        stays = graph.add("Cast", [graph.add("Less", [pressed, graph.constant(np.float32(0.5))])], to=TensorProto.FLOAT)
    return graph.add("Squeeze", [stays, graph.integers(1)])


def _corners(graph: Graph, reaches: str, input_size: tuple[int, int]) -> str:
    """`network.boxes_of` as y_min, x_min, y_max, x_max of 0–1: (1, 4, cells)."""
    rows, columns = (side // STRIDE for side in input_size)
    y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    middles = np.stack([y, x, y, x]).reshape(1, 4, -1).astype(np.float32)
    sides = np.array([-1 / rows, -1 / columns, 1 / rows, 1 / columns], np.float32).reshape(1, 4, 1)
    low, high = (graph.constant(np.float32(limit)) for limit in LOG_REACH)
    lengths = graph.add("Exp", [graph.add("Clip", [reaches, low, high])])
    flat = graph.add("Reshape", [lengths, graph.integers(1, 4, rows * columns)])
    # Left, top, right, bottom become top, left, bottom, right.
    turned = graph.add("Gather", [flat, graph.integers(1, 0, 3, 2)], axis=1)
    placed = graph.add("Add", [graph.add("Mul", [turned, graph.constant(sides)]), graph.constant(middles)])
    return graph.add("Clip", [placed, graph.constant(np.float32(0)), graph.constant(np.float32(1))])
