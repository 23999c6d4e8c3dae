"""Pictures as 512 numbers by the backbone that every training starts from: what is alike has numbers alike.

The graph is written once, by `python -m gleaner.learn.embed <file>` (which imports torch); whoever embeds needs onnxruntime
only, on one thread. Pictures keep their shape, about: sides are multiples of 16 and the area is that of training's input.
"""

from __future__ import annotations

import math
import os
import sys
import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gleaner.wire.picture import Rgb, resize_rgb

FEATURES = 512
Vectors = NDArray[np.float32]

_RECIPE = 1
"""Counts changes of what happens to a picture before the backbone."""
_PIXELS = 144 * 192
_SMALLEST_SIDE, _LARGEST_SIDE, _SIDE_STEP = 64, 256, 16


def version() -> int:
    """Of vectors that may be compared with each other: of the weights and of how pictures are prepared."""
    weights = files("gleaner.learn.weights").joinpath("backbone.npz").read_bytes()
    return zlib.crc32(weights, _RECIPE)


class Embedder:
    """For one thread at a time."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # pictures have many shapes, and the arena keeps memory for each
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def vector(self, picture: Rgb) -> Vectors:
        """(512,)"""
        small = resize_rgb(picture, *input_size(*picture.shape[:2]))
        found = self._session.run(["features"], {"image": small[None]})[0][0]
        return np.asarray(found, np.float32)


def input_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) at which a picture of that size is looked at; as training does when all pictures are so."""
    aspect = min(2.0, max(0.5, width / height))
    area = min(_PIXELS, height * width)
    return _rounded(math.sqrt(area / aspect)), _rounded(math.sqrt(area * aspect))


def _rounded(side: float) -> int:
    return min(_LARGEST_SIDE, max(_SMALLEST_SIDE, round(side / _SIDE_STEP) * _SIDE_STEP))


def write_graph(path: Path) -> None:
    """Whole or not at all. Imports torch."""
    from onnx import helper

    from gleaner.learn.graph import Graph
    from gleaner.learn.network import Backbone, load_backbone

    backbone = Backbone()
    load_backbone(backbone)
    backbone.eval()
    graph = Graph()
    features = graph.features(backbone, graph.image())
    graph.nodes.append(helper.make_node("Identity", [features], ["features"]))
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    graph.save(partial, "embedding", ("height", "width"), {"features": [1, Backbone.features]}, {})
    partial.replace(path)


if __name__ == "__main__":
    write_graph(Path(sys.argv[1]))
