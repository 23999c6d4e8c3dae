"""`viam:mlmodel-tflite:tflite_cpu`: runs a .tflite file with LiteRT on the processor, when the `tflite` extra is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from grpclib import Status
from numpy.typing import NDArray

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
)


class TfliteRuntime(Runtime):
    """One interpreter. Names are the raw tensor names of the file; output shapes are those after a run on zeros."""

    kind = "tflite"

    def __init__(self, path: str, threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ModelLoadProblem(
                "running .tflite models needs LiteRT, which is not installed here: pip install 'gleaner[tflite]'"
            ) from error
        try:
            self._interpreter = Interpreter(model_path=str(check_file(path)), num_threads=threads)
            self._interpreter.allocate_tensors()
            inputs = self._interpreter.get_input_details()
            for detail in inputs:
                self._interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelLoadProblem(f"{path} is not a .tflite model that LiteRT can run: {error}") from error
        outputs = self._interpreter.get_output_details()
        self._input_index = {detail["name"]: detail["index"] for detail in inputs}
        self._output_index = {detail["name"]: detail["index"] for detail in outputs}
        self.inputs = [_spec(detail, detail["shape"]) for detail in inputs]
        self.outputs = [_spec(d, self._interpreter.get_tensor(d["index"]).shape) for d in outputs]

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
        try:
            for name, array in tensors.items():
                self._interpreter.set_tensor(self._input_index[name], array)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise InferenceProblem(f"the model failed on these tensors: {error}", Status.INTERNAL) from error
        return {name: np.asarray(self._interpreter.get_tensor(index)) for name, index in self._output_index.items()}


def _spec(detail: Mapping[str, Any], shape: Any) -> TensorSpec:
    return TensorSpec(str(detail["name"]), np.dtype(detail["dtype"]).name, tuple(int(side) for side in shape))


async def _build(context: BuildContext) -> FileModel:
    attributes: ModelFileAttributes = context.attributes
    return await asyncio.to_thread(
        load_model, context, Path(attributes.model_path), lambda path, threads: TfliteRuntime(str(path), threads)
    )


SPEC = ModelSpec(
    api="rdk:service:mlmodel",
    model="viam:mlmodel-tflite:tflite_cpu",
    aliases=("rdk:builtin:tflite_cpu",),
    title="TFLite model",
    description="Runs a TensorFlow Lite model (.tflite) on this machine's processor. Needs the tflite extra.",
    icon="cpu",
    attributes=ModelFileAttributes,
    build=_build,
)
