"""The report's figures, on cases small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gleaner.learn import metrics


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        (0, 0, 0.0, 1.0),  # nothing is known
        (5, 5, 0.5655, 1.0),  # five of five is not certainty
        (0, 10, 0.0, 0.2775),
        (95, 100, 0.8882, 0.9785),
    ],
)
def test_wilson_interval_matches_published_values(right: int, count: int, low: float, high: float) -> None:
    assert metrics.wilson_interval(right, count) == pytest.approx((low, high), abs=1e-4)


def test_single_label_says_only_the_strongest_and_only_above_the_threshold() -> None:
    probabilities = np.array([[0.9, 0.8], [0.3, 0.4], [0.2, 0.6]])
    assert metrics.decide(probabilities, 0.5, single=True).tolist() == [[True, False], [False, False], [False, True]]
    assert metrics.decide(probabilities, 0.5, single=False).tolist() == [[True, True], [False, False], [False, True]]


def test_saying_nothing_about_a_picture_of_nothing_is_right() -> None:
    said = np.array([[False, False], [True, False]])
    truth = np.array([[False, False], [False, False]])
    assert metrics.accuracy(said, truth) == 0.5


def test_confusion_of_single_labels_counts_none_of_these_both_ways() -> None:
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 0], [0, 0]], bool)
    said = np.array([[1, 0], [0, 1], [0, 0], [1, 0], [0, 0]], bool)
    matrix, cells = metrics.confusion(said, truth)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 1]]
    assert cells[0, 1] == [1]
    assert cells[2, 2] == [4]


def test_confusion_of_several_labels_charges_a_miss_to_what_was_said_instead() -> None:
    truth = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0]], bool)
    said = np.array([[1, 0, 1], [1, 1, 0], [1, 0, 0]], bool)
    matrix, _ = metrics.confusion(said, truth)
    assert matrix[0, 0] == 3
    assert matrix[1, 2] == 1  # the second label was missed, the third said
    assert matrix[3, 1] == 1  # said though nothing was missing


def counted(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision from its definition: at every threshold anew, from the highest to the lowest."""
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        said = scores >= threshold
        hits = int((said & truth).sum())
        area += (hits / truth.sum() - recall) * hits / said.sum()
        recall = hits / truth.sum()
    return float(area)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_label_scores_agree_with_counting(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.random((40, 3)) < 0.4
    truth[0] = True
    scores = np.round(random.random((40, 3)), 1)  # rounded, so that ties occur
    said = scores >= 0.5
    for column, found in enumerate(metrics.label_scores(scores, said, truth)):
        hits = int((said[:, column] & truth[:, column]).sum())
        assert found.precision == pytest.approx(hits / max(1, said[:, column].sum()))
        assert found.recall == pytest.approx(hits / truth[:, column].sum())
        both = found.precision + found.recall
        assert found.f1 == pytest.approx(2 * found.precision * found.recall / both if both else 0.0)
        assert found.average_precision == pytest.approx(counted(scores[:, column], truth[:, column]))


def test_average_precision_of_a_label_without_pictures_is_unknown() -> None:
    assert metrics.average_precision(np.array([0.5]), np.array([False])) is None


def test_the_suggested_threshold_is_the_middle_of_what_works() -> None:
    probabilities = np.array([[0.9], [0.8], [0.1], [0.2]])
    truth = np.array([[True], [True], [False], [False]])
    assert metrics.suggest_threshold(probabilities, truth, single=True) == pytest.approx(0.52, abs=0.03)
    assert metrics.suggest_threshold(np.zeros((0, 1)), np.zeros((0, 1), bool), single=True) == 0.5


def test_the_suggested_threshold_moves_where_it_must() -> None:
    probabilities = np.array([[0.9], [0.85], [0.7], [0.65]])
    truth = np.array([[True], [True], [False], [False]])
    assert 0.7 < metrics.suggest_threshold(probabilities, truth, single=False) <= 0.85


def test_overconfident_logits_get_a_temperature_above_one_and_are_better_calibrated() -> None:
    random = np.random.default_rng(1)
    honest = random.normal(0, 1.5, (400, 2))
    truth = random.random(honest.shape) < metrics.sigmoid(honest)
    temperature = metrics.fit_temperature(honest * 3, truth)
    assert temperature == pytest.approx(3.0, rel=0.25)
    before = metrics.expected_calibration_error(metrics.sigmoid(honest * 3), truth)
    after = metrics.expected_calibration_error(metrics.sigmoid(honest * 3 / temperature), truth)
    assert after < before / 2


def test_a_few_pictures_move_the_temperature_little() -> None:
    all_right = np.array([[4.0, -4.0], [-4.0, 4.0]])
    truth = np.array([[True, False], [False, True]])
    assert metrics.fit_temperature(all_right, truth) == pytest.approx(1.0, abs=0.1)
    assert metrics.fit_temperature(np.zeros((0, 2)), np.zeros((0, 2), bool)) == 1.0


def test_calibration_error_of_perfect_and_of_boastful_answers() -> None:
    truth = np.array([[True], [False]])
    assert metrics.expected_calibration_error(np.array([[1.0], [0.0]]), truth) == 0.0
    assert metrics.expected_calibration_error(np.array([[0.95], [0.95]]), truth) == pytest.approx(0.45)
