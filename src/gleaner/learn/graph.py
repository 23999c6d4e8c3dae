"""ONNX graphs put together layer by layer, instead of by torch's exporter: that takes 0.1 s instead of about ten, needs no
onnxscript, and folds each batch norm into its convolution.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gleaner.learn.network import MEAN, STD, Backbone, ConvUnit, Residual

OPSET, IR_VERSION = 17, 8
"""Read by every onnxruntime since 1.12."""
LARGEST_DIFFERENCE = 1e-3
"""Between torch and onnxruntime; folding and fusing change the last digits of float32."""
_TIMED_RUNS = 15


class Graph:
    """Nodes and constants under numbered names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def image(self) -> str:
        """The input `image`, uint8 (1, H, W, 3), as the network wants it."""
        pixels = self.add("Cast", ["image"], to=TensorProto.FLOAT)
        planar = self.add("Transpose", [pixels], perm=[0, 3, 1, 2])
        scaled = self.add("Mul", [planar, self.constant(np.float32(1 / (255 * STD)))])
        return self.add("Add", [scaled, self.constant(np.float32(-MEAN / STD))])

    def constant(self, value: NDArray[np.float32] | np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def silu(self, x: str) -> str:
        return self.add("Mul", [x, self.add("Sigmoid", [x])])

    def unit(self, unit: ConvUnit, x: str) -> str:
        """Convolution with its batch norm folded in."""
        conv, norm = unit.conv, unit.norm
        scale = array_of(norm.weight) / np.sqrt(array_of(norm.running_var) + norm.eps)
        weight = array_of(conv.weight) * scale[:, None, None, None]
        bias = array_of(norm.bias) - array_of(norm.running_mean) * scale
        inputs = [x, self.constant(weight.astype(np.float32)), self.constant(bias.astype(np.float32))]
        pads, strides = [conv.padding[0], conv.padding[1]] * 2, list(conv.stride)
        y = self.add("Conv", inputs, kernel_shape=list(conv.kernel_size), pads=pads, strides=strides)
        return self.silu(y) if unit.activate else y

    def conv(self, conv: torch.nn.Conv2d, x: str) -> str:
        """A convolution with a bias and no norm."""
        inputs = [x, self.constant(array_of(conv.weight)), self.constant(array_of(conv.bias))]
        return self.add("Conv", inputs, kernel_shape=list(conv.kernel_size), pads=[conv.kernel_size[0] // 2] * 4)

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
        spatial = self.add("Slice", [target, self.integers(2), self.integers(4)])
        return self.add("Concat", [channels, spatial], axis=0)

    def integers(self, *values: int) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def maps(self, b: Backbone, x: str) -> tuple[str, str]:
        """`Backbone.maps`."""
        at8 = self.stage(b.stage8, self.stage(b.stem, x))
        at16 = self.stage(b.stage16, at8)
        at32 = self.stage(b.stage32, at16)
        lateral8, lateral16, lateral32 = (
            self.unit(b.lateral8, at8),
            self.unit(b.lateral16, at16),
            self.unit(b.lateral32, at32),
        )
        mixed16 = self.unit(b.smooth16, self.add("Add", [lateral16, self.grow(lateral32, lateral16)]))
        mixed8 = self.unit(b.smooth8, self.add("Add", [lateral8, self.grow(mixed16, lateral8)]))
        return at32, mixed8

    def features(self, b: Backbone, x: str) -> str:
        """`Backbone.forward`."""
        pooled = [self.add(op, [each]) for each in self.maps(b, x) for op in ("GlobalAveragePool", "GlobalMaxPool")]
        return self.add("Flatten", [self.add("Concat", pooled, axis=1)], axis=1)

    def save(
        self,
        path: Path,
        name: str,
        input_size: tuple[int | str, int | str],
        outputs: Mapping[str, Sequence[int]],
        properties: Mapping[str, str],
    ) -> None:
        """Writes the graph with float outputs of these shapes; `properties` become the file's metadata.

        A side of the input that is a word may have any length.
        """
        made = [helper.make_tensor_value_info(each, TensorProto.FLOAT, list(shape)) for each, shape in outputs.items()]
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *input_size, 3])
        model = helper.make_model(
            helper.make_graph(self.nodes, name, [image], made, self.constants),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="gleaner",
        )
        helper.set_model_props(model, dict(properties))
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())


def model_properties(labels: list[str], task: str, threshold: float, version: str) -> dict[str, str]:
    """What a program that only has the file may want to know."""
    return {
        "gleaner.labels": json.dumps(labels, ensure_ascii=False),
        "gleaner.task": task,
        "gleaner.suggested_threshold": str(threshold),
        "gleaner.model_version": version,
        "gleaner.input": "RGB, the whole picture squeezed to the input size, areas averaged",
    }


def open_session(path: Path) -> Any:
    """The file, .onnx or .tflite, as a machine would run it, on one thread."""
    if path.suffix == ".tflite":
        from gleaner.learn.tflite import TfliteSession

        return TfliteSession(path)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure_inference_ms(path: Path, picture: NDArray[np.uint8]) -> float:
    """Median time of one picture on one thread."""
    session = open_session(path)
    times = []
    for _ in range(_TIMED_RUNS):
        began = time.perf_counter()
        session.run(None, {"image": picture[None]})
        times.append(time.perf_counter() - began)
    return round(sorted(times)[_TIMED_RUNS // 2] * 1000, 3)


def array_of(tensor: torch.Tensor | None) -> NDArray[np.float32]:
    if tensor is None:
        raise ValueError("the network lacks a weight that its layers need")
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float32)
