"""run.json and the dataset are checked before anything slow starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gleaner.learn.errors import RunProblem
from gleaner.learn.request import check_examples, not_accepted, read_examples, read_request


def write_run(run_dir: Path, lines: list[Any] | None = None, **changes: Any) -> Path:
    request = {"task": "single_label_classification", "labels": ["cat", "dog"], "budget_s": 5, "threads": 1, **changes}
    (run_dir / "run.json").write_text(json.dumps(request))
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines or [])
    (run_dir / "dataset.jsonl").write_text(text)
    return run_dir


def line(name: str, *tags: str, **more: Any) -> dict[str, Any]:
    annotations = [{"annotation_label": tag} for tag in tags]
    return {"image_path": f"{name}.jpg", "binary_data_id": name, "classification_annotations": annotations, **more}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "poetry"}, "task"),
        ({"labels": []}, "labels"),
        ({"labels": ["a", "a"]}, "twice"),
        ({"labels": ["a\nb"]}, "line break"),
        ({"budget_s": 0}, "budget_s"),
    ],
)
def test_an_impossible_request_is_refused_with_a_hint(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(RunProblem, match=message) as problem:
        read_request(write_run(tmp_path, **changes))
    assert problem.value.hint


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunProblem, match=r"run\.json cannot be read"):
        read_request(tmp_path)


def test_examples_carry_only_chosen_labels_and_where_and_when(tmp_path: Path) -> None:
    lines = [
        line("1", "cat", "blurred", timestamp="2026-11-22T10:00:01.500000Z", component_name="cam", part_id="p"),
        line("2", "bird"),
        "",
        line("3", timestamp="soon"),
        line("4", timestamp="2026-11-22 10:00:01.5 +0000 UTC"),
    ]
    run = write_run(tmp_path, lines)
    examples, skipped = read_examples(run, read_request(run))
    assert [sorted(e.labels) for e in examples] == [["cat"], [], [], []]
    assert (examples[0].component, examples[0].taken_s) == ("p/cam", 1795341601.5)
    assert examples[2].taken_s is None
    assert examples[3].taken_s == 1795341601.5
    assert not skipped


def test_lines_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    run = write_run(
        tmp_path, [line("1", "cat"), "{broken", "[]", line("1", "dog"), {"no": "path"}, line("2", "cat", "dog")]
    )
    examples, skipped = read_examples(run, read_request(run))
    assert [e.id for e in examples] == ["1"]
    assert [s.id for s in skipped] == ["line 2", "line 3", "1", "line 5", "2"]
    assert "needs one" in skipped[-1].reason


def test_multi_label_keeps_pictures_with_several_labels(tmp_path: Path) -> None:
    run = write_run(tmp_path, [line("2", "cat", "dog")], task="multi_label_classification")
    examples, skipped = read_examples(run, read_request(run))
    assert (len(examples), skipped) == (1, [])


CAT, DOG, NONE = frozenset({"cat"}), frozenset({"dog"}), frozenset()


def test_too_few_pictures_of_a_label_end_the_run(tmp_path: Path) -> None:
    request = read_request(write_run(tmp_path))
    with pytest.raises(RunProblem, match="“dog” has 1; each label needs at least 2"):
        check_examples([CAT] * 5 + [DOG], request)


def test_one_label_alone_cannot_be_learned(tmp_path: Path) -> None:
    request = read_request(write_run(tmp_path, labels=["cat"]))
    with pytest.raises(RunProblem, match="nothing to tell it apart from"):
        check_examples([CAT] * 20, request)
    assert check_examples([CAT] * 20 + [NONE] * 5, request) == []


def test_thin_datasets_are_warned_about(tmp_path: Path) -> None:
    request = read_request(write_run(tmp_path))
    few, no_negatives = check_examples([CAT] * 4 + [DOG] * 20, request)
    assert "“cat” (4)" in few
    assert "none of these" in no_negatives


def test_pictures_with_a_models_boxes_that_nobody_accepted_are_left_out(tmp_path: Path) -> None:
    edges = {"x_min_normalized": 0.1, "y_min_normalized": 0.1, "x_max_normalized": 0.5, "y_max_normalized": 0.5}
    drawn, told = {"annotation_label": "cat", **edges}, {"annotation_label": "cat", **edges, "confidence": 0.99}
    other = {"annotation_label": "bird", **edges, "confidence": 0.5}
    boxed = [line("1") | {"bounding_box_annotations": [drawn, other]}]
    boxed += [line(str(n)) | {"bounding_box_annotations": [drawn, told]} for n in (2, 3)]
    request = read_request(run := write_run(tmp_path, boxed, task="object_detection", labels=["cat"]))
    examples, skipped = read_examples(run, request)
    assert [len(e.boxes) for e in examples] == [1]
    assert [s.id for s in skipped] == ["2", "3"]
    assert not_accepted(skipped) == 2
    with pytest.raises(
        RunProblem, match=r"“cat” has 1; .* 2 more have a model's boxes that nobody has accepted"
    ) as error:
        check_examples([e.labels for e in examples], request, not_accepted(skipped))
    assert "Accept" in error.value.hint
