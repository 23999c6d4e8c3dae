"""The exported model with convolutions in 8 bits: kept only where it is faster here and hardly worse on pictures kept from training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gleaner.learn.graph import measure_inference_ms, open_session
from gleaner.learn.previous import Qualities

LARGEST_LOSS = 0.01
"""Of what the answers are measured by (`previous.py`): mAP50, or the labels' mean F1."""
LEAST_GAIN = 0.05
"""Of the time; less is within what two measurements of the same file differ by."""
CALIBRATED_WITH = 48

Compare = Callable[[Any, Any], Qualities | None]
"""How good the answers of two sessions are, the whole model's first, to pictures kept from training; None without any."""


def export_int8(source: Path, target: Path, pictures: NDArray[np.uint8], compare: Compare) -> dict[str, Any]:
    """The report's entry; `target` exists afterwards only if it is worth having. `pictures`: CALIBRATED_WITH that were learned from, whose
    values say what range each layer needs."""
    _quantize(source, target, pictures)
    found = compare(open_session(source), open_session(target))
    if found is None:
        target.unlink()
        return {"reason": "no picture was left to test it with"}
    lost = found.before - found.now
    slow_ms, fast_ms = (measure_inference_ms(path, pictures[0]) for path in (source, target))
    size = target.stat().st_size
    figures = f"{fast_ms:.1f} ms instead of {slow_ms:.1f}, {lost * 100:+.1f} points of {found.measure} lost on {found.pictures} pictures"
    reason = ""
    if lost > LARGEST_LOSS:
        reason = f"it answers worse: {figures}"
    elif fast_ms > slow_ms * (1 - LEAST_GAIN):
        reason = f"it is not faster: {figures}"
    if reason:
        target.unlink()
        return {"reason": reason}
    return {
        "file": target.name,
        "size_bytes": size,
        "inference_ms": fast_ms,
        "largest_difference": None,
        "lost": round(lost, 5),
        "measure": found.measure,
        "judged": found.pictures,
    }


def _quantize(source: Path, target: Path, pictures: NDArray[np.uint8]) -> None:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._pictures: Iterator[NDArray[np.uint8]] = iter(pictures)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            picture = next(self._pictures, None)
            return None if picture is None else {"image": picture[None]}

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a step that these graphs have no need of
    try:
        quantization.quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
    made = onnx.load(target)
    del made.metadata_props[:]
    made.metadata_props.extend(onnx.load(source).metadata_props)
    target.write_bytes(made.SerializeToString())
