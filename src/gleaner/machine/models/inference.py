"""What ML model services share: one loaded model, one named thread that runs it, and Viam's metadata."""

from __future__ import annotations

import abc
import asyncio
import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from grpclib import Status
from numpy.typing import NDArray
from pydantic import Field
from viam.errors import ViamGRPCError
from viam.proto.service.mlmodel import Metadata, TensorInfo
from viam.services.mlmodel import MLModel
from viam.utils import dict_to_struct

from gleaner.machine.models.base import Attributes, BuildContext

Tensors = dict[str, NDArray[Any]]


class ModelFileAttributes(Attributes):
    """Attributes of a model that is one file."""

    model_path: str = Field(
        min_length=1, title="Model file", description="Path of the model; a deployed model fills this in."
    )
    label_path: str = Field(default="", title="Label file", description="Text file with one label per line.")
    num_threads: int = Field(
        default=1, ge=1, le=64, title="Threads", description="Processor cores one inference may use."
    )
    package_reference: str | None = Field(
        default=None, title="Package", description="Set by the app; not used by the machine."
    )


class ModelLoadProblem(RuntimeError):
    """A model file cannot be used; the message says which, why, and what to do."""


class InferenceProblem(ViamGRPCError):
    """The given tensors do not fit the model, or it failed on them."""

    def __init__(self, message: str, grpc_code: Status = Status.INVALID_ARGUMENT) -> None:
        super().__init__(message, grpc_code)

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class TensorSpec:
    """`shape` has -1 for unknown sizes; `dtype` is numpy's name, e.g. uint8."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Runtime(abc.ABC):
    """A loaded model file. Used from one thread at a time."""

    kind: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]

    @abc.abstractmethod
    def run(self, tensors: Mapping[str, NDArray[Any]]) -> Tensors: ...


def check_file(path: str | Path) -> Path:
    """Raises ModelLoadProblem when there is no readable, non-empty file."""
    file = Path(path)
    try:
        size = file.stat().st_size
        with file.open("rb"):
            pass
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ModelLoadProblem(
            f"the model file {path} cannot be read: {why}; check model_path or deploy the model again"
        ) from error
    if not size:
        raise ModelLoadProblem(f"the model file {path} is empty; deploy the model again")
    return file


_TRIALS = 3
_CHANNELS = (1, 3)


def tried(runtime: Runtime, name: str) -> float | None:
    """Milliseconds of one inference, the median of a few on a grey picture: what a model does before it takes over.

    None if the model does not take one picture of a known size: what else would make sense to it is not known here.
    Raises ModelLoadProblem when it fails on the picture, or answers with numbers that are none.
    """
    if len(runtime.inputs) != 1 or not _is_picture(wanted := runtime.inputs[0]):
        return None
    shape = (1, *wanted.shape[1:])
    grey = np.full(shape, 128, wanted.dtype) if wanted.dtype == "uint8" else np.full(shape, 0.5, wanted.dtype)
    took_s = []
    for _ in range(_TRIALS):
        began_s = time.perf_counter()
        try:
            answers = runtime.run({wanted.name: grey})
        except InferenceProblem as problem:
            raise ModelLoadProblem(
                f"{name} fails on a plain grey picture: {problem}; train or deploy it anew"
            ) from None
        took_s.append(time.perf_counter() - began_s)
    for output, answer in answers.items():
        if answer.dtype.kind == "f" and np.isnan(answer).any():
            raise ModelLoadProblem(
                f"{name} answers a plain grey picture with numbers that are none ({output}); train or deploy it anew"
            )
    return statistics.median(took_s) * 1000


def _is_picture(spec: TensorSpec) -> bool:
    is_sized = len(spec.shape) == 4 and spec.shape[0] in (-1, 1) and min(spec.shape[1:]) > 0
    has_channels = is_sized and (spec.shape[3] in _CHANNELS or spec.shape[1] in _CHANNELS)
    return has_channels and spec.dtype in ("uint8", "float32")


class FileModel(MLModel):
    """A viam-sdk ML model on a Runtime; inference happens in one thread of its own."""

    def __init__(
        self, name: str, runtime: Runtime, label_path: str, log: logging.Logger, latency_ms: float | None = None
    ) -> None:
        """`latency_ms`: as `tried` measured it."""
        super().__init__(name)
        self.latency_ms = latency_ms
        self._runtime = runtime
        self._label_path = label_path
        self._log = log
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"mlmodel-{name}")

    async def infer(
        self,
        input_tensors: dict[str, NDArray[Any]],
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Tensors:
        """Raises InferenceProblem for a missing, unknown or wrongly shaped tensor."""
        tensors = match_tensors(input_tensors, self._runtime.inputs)
        try:
            answer = asyncio.wrap_future(self._worker.submit(self._runtime.run, tensors))
        except RuntimeError as error:
            raise InferenceProblem(
                f"ML model {self.name} is closed: it was removed or replaced", Status.UNAVAILABLE
            ) from error
        return await answer

    async def metadata(
        self, *, extra: Mapping[str, Any] | None = None, timeout: float | None = None, **_: Any
    ) -> Metadata:
        runtime = self._runtime
        return Metadata(
            name=self.name,
            type=runtime.kind,
            input_info=[_tensor_info(spec, "") for spec in runtime.inputs],
            output_info=[_tensor_info(spec, self._label_path) for spec in runtime.outputs],
        )

    async def close(self) -> None:
        await asyncio.to_thread(self._worker.shutdown, wait=True, cancel_futures=True)


def load_model(context: BuildContext, path: Path, open_runtime: Callable[[Path, int], Runtime]) -> FileModel:
    """Opens the model in the file and asks it once. `open_runtime` gets the threads, too. Raises ModelLoadProblem. Blocks."""
    attributes: ModelFileAttributes = context.attributes
    runtime, name = open_runtime(path, attributes.num_threads), path.name
    latency_ms = tried(runtime, name)
    if latency_ms is not None:
        context.log.info("%s answers in %.2f ms", name, latency_ms)
    return FileModel(context.name, runtime, attributes.label_path, context.log, latency_ms)


def match_tensors(given: Mapping[str, NDArray[Any]], wanted: Sequence[TensorSpec]) -> Tensors:
    """The given arrays under the model's names and with its kind of number, checked.

    A model with a single input accepts it under any name: Viam's clients send `image` whatever the file calls it.
    """
    if len(wanted) == 1 and len(given) == 1 and wanted[0].name not in given:
        given = {wanted[0].name: next(iter(given.values()))}
    names = [spec.name for spec in wanted]
    missing, unknown = sorted(set(names) - set(given)), sorted(set(given) - set(names))
    if missing or unknown:
        said = f"missing {', '.join(missing)}" if missing else f"unknown {', '.join(unknown)}"
        raise InferenceProblem(f"input tensors do not fit the model: {said}; it takes {', '.join(names)}")
    return {spec.name: _fitted(np.asarray(given[spec.name]), spec) for spec in wanted}


def _fitted(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    if array.dtype.name != spec.dtype:
        raise InferenceProblem(
            f"tensor {spec.name} has numbers of type {array.dtype.name}; the model takes {spec.dtype}"
        )
    fits = array.ndim == len(spec.shape) and all(w in (-1, g) for g, w in zip(array.shape, spec.shape, strict=True))
    if not fits:
        if -1 not in spec.shape and array.size == int(np.prod(spec.shape)):
            return array.reshape(spec.shape)
        raise InferenceProblem(f"tensor {spec.name} has shape {list(array.shape)}; the model takes {list(spec.shape)}")
    return array


def _tensor_info(spec: TensorSpec, label_path: str) -> TensorInfo:
    info = TensorInfo(name=spec.name, data_type=spec.dtype, shape=list(spec.shape))
    if label_path:
        info.extra.CopyFrom(dict_to_struct({"labels": label_path}))
    return info
