"""Writes a trained classifier as an ONNX file that needs no code around it.

Input `image`: uint8 (1, H, W, 3), RGB. Output `probability`: float32 (1, labels), each 0–1. Scaling, normalizing and the
sigmoid are inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import helper

from gleaner.learn.graph import LARGEST_DIFFERENCE, Graph, array_of, open_session
from gleaner.learn.network import Backbone, Classifier


def export_classifier(
    network: Classifier, input_size: tuple[int, int], path: Path, properties: Mapping[str, str]
) -> None:
    """Writes `path`; `properties` become the file's metadata."""
    network.eval()
    if not isinstance(network.backbone, Backbone):
        from gleaner.learn.backbones.export import export_by_tracing

        export_by_tracing(network, input_size, path, properties)
        return
    graph = Graph()
    features = graph.features(network.backbone, graph.image())
    weight, bias = array_of(network.head.weight), array_of(network.head.bias)
    logits = graph.add("Gemm", [features, graph.constant(weight), graph.constant(bias)], transB=1)
    graph.nodes.append(helper.make_node("Sigmoid", [logits], ["probability"]))
    graph.save(path, "classifier", input_size, {"probability": [1, len(bias)]}, properties)


def fold_temperature(network: Classifier, temperature: float) -> None:
    """Divides the logits by `temperature` for good, by way of the last layer."""
    with torch.no_grad():
        network.head.weight.div_(temperature)
        network.head.bias.div_(temperature)


def check_export(path: Path, pictures: NDArray[np.uint8], expected: NDArray[np.float64]) -> float:
    """Runs the file as a machine would and returns the largest difference from `expected` probabilities.

    Raises:
        ValueError: it exceeds LARGEST_DIFFERENCE; such a file must not be handed out.
    """
    session = open_session(path)
    worst = 0.0
    for picture, wanted in zip(pictures, expected, strict=True):
        got = session.run(["probability"], {"image": picture[None]})[0][0]
        worst = max(worst, float(np.abs(got - wanted).max()))
    if not worst <= LARGEST_DIFFERENCE:
        raise ValueError(f"the exported model answers differently by {worst:.4f} from the one that was trained")
    return worst
