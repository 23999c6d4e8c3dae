"""Classifiers over a backbone of somebody else as ONNX, by torch's exporter: their layers are not known one by one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from gleaner.learn.errors import RunProblem
from gleaner.learn.network import MEAN, STD, Classifier

OPSET, IR_VERSION = 18, 8
"""The exporter's oldest; read by every onnxruntime since 1.14."""


class _Whole(nn.Module):
    """uint8 (1, H, W, 3) → (1, labels), each 0–1."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.permute(0, 3, 1, 2).float() / 255
        logits: Tensor = self.network((pixels - MEAN) / STD)
        return logits.sigmoid()


def export_by_tracing(
    network: Classifier, input_size: tuple[int, int], path: Path, properties: Mapping[str, str]
) -> None:
    """Writes `path`; `properties` become the file's metadata. Raises RunProblem for layers that ONNX does not have."""
    network.eval()
    example = torch.zeros(1, *input_size, 3, dtype=torch.uint8)
    try:
        program = torch.onnx.export(
            _Whole(network),
            (example,),
            input_names=["image"],
            output_names=["probability"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunProblem(
            f"This backbone cannot be written as ONNX: {first}", "Choose another one, such as a ResNet or a ConvNeXt."
        ) from error
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    model.producer_name = "gleaner"
    helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
