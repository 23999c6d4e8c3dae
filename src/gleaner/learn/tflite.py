"""TensorFlow Lite files put together operation by operation, with the schema that comes with `ai-edge-litert` alone.

Maps are (1, H, W, C). Every operation is one that TF-Lite has had in its first version, so that viam-server's TF-Lite 2.15 reads
the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from gleaner.learn.graph import array_of
from gleaner.learn.network import MEAN, STD, Backbone, ConvUnit, Residual

__all__ = ["Array", "Op", "TfGraph", "TfliteSession", "schema"]

Op = schema.BuiltinOperator
Options = schema.BuiltinOptions
_SCHEMA_VERSION = 3
_KINDS = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "uint8": schema.TensorType.UINT8,
    "bool": schema.TensorType.BOOL,
}

Array = NDArray[Any]


class TfGraph:
    """Tensors are their numbers; `shapes` knows what they hold."""

    def __init__(self, height: int, width: int) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self._tensors: list[Any] = []
        self._buffers = [schema.BufferT()]
        self._operators: list[Any] = []
        self._codes: dict[int, int] = {}
        self.input = self._tensor((1, height, width, 3), "uint8", "image")

    # Tensors

    def _tensor(self, shape: Sequence[int], kind: str, name: str = "", data: Array | None = None) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type = list(shape), _KINDS[kind]
        tensor.name = name or f"t{len(self._tensors)}"
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            tensor.buffer = len(self._buffers)
            self._buffers.append(buffer)
        self._tensors.append(tensor)
        self.shapes.append(tuple(shape))
        return len(self._tensors) - 1

    def constant(self, value: Array | np.generic | Sequence[int]) -> int:
        array = np.asarray(value)
        kind = "int32" if np.issubdtype(array.dtype, np.integer) else "float32"
        return self._tensor(array.shape, kind, data=array.astype(kind))

    def add(
        self, code: int, inputs: Sequence[int], shape: Sequence[int], kind: str = "float32", options: Any = None
    ) -> int:
        """One operation with one output of that shape."""
        output = self._tensor(shape, kind)
        self._operate(code, inputs, [output], options)
        return output

    def _operate(self, code: int, inputs: Sequence[int], outputs: Sequence[int], options: Any) -> None:
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(Options, type(options).__name__.removesuffix("T"))
        self._operators.append(operator)

    # Arithmetic

    def both(self, code: int, a: int, b: int, kind: str = "float32") -> int:
        """An operation on two tensors, broadcast as numpy does."""
        shape = np.broadcast_shapes(self.shapes[a], self.shapes[b])
        options = {Op.ADD: schema.AddOptionsT, Op.MUL: schema.MulOptionsT, Op.SUB: schema.SubOptionsT}.get(code)
        return self.add(code, [a, b], shape, kind, options() if options else None)

    def each(self, code: int, x: int) -> int:
        return self.add(code, [x], self.shapes[x])

    def cast(self, x: int, kind: str = "float32") -> int:
        return self.add(Op.CAST, [x], self.shapes[x], kind, schema.CastOptionsT())

    def reshape(self, x: int, shape: Sequence[int], kind: str = "float32") -> int:
        options = schema.ReshapeOptionsT()
        options.newShape = list(shape)
        return self.add(Op.RESHAPE, [x, self.constant(list(shape))], shape, kind, options)

    def reduce(self, code: int, x: int, axes: Sequence[int], keep: bool = False) -> int:
        options = schema.ReducerOptionsT()
        options.keepDims = keep
        shape = [1 if n in axes else side for n, side in enumerate(self.shapes[x]) if keep or n not in axes]
        return self.add(code, [x, self.constant(list(axes))], shape, options=options)

    def gather(self, x: int, where: int, kind: str = "float32") -> int:
        """Rows of `x`."""
        shape = [*self.shapes[where], *self.shapes[x][1:]]
        return self.add(Op.GATHER, [x, where], shape, kind, schema.GatherOptionsT())

    def columns(self, x: int, begin: int, count: int) -> int:
        """Of (rows, columns)."""
        rows = self.shapes[x][0]
        inputs = [x, self.constant([0, begin]), self.constant([rows, count])]
        return self.add(Op.SLICE, inputs, [rows, count], options=schema.SliceOptionsT())

    def top(self, x: int, count: int) -> tuple[int, int]:
        """The largest of (n,) and their places, each (count,)."""
        values, where = self._tensor([count], "float32"), self._tensor([count], "int32")
        size = self._tensor([], "int32", data=np.array(count, np.int32))
        self._operate(Op.TOPK_V2, [x, size], [values, where], schema.TopKV2OptionsT())
        return values, where

    # Layers

    def image(self) -> int:
        """The input as the network wants it."""
        scaled = self.both(Op.MUL, self.cast(self.input), self.constant(np.float32(1 / (255 * STD))))
        return self.both(Op.ADD, scaled, self.constant(np.float32(-MEAN / STD)))

    def silu(self, x: int) -> int:
        return self.both(Op.MUL, x, self.each(Op.LOGISTIC, x))

    def conv(self, x: int, weight: Array, bias: Array, stride: int = 1) -> int:
        """`weight` is torch's (out, in, k, k). TF-Lite's own padding puts less before than after, which a stride would see."""
        options = schema.Conv2DOptionsT()
        options.strideH = options.strideW = stride
        options.padding = schema.Padding.SAME
        size = weight.shape[2]
        if stride > 1 and size > 1:
            x, options.padding = self._padded(x, size // 2), schema.Padding.VALID
        _, height, width, _ = self.shapes[x]
        sides = [height, width]
        if options.padding == schema.Padding.VALID:
            sides = [(side - size) // stride + 1 for side in sides]
        inputs = [x, self.constant(weight.transpose(0, 2, 3, 1)), self.constant(bias)]
        return self.add(Op.CONV_2D, inputs, [1, *sides, len(weight)], options=options)

    def _padded(self, x: int, by: int) -> int:
        _, height, width, channels = self.shapes[x]
        pads = self.constant(np.array([[0, 0], [by, by], [by, by], [0, 0]], np.int32))
        return self.add(Op.PAD, [x, pads], [1, height + 2 * by, width + 2 * by, channels], options=schema.PadOptionsT())

    def unit(self, unit: ConvUnit, x: int) -> int:
        """Convolution with its batch norm folded in."""
        conv, norm = unit.conv, unit.norm
        scale = array_of(norm.weight) / np.sqrt(array_of(norm.running_var) + norm.eps)
        weight = array_of(conv.weight) * scale[:, None, None, None]
        bias = array_of(norm.bias) - array_of(norm.running_mean) * scale
        y = self.conv(x, weight, bias, conv.stride[0])
        return self.silu(y) if unit.activate else y

    def stage(self, stage: Any, x: int) -> int:
        for layer in stage:
            if isinstance(layer, Residual):
                x = self.silu(self.both(Op.ADD, x, self.unit(layer.second, self.unit(layer.first, x))))
            elif isinstance(layer, ConvUnit):
                x = self.unit(layer, x)
            else:
                raise TypeError(f"no TF-Lite translation for {type(layer).__name__}")
        return x

    def grow(self, small: int, like: int) -> int:
        _, height, width, _ = self.shapes[like]
        shape = [1, height, width, self.shapes[small][3]]
        inputs = [small, self.constant([height, width])]
        return self.add(Op.RESIZE_NEAREST_NEIGHBOR, inputs, shape, options=schema.ResizeNearestNeighborOptionsT())

    def maps(self, b: Backbone, x: int) -> tuple[int, int]:
        """`Backbone.maps`."""
        at8 = self.stage(b.stage8, self.stage(b.stem, x))
        at16 = self.stage(b.stage16, at8)
        at32 = self.stage(b.stage32, at16)
        lateral8, lateral16 = self.unit(b.lateral8, at8), self.unit(b.lateral16, at16)
        grown = self.grow(self.unit(b.lateral32, at32), lateral16)
        mixed16 = self.unit(b.smooth16, self.both(Op.ADD, lateral16, grown))
        return at32, self.unit(b.smooth8, self.both(Op.ADD, lateral8, self.grow(mixed16, lateral8)))

    def features(self, b: Backbone, x: int) -> int:
        """`Backbone.forward`: (1, 512)."""
        pooled = [self.reduce(code, each, [1, 2]) for each in self.maps(b, x) for code in (Op.MEAN, Op.REDUCE_MAX)]
        options = schema.ConcatenationOptionsT()
        options.axis = 1
        return self.add(Op.CONCATENATION, pooled, [1, Backbone.features], options=options)

    def linear(self, x: int, weight: Array, bias: Array) -> int:
        inputs = [x, self.constant(weight), self.constant(bias)]
        return self.add(Op.FULLY_CONNECTED, inputs, [1, len(bias)], options=schema.FullyConnectedOptionsT())

    def save(self, path: Path, outputs: Mapping[str, int]) -> None:
        for name, number in outputs.items():
            self._tensors[number].name = name
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "main", self._tensors, self._operators
        graph.inputs, graph.outputs = [self.input], list(outputs.values())
        model = schema.ModelT()
        model.version, model.description = _SCHEMA_VERSION, "gleaner"
        model.subgraphs, model.buffers = [graph], self._buffers
        model.operatorCodes = [_code(code) for code in self._codes]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))


def _code(number: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = number
    code.deprecatedBuiltinCode = min(number, 127)  # where readers before 2.4 look
    code.version = 1
    return code


class TfliteSession:
    """The file as a machine would run it, on one thread; asked like onnxruntime's session."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = {one["name"]: one["index"] for one in self._interpreter.get_output_details()}

    def run(self, names: list[str] | None, tensors: dict[str, Any]) -> list[Array]:
        """All outputs in the order of their names in the file, unless names are given."""
        self._interpreter.set_tensor(self._input, tensors["image"])
        self._interpreter.invoke()
        return [np.asarray(self._interpreter.get_tensor(self._outputs[name])) for name in names or self._outputs]
