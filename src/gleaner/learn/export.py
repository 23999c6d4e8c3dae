"""Writes a trained classifier as an ONNX file that needs no code around it.

Input `image`: uint8 (1, H, W, 3), RGB. Output `probability`: float32 (1, labels), each 0–1. Scaling, normalizing and the
sigmoid are inside. The graph is put together here, layer by layer, instead of by torch's exporter: that takes 0.1 s
instead of about ten, needs no onnxscript, and folds each batch norm into its convolution.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gleaner.learn.network import MEAN, STD, Classifier, ConvUnit, Residual

OPSET, IR_VERSION = 17, 8
"""Read by every onnxruntime since 1.12."""
LARGEST_DIFFERENCE = 1e-3
"""Between torch and onnxruntime; folding and fusing change the last digits of float32."""
_TIMED_RUNS = 15


def export_classifier(
    network: Classifier, input_size: tuple[int, int], path: Path, properties: Mapping[str, str]
) -> None:
    """Writes `path`; `properties` become the file's metadata."""
    network.eval()
    graph = _Graph()
    pixels = graph.add("Cast", ["image"], to=TensorProto.FLOAT)
    planar = graph.add("Transpose", [pixels], perm=[0, 3, 1, 2])
    scaled = graph.add("Mul", [planar, graph.constant(np.float32(1 / (255 * STD)))])
    x = graph.add("Add", [scaled, graph.constant(np.float32(-MEAN / STD))])
    features = _backbone(graph, network, x)
    weight, bias = _array(network.head.weight), _array(network.head.bias)
    logits = graph.add("Gemm", [features, graph.constant(weight), graph.constant(bias)], transB=1)
    graph.nodes.append(helper.make_node("Sigmoid", [logits], ["probability"]))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "classifier",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *input_size, 3])],
            [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [1, len(bias)])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="gleaner",
    )
    helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


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
    session = _session(path)
    worst = 0.0
    for picture, wanted in zip(pictures, expected, strict=True):
        got = session.run(["probability"], {"image": picture[None]})[0][0]
        worst = max(worst, float(np.abs(got - wanted).max()))
    if not worst <= LARGEST_DIFFERENCE:
        raise ValueError(f"the exported model answers differently by {worst:.4f} from the one that was trained")
    return worst


def measure_inference_ms(path: Path, picture: NDArray[np.uint8]) -> float:
    """Median time of one picture on one thread."""
    session = _session(path)
    times = []
    for _ in range(_TIMED_RUNS):
        began = time.perf_counter()
        session.run(["probability"], {"image": picture[None]})
        times.append(time.perf_counter() - began)
    return round(sorted(times)[_TIMED_RUNS // 2] * 1000, 3)


def classifier_properties(labels: list[str], task: str, threshold: float, version: str) -> dict[str, str]:
    """What a program that only has the file may want to know."""
    return {
        "gleaner.labels": json.dumps(labels, ensure_ascii=False),
        "gleaner.task": task,
        "gleaner.suggested_threshold": str(threshold),
        "gleaner.model_version": version,
        "gleaner.input": "RGB, the whole picture squeezed to the input size, areas averaged",
    }


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class _Graph:
    """Nodes and constants under numbered names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, value: NDArray[np.float32] | np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def silu(self, x: str) -> str:
        return self.add("Mul", [x, self.add("Sigmoid", [x])])

    def unit(self, unit: ConvUnit, x: str) -> str:
        """Convolution with its batch norm folded in."""
        conv, norm = unit.conv, unit.norm
        scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
        weight = _array(conv.weight) * scale[:, None, None, None]
        bias = _array(norm.bias) - _array(norm.running_mean) * scale
        inputs = [x, self.constant(weight.astype(np.float32)), self.constant(bias.astype(np.float32))]
        pads, strides = [conv.padding[0], conv.padding[1]] * 2, list(conv.stride)
        y = self.add("Conv", inputs, kernel_shape=list(conv.kernel_size), pads=pads, strides=strides)
        return self.silu(y) if unit.activate else y

    def residual(self, block: Residual, x: str) -> str:
        return self.silu(self.add("Add", [x, self.unit(block.second, self.unit(block.first, x))]))

    def stage(self, stage: torch.nn.Sequential, x: str) -> str:
        for layer in stage:
            if isinstance(layer, Residual):
                x = self.residual(layer, x)
            elif isinstance(layer, ConvUnit):
                x = self.unit(layer, x)
            else:
                raise TypeError(f"no ONNX translation for {type(layer).__name__}")
        return x

    def grow(self, small: str, like: str) -> str:
        """Nearest-neighbour enlargement to the size of `like`, as torch's `interpolate` does it."""
        target = self.add("Shape", [like])
        nothing = self.constant(np.zeros(0, np.float32))
        options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.add("Resize", [small, "", nothing, self._same_channels(small, target)], **options)

    def _same_channels(self, small: str, target: str) -> str:
        channels = self.add("Shape", [small], start=0, end=2)
        spatial = self.add("Slice", [target, self._integers(2), self._integers(4)])
        return self.add("Concat", [channels, spatial], axis=0)

    def _integers(self, *values: int) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name


def _backbone(graph: _Graph, network: Classifier, x: str) -> str:
    b = network.backbone
    at8 = graph.stage(b.stage8, graph.stage(b.stem, x))
    at16 = graph.stage(b.stage16, at8)
    at32 = graph.stage(b.stage32, at16)
    lateral8, lateral16, lateral32 = (
        graph.unit(b.lateral8, at8),
        graph.unit(b.lateral16, at16),
        graph.unit(b.lateral32, at32),
    )
    mixed16 = graph.unit(b.smooth16, graph.add("Add", [lateral16, graph.grow(lateral32, lateral16)]))
    mixed8 = graph.unit(b.smooth8, graph.add("Add", [lateral8, graph.grow(mixed16, lateral8)]))
    pooled = [graph.add(op, [f]) for f in (at32, mixed8) for op in ("GlobalAveragePool", "GlobalMaxPool")]
    return graph.add("Flatten", [graph.add("Concat", pooled, axis=1)], axis=1)


def _array(tensor: torch.Tensor | None) -> NDArray[np.float32]:
    if tensor is None:
        raise ValueError("the network lacks a weight that its layers need")
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float32)
