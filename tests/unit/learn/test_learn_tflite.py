"""Exported .tflite files answer like the ONNX files of the same networks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("ai_edge_litert")

from gleaner.learn.detect.export import export_detector
from gleaner.learn.detect.network import build_detector
from gleaner.learn.export import export_classifier
from gleaner.learn.export_tflite import write_classifier, write_detector
from gleaner.learn.graph import open_session
from gleaner.learn.network import build_classifier
from gleaner.learn.tflite import schema
from gleaner.machine.models.mlmodel_tflite import TfliteRuntime


def scene(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    picture = random.integers(60, 120, (*size, 3), dtype=np.uint8)
    for _ in range(10):
        x, y = (int(random.integers(0, side)) for side in (size[1], size[0]))
        colour = tuple(int(v) for v in random.integers(0, 255, 3))
        cv2.circle(picture, (x, y), int(random.integers(6, 20)), colour, -1)
    return picture[None]


@pytest.mark.parametrize("size", [(96, 128), (80, 112)], ids=["whole", "odd-map"])
def test_a_classifier_answers_alike_in_both_formats(tmp_path: Path, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = build_classifier(3)
    torch.nn.init.normal_(network.head.weight, std=0.05)
    export_classifier(network, size, tmp_path / "m.onnx", {})
    write_classifier(network, size, tmp_path / "m.tflite")
    onnx, tflite = (open_session(tmp_path / name) for name in ("m.onnx", "m.tflite"))
    for seed in range(3):
        asked = {"image": scene(size, seed)}
        wanted, got = (session.run(["probability"], asked)[0] for session in (onnx, tflite))
        assert got.shape == (1, 3) and np.abs(got - wanted).max() < 1e-5
        assert wanted.std() > 0.01, "the network has to say something"


def test_a_detector_answers_alike_in_both_formats(tmp_path: Path) -> None:
    torch.manual_seed(0)
    size, network = (128, 160), build_detector(3)
    torch.nn.init.normal_(network.label_head[-1].weight, std=0.2)
    export_detector(network, size, tmp_path / "m.onnx", {})
    write_detector(network, size, tmp_path / "m.tflite")
    asked = {"image": scene(size)}
    wanted, got = (open_session(tmp_path / name).run(None, asked) for name in ("m.onnx", "m.tflite"))
    sure = wanted[2][0] > 0.02
    assert sure.sum() >= 5
    assert np.abs(got[2] - wanted[2]).max() < 1e-5
    for one, other in zip(got[:2], wanted[:2], strict=True):
        assert one.shape == other.shape and np.abs(one[0][sure] - other[0][sure]).max() < 1e-4


def test_the_machine_reads_it_under_the_names_that_vision_services_look_for(tmp_path: Path) -> None:
    write_classifier(build_classifier(2), (64, 64), tmp_path / "c.tflite")
    write_detector(build_detector(2), (64, 64), tmp_path / "d.tflite")
    classifier, detector = (TfliteRuntime(str(tmp_path / name), 1) for name in ("c.tflite", "d.tflite"))
    assert [(one.name, one.dtype, one.shape) for one in classifier.inputs] == [("image", "uint8", (1, 64, 64, 3))]
    assert [one.name for one in classifier.outputs] == ["probability"]
    assert {one.name: one.shape for one in detector.outputs} == {
        "location": (1, 50, 4),
        "category": (1, 50),
        "score": (1, 50),
    }


def test_every_operation_is_in_its_first_version(tmp_path: Path) -> None:
    """Which is what old readers have: TF-Lite 2.14 gives the same answers for such files."""
    write_detector(build_detector(2), (64, 64), tmp_path / "d.tflite")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel((tmp_path / "d.tflite").read_bytes(), 0))
    codes = [(code.builtinCode, code.deprecatedBuiltinCode, code.version) for code in model.operatorCodes]
    assert len(codes) > 15
    assert all(code == old and version == 1 for code, old, version in codes)
