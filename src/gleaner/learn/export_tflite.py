"""Trained networks as .tflite files that answer like their ONNX files (`export.py`, `detect/export.py`). Needs the extra `tflite`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from gleaner.learn.detect.export import last_of
from gleaner.learn.detect.network import (
    CANDIDATES,
    LOG_REACH,
    MOST_BOXES,
    SAME_THING,
    SECOND_LABEL,
    STRIDE,
    SUPPRESSION_ROUNDS,
    Detector,
)
from gleaner.learn.graph import array_of
from gleaner.learn.network import Backbone, Classifier
from gleaner.learn.tflite import Array, Op, TfGraph, schema


def write_classifier(network: Classifier, input_size: tuple[int, int], path: Path) -> None:
    network.eval()
    if not isinstance(network.backbone, Backbone):
        raise TypeError(f"no TF-Lite translation for {type(network.backbone).__name__}")
    graph = TfGraph(*input_size)
    features = graph.features(network.backbone, graph.image())
    logits = graph.linear(features, array_of(network.head.weight), array_of(network.head.bias))
    graph.save(path, {"probability": graph.each(Op.LOGISTIC, logits)})


def write_detector(network: Detector, input_size: tuple[int, int], path: Path) -> None:
    network.eval()
    graph = TfGraph(*input_size)
    _, fine = graph.maps(network.backbone, graph.image())
    label_count = last_of(network.label_head).out_channels
    cells = (input_size[0] // STRIDE) * (input_size[1] // STRIDE)
    candidates = min(CANDIDATES, cells * label_count)
    said = graph.reshape(_speaking(graph, _head(graph, network.label_head, fine)), [cells * label_count])
    scores, where = graph.top(said, candidates)
    many = graph.constant(np.int32(label_count))
    labels, cell = (graph.both(code, where, many, "int32") for code in (Op.FLOOR_MOD, Op.FLOOR_DIV))
    # Left, top, right, bottom become top, left, bottom, right.
    reaches = _head(graph, network.box_head, fine, [1, 0, 3, 2])
    boxes = _corners(graph, reaches, cell, input_size)
    count = min(MOST_BOXES, candidates)
    score, order = graph.top(graph.both(Op.MUL, scores, _worth(graph, boxes, labels)), count)
    outputs = {
        "location": graph.reshape(graph.gather(boxes, order), [1, count, 4]),
        "category": graph.reshape(graph.cast(graph.gather(labels, order, "int32")), [1, count]),
        "score": graph.reshape(score, [1, count]),
    }
    graph.save(path, outputs)


def _head(graph: TfGraph, head: nn.Sequential, x: int, order: list[int] | None = None) -> int:
    last = last_of(head)
    weight, bias = array_of(last.weight), array_of(last.bias)
    chosen = slice(None) if order is None else order
    return graph.conv(graph.stage(list(head)[:-1], x), weight[chosen], bias[chosen])


def _speaking(graph: TfGraph, logits: int) -> int:
    """`network.peaks`: (1, h, w, labels)."""
    probabilities = graph.each(Op.LOGISTIC, logits)
    best = graph.reduce(Op.REDUCE_MAX, probabilities, [3], keep=True)
    options = schema.Pool2DOptionsT()
    options.filterHeight = options.filterWidth = 3
    options.strideH = options.strideW = 1
    options.padding = schema.Padding.SAME
    around = graph.add(Op.MAX_POOL_2D, [best], graph.shapes[best], options=options)
    is_peak = graph.cast(graph.both(Op.GREATER_EQUAL, best, around, "bool"))
    return graph.both(Op.MUL, probabilities, is_peak)


def _corners(graph: TfGraph, reaches: int, cell: int, input_size: tuple[int, int]) -> int:
    """`network.boxes_of` the chosen cells as y_min, x_min, y_max, x_max of 0–1: (candidates, 4)."""
    rows, columns = (side // STRIDE for side in input_size)
    y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    middles = np.stack([y, x, y, x], -1).reshape(-1, 4).astype(np.float32)
    sides = np.array([-1 / rows, -1 / columns, 1 / rows, 1 / columns], np.float32)
    chosen = graph.gather(graph.reshape(reaches, [rows * columns, 4]), cell)
    lengths = graph.each(Op.EXP, _clipped(graph, chosen, *LOG_REACH))
    moved = graph.both(Op.MUL, lengths, graph.constant(sides))
    return _clipped(graph, graph.both(Op.ADD, moved, graph.gather(graph.constant(middles), cell)), 0.0, 1.0)


def _clipped(graph: TfGraph, x: int, low: float, high: float) -> int:
    return graph.both(
        Op.MAXIMUM, graph.both(Op.MINIMUM, x, graph.constant(np.float32(high))), graph.constant(np.float32(low))
    )


def _worth(graph: TfGraph, boxes: int, labels: int) -> int:
    """(candidates,): 1 for a box that stays, less for one that gives a thing another label, 0 for one that repeats it."""
    count = graph.shapes[boxes][0]
    same = _overlapping(graph, boxes)
    down, across = (graph.reshape(labels, shape, "int32") for shape in ([count, 1], [1, count]))
    equal = graph.both(Op.EQUAL, down, across, "bool")
    first, only = _stays(graph, same), _stays(graph, graph.both(Op.LOGICAL_AND, same, equal, "bool"))
    rest = graph.both(Op.MUL, first, graph.constant(np.float32(1 - SECOND_LABEL)))
    return graph.both(Op.MUL, only, graph.both(Op.ADD, rest, graph.constant(np.float32(SECOND_LABEL))))


def _overlapping(graph: TfGraph, boxes: int) -> int:
    """(candidates, candidates) bool, by IoU."""
    count = graph.shapes[boxes][0]
    ends = [[graph.columns(boxes, axis + offset, 1) for offset in (0, 2)] for axis in (0, 1)]
    lengths = [graph.both(Op.SUB, high, low) for low, high in ends]
    area = graph.both(Op.MUL, lengths[0], lengths[1])
    shared = [_shared(graph, low, high) for low, high in ends]
    common = graph.both(Op.MUL, shared[0], shared[1])
    both = graph.both(Op.ADD, area, graph.reshape(area, [1, count]))
    union = graph.both(Op.SUB, both, common)
    least = graph.both(Op.MUL, union, graph.constant(np.float32(SAME_THING)))
    return graph.both(Op.GREATER, common, least, "bool")


def _shared(graph: TfGraph, low: int, high: int) -> int:
    """How much of an axis each two boxes have in common, from their ends (count, 1)."""
    count = graph.shapes[low][0]
    first = graph.both(Op.MAXIMUM, low, graph.reshape(low, [1, count]))
    last = graph.both(Op.MINIMUM, high, graph.reshape(high, [1, count]))
    return graph.both(Op.MAXIMUM, graph.both(Op.SUB, last, first), graph.constant(np.float32(0)))


def _stays(graph: TfGraph, alike: int) -> int:
    """`network.suppressed`, the other way round: (candidates,), 1 for a box that stays."""
    count = graph.shapes[alike][0]
    surer: Array = np.triu(np.ones((count, count), np.float32), 1)
    by_surer = graph.both(Op.MUL, graph.cast(alike), graph.constant(surer))
    stays = graph.constant(np.ones((count, 1), np.float32))
    for _ in range(SUPPRESSION_ROUNDS):
        pressed = graph.reduce(Op.SUM, graph.both(Op.MUL, stays, by_surer), [0])
        kept = graph.cast(graph.both(Op.LESS, pressed, graph.constant(np.float32(0.5)), "bool"))
        stays = graph.reshape(kept, [count, 1])
    return graph.reshape(stays, [count])
