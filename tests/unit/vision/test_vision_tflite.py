"""The TFLite service, on a model written here with LiteRT's own schema."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gleaner.machine.models import mlmodel_tflite
from gleaner.machine.models.base import BuildContext
from gleaner.machine.models.inference import FileModel, InferenceProblem, ModelLoadProblem


def mean_color_model(path: Path) -> Path:
    """uint8 (1, 8, 8, 3) → float (1, 3): the mean of each channel."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    import flatbuffers

    model, graph = schema.ModelT(), schema.SubGraphT()
    axes = schema.BufferT()
    axes.data = np.frombuffer(np.array([1, 2], np.int32).tobytes(), np.uint8)
    model.version, model.buffers = 3, [schema.BufferT(), axes]
    graph.tensors = []
    kinds = schema.TensorType
    for name, shape, kind, buffer in (
        ("serving_default_input:0", [1, 8, 8, 3], kinds.UINT8, 0),
        ("floats", [1, 8, 8, 3], kinds.FLOAT32, 0),
        ("axes", [2], kinds.INT32, 1),
        ("StatefulPartitionedCall:0", [1, 3], kinds.FLOAT32, 0),
    ):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, kind, buffer
        graph.tensors.append(tensor)
    cast, mean = schema.OperatorT(), schema.OperatorT()
    cast.opcodeIndex, cast.inputs, cast.outputs = 0, [0], [1]
    mean.opcodeIndex, mean.inputs, mean.outputs = 1, [1, 2], [3]
    mean.builtinOptionsType, mean.builtinOptions = schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT()
    graph.operators, graph.inputs, graph.outputs = [cast, mean], [0], [3]
    model.operatorCodes = []
    for code in (schema.BuiltinOperator.CAST, schema.BuiltinOperator.MEAN):
        operator = schema.OperatorCodeT()
        operator.builtinCode = operator.deprecatedBuiltinCode = code
        operator.version = 1
        model.operatorCodes.append(operator)
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


async def build(path: Path, **attributes: Any) -> FileModel:
    parsed = mlmodel_tflite.SPEC.attributes(model_path=str(path), **attributes)
    context = BuildContext("model", parsed, {}, None, logging.getLogger("test"))  # type: ignore[arg-type]
    return await mlmodel_tflite.SPEC.build(context)  # type: ignore[return-value]


async def test_a_tflite_model_tells_its_raw_tensor_names_and_answers(tmp_path: Path) -> None:
    model = await build(mean_color_model(tmp_path / "m.tflite"), label_path="/labels.txt", num_threads=2)
    metadata = await model.metadata()
    assert (metadata.input_info[0].name, metadata.input_info[0].data_type) == ("serving_default_input:0", "uint8")
    assert list(metadata.output_info[0].shape) == [1, 3]
    assert metadata.output_info[0].extra["labels"] == "/labels.txt"
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[..., 1] = 40
    answer = await model.infer({"image": image})  # the only input accepts Viam's name for it
    assert answer["StatefulPartitionedCall:0"].tolist() == [[0, 40, 0]]
    with pytest.raises(InferenceProblem, match="type float64; the model takes uint8"):
        await model.infer({"image": np.zeros((1, 8, 8, 3))})
    await model.close()


async def test_a_file_that_is_no_tflite_model_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "m.tflite").write_bytes(b"not a flatbuffer at all")
    with pytest.raises(ModelLoadProblem, match=r"m\.tflite is not a \.tflite model"):
        await build(tmp_path / "m.tflite")


async def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ModelLoadProblem, match=r"pip install 'gleaner\[tflite\]'"):
        await build(tmp_path / "m.tflite")
