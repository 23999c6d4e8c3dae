"""A model in 8 bits is kept where it is faster and as good, and else said why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from gleaner.learn import int8
from gleaner.learn.export import export_classifier
from gleaner.learn.graph import open_session
from gleaner.learn.int8 import export_int8
from gleaner.learn.network import build_classifier
from gleaner.learn.previous import Answer, Qualities, qualities
from gleaner.learn.request import Example, RunRequest, Task

SIZE = (64, 64)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = build_classifier(2)
    torch.nn.init.normal_(network.head.weight, std=0.05)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_classifier(network, SIZE, path, {"gleaner.labels": "[]"})
    return path


def pictures() -> Any:
    return np.random.default_rng(0).integers(0, 255, (6, *SIZE, 3), dtype=np.uint8)


def timed(monkeypatch: pytest.MonkeyPatch, before_ms: float, now_ms: float) -> None:
    times = {"model.onnx": before_ms, "small.onnx": now_ms}
    monkeypatch.setattr(int8, "measure_inference_ms", lambda path, picture: times[path.name])


def test_a_faster_one_that_answers_alike_is_kept(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, 2.0, 1.0)
    report = export_int8(source, tmp_path / "small.onnx", pictures(), lambda *_: Qualities(0.9, 0.9, "F1", 10))
    assert report["file"] == "small.onnx" and report["lost"] == 0.0 and report["judged"] == 10
    assert report["size_bytes"] < source.stat().st_size / 3
    asked = {"image": pictures()[:1]}
    wanted, got = (open_session(path).run(["probability"], asked)[0] for path in (source, tmp_path / "small.onnx"))
    assert np.abs(wanted - got).max() < 0.1
    assert [one.key for one in onnx.load(tmp_path / "small.onnx").metadata_props] == ["gleaner.labels"]


@pytest.mark.parametrize(
    ("now_ms", "lost", "says"),
    [(1.99, 0, "it is not faster: 2.0 ms instead of 2.0"), (1.0, 0.02, "it answers worse: 1.0 ms instead of 2.0, +2.0 points of mAP50")],
)  # fmt: skip
def test_one_that_is_slower_or_worse_is_not(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now_ms: float, lost: float, says: str
) -> None:
    timed(monkeypatch, 2.0, now_ms)
    found = Qualities(1.0, 1.0 - lost, "mAP50", 100)
    report = export_int8(source, tmp_path / "small.onnx", pictures(), lambda *_: found)
    assert report["reason"].startswith(says), report
    assert not (tmp_path / "small.onnx").exists()


def test_without_pictures_to_test_it_with_it_is_not_handed_out(source: Path, tmp_path: Path) -> None:
    report = export_int8(source, tmp_path / "small.onnx", pictures(), lambda *_: None)
    assert report["reason"] == "no picture was left to test it with"


def test_a_classifier_is_measured_by_the_f1_of_its_labels() -> None:
    """Two of four right, but of one label all."""
    request = RunRequest(task=Task.MULTI_LABEL, labels=("a", "b"))
    both = []
    for number, (labels, said) in enumerate((("a", "a"), ("a", "a"), ("ab", "a"), ("b", ""))):
        example = Example(str(number), Path(), frozenset(labels), None, "")
        answers = [np.array([label in words for label in "ab"]) for words in (labels, said)]
        both.append((example, Answer(True, labels=answers[0]), Answer(labels == said, labels=answers[1])))
    assert qualities(both, request) == Qualities(1.0, 0.5, "F1", 4)
