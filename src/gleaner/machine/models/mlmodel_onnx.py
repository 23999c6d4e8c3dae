"""`gleaner:mlmodel:onnx-cpu`: runs an ONNX file with onnxruntime on the processor."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from grpclib import Status
from numpy.typing import NDArray
from pydantic import Field

from gleaner.machine.models.base import BuildContext, ModelSpec
from gleaner.machine.models.inference import (
    FileModel,
    InferenceProblem,
    ModelFileAttributes,
    ModelLoadProblem,
    Runtime,
    Tensors,
    TensorSpec,
    check_file,
    load_model,
    tried,
)

_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    **{f"tensor({name})": name for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")},
}


class OnnxRuntime(Runtime):
    """One session; `threads` bounds what a single inference may use, and waiting threads sleep instead of spinning."""

    kind = "onnx"

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as states

        self._errors: tuple[type[Exception], ...] = (states.Fail, states.InvalidArgument, states.RuntimeException)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        unusable = (
            *self._errors,
            states.InvalidProtobuf,
            states.InvalidGraph,
            states.NotImplemented,
            states.NoSuchFile,
        )
        try:
            self._session = onnxruntime.InferenceSession(
                str(check_file(path)), options, providers=["CPUExecutionProvider"]
            )
        except unusable as error:
            raise ModelLoadProblem(
                f"{path} is not an ONNX model that onnxruntime {onnxruntime.__version__} can run: {error}"
            ) from error
        self.inputs = [_spec(node, str(path)) for node in self._session.get_inputs()]
        self.outputs = [_spec(node, str(path)) for node in self._session.get_outputs()]
        self._names = [spec.name for spec in self.outputs]

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
        try:
            answers = self._session.run(self._names, dict(tensors))
        except self._errors as error:
            raise InferenceProblem(f"the model failed on these tensors: {error}", Status.INTERNAL) from error
        return {name: np.asarray(answer) for name, answer in zip(self._names, answers, strict=True)}


def _spec(node: Any, path: str) -> TensorSpec:
    if node.type not in _TYPES:
        raise ModelLoadProblem(f"{path}: tensor {node.name!r} is {node.type}, which ML model services cannot carry")
    return TensorSpec(node.name, _TYPES[node.type], tuple(side if isinstance(side, int) else -1 for side in node.shape))


class OnnxAttributes(ModelFileAttributes):
    """Attributes of an ONNX model."""

    precision: Literal["float32", "int8", "auto"] = Field(
        default="float32",
        title="Precision",
        description="int8 takes the package's 8-bit model, which training leaves where it is faster; auto whichever is faster here.",
    )


async def _build(context: BuildContext) -> FileModel:
    return await asyncio.to_thread(lambda: load_model(context, _chosen(context), OnnxRuntime))


def _chosen(context: BuildContext) -> Path:
    """The file that is to be used. Raises ModelLoadProblem. Blocks."""
    attributes: OnnxAttributes = context.attributes
    whole = Path(attributes.model_path)
    short = whole.with_name(f"{whole.stem}-int8{whole.suffix}")
    if attributes.precision == "float32" or (attributes.precision == "auto" and not short.is_file()):
        return whole
    if attributes.precision == "int8":
        if not short.is_file():
            raise ModelLoadProblem(
                f"there is no 8-bit model {short}: training keeps one only where it is faster and hardly worse, and its report "
                "says why not; set precision to float32 or auto"
            )
        return short
    try:
        took_ms = {path: tried(OnnxRuntime(path, attributes.num_threads), path.name) for path in (whole, short)}
    except ModelLoadProblem as problem:
        context.log.warning("%s is used: %s", whole.name, problem)
        return whole
    if (whole_ms := took_ms[whole]) is None or (short_ms := took_ms[short]) is None:
        return whole
    fastest = short if short_ms < whole_ms else whole
    context.log.info("%s is used: %.2f ms in 8 bits, %.2f ms in 32", fastest.name, short_ms, whole_ms)
    return fastest


SPEC = ModelSpec(
    api="rdk:service:mlmodel",
    model="gleaner:mlmodel:onnx-cpu",
    aliases=("viam:mlmodel-onnx:onnx-cpu", "rdk:builtin:onnx_cpu"),
    title="ONNX model",
    description="Runs a trained model (.onnx) on this machine's processor. Add a vision service to use it on a camera.",
    icon="cpu",
    attributes=OnnxAttributes,
    build=_build,
)
