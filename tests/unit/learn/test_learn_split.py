"""Dividing a dataset: nothing leaks, nothing collapses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gleaner.learn.request import Example
from gleaner.learn.split import MOST_KEPT, declared_split, fingerprint, group_pictures, leaked, most_kept, split_groups
from gleaner.wire.picture import Rgb, read_rgb, resize_rgb


def scene(seed: int, height: int = 120, width: int = 160) -> Rgb:
    """Coarse random patches: as different from each other as photos are."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    import cv2

    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def example(
    number: int, taken_s: float | None = None, component: str = "part/cam", labels: tuple[str, ...] = ()
) -> Example:
    return Example(f"{number:04d}", Path(f"{number}.jpg"), frozenset(labels), taken_s, component)


def prints_of(pictures: list[Rgb]) -> NDArray[np.float32]:
    return np.stack([fingerprint(picture) for picture in pictures])


def variants(picture: Rgb) -> list[Rgb]:
    jpeg = read_rgb(simplejpeg.encode_jpeg(picture, quality=30))
    bright = np.clip(picture * 1.1 + 8, 0, 255).astype(np.uint8)
    noisy = np.clip(picture + np.random.default_rng(0).normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
    return [jpeg, bright, noisy, resize_rgb(picture, 60, 80)]


@pytest.mark.parametrize("seed", range(5))
def test_reencoded_brightened_noisy_and_shrunk_copies_are_one_group(seed: int) -> None:
    pictures = [scene(seed), *variants(scene(seed)), scene(seed + 100)]
    groups = group_pictures(prints_of(pictures), [example(i) for i in range(len(pictures))])
    assert sorted(map(len, groups)) == [1, 5]


def test_a_burst_of_one_camera_is_one_group_but_two_cameras_are_not() -> None:
    wide = scene(3, 120, 400)
    frames = [np.ascontiguousarray(wide[:, x : x + 160]) for x in (0, 7, 14)]
    quick = [example(0, 10.0), example(1, 10.4), example(2, 10.8)]
    assert len(group_pictures(prints_of(frames), quick)) == 1
    elsewhere = [example(0, 10.0), example(1, 10.4, "part/other"), example(2, 99.0)]
    assert len(group_pictures(prints_of(frames), elsewhere)) == 3


def test_a_slow_sweep_at_one_picture_a_second_stays_many_groups() -> None:
    wide = scene(3, 120, 1200)
    frames = [np.ascontiguousarray(wide[:, x : x + 160]) for x in range(0, 1000, 12)]
    groups = group_pictures(prints_of(frames), [example(i, float(i)) for i in range(len(frames))])
    assert len(groups) > len(frames) / 5
    assert max(map(len, groups)) <= 8


def test_pictures_of_one_plain_colour_do_not_fail() -> None:
    flat = [np.full((40, 40, 3), value, np.uint8) for value in (0, 128, 255)]
    assert sum(map(len, group_pictures(prints_of(flat), [example(i) for i in range(3)]))) == 3


label_lists = st.lists(st.sampled_from([(), ("a",), ("b",), ("a", "b")]), min_size=4, max_size=60)


@settings(max_examples=150, deadline=None)
@given(label_lists, st.integers(1, 4), st.integers(0, 5))
def test_every_split_is_a_partition_that_keeps_groups_whole(
    labels: list[tuple[str, ...]], size: int, seed: int
) -> None:
    sets = [frozenset(names) for names in labels]
    groups = [list(range(start, min(start + size, len(sets)))) for start in range(0, len(sets), size)]
    split = split_groups(groups, sets, seed)
    parts = [set(split.train), set(split.validation), set(split.test)]
    assert sorted(split.train + split.validation + split.test) == list(range(len(sets)))
    assert all(any(set(group) <= part for part in parts) for group in groups)
    for label in ("a", "b"):
        if any(label in names for names in sets):
            assert any(label in sets[i] for i in split.train), "a label lost all it could learn from"
    assert split == split_groups(groups, sets, seed)


@pytest.mark.parametrize("count", [2, 5, 12, 20, 100])
def test_each_label_and_the_unlabelled_are_tested(count: int) -> None:
    sets = [frozenset({name}) if name else frozenset() for name in ("a", "b", "") for _ in range(count)]
    split = split_groups([[i] for i in range(len(sets))], sets, seed=0)
    for name in (frozenset({"a"}), frozenset({"b"}), frozenset()):
        tested = sum(sets[i] == name for i in split.test)
        assert tested >= max(1, round(0.2 * count))
        assert tested <= max(2, 0.35 * count)
        if count >= 5:
            assert any(sets[i] == name for i in split.validation)


def test_another_seed_gives_another_split() -> None:
    sets = [frozenset({"a"})] * 40
    groups = [[i] for i in range(40)]
    assert split_groups(groups, sets, 1).test != split_groups(groups, sets, 2).test


def test_a_label_whose_pictures_are_all_alike_is_learned_and_not_tested() -> None:
    sets = [frozenset({"a"})] * 6 + [frozenset({"b"})] * 6
    split = split_groups([list(range(6)), *[[i] for i in range(6, 12)]], sets, seed=0)
    assert set(range(6)) <= set(split.train)
    assert any(i >= 6 for i in split.test)


def declared(*parts: str) -> list[Example]:
    labels = (frozenset({"a"}), frozenset({"b"}))
    return [Example(str(i), Path(f"{i}.jpg"), labels[i % 2], None, "", (), part) for i, part in enumerate(parts)]


def test_a_datasets_own_split_is_kept() -> None:
    examples = declared(*["train"] * 6, "val", "val", "test", "test")
    split = declared_split([[i] for i in range(10)], examples, seed=0)
    assert split is not None
    assert (split.train, split.validation, split.test) == ([0, 1, 2, 3, 4, 5], [6, 7], [8, 9])


def test_a_dataset_that_only_says_val_is_tested_with_it() -> None:
    examples = declared(*["train"] * 20, *["val"] * 4)
    split = declared_split([[i] for i in range(24)], examples, seed=0)
    assert split is not None
    assert split.test == [20, 21, 22, 23]
    assert split.validation and not set(split.validation) & set(split.train)
    assert sorted(split.train + split.validation) == list(range(20))


def test_a_split_that_leaves_nothing_to_learn_from_is_none() -> None:
    assert declared_split([[0], [1]], declared("test", "test"), seed=0) is None
    assert declared_split([[0], [1]], declared("", "train"), seed=0) is None


def test_look_alikes_across_a_datasets_split_are_counted() -> None:
    split = declared_split([[0, 2], [1], [3]], declared("train", "train", "test", "test"), seed=0)
    assert split is not None
    assert leaked([[0, 2], [1], [3]], split) == 1


def test_of_many_pictures_only_so_many_are_judged_and_rare_labels_still_are() -> None:
    sets = [frozenset({"common"})] * 19_990 + [frozenset({"rare"})] * 10
    groups = [[n, n + 1] for n in range(0, len(sets), 2)]
    split = split_groups(groups, sets, seed=1)
    for part in (split.test, split.validation):
        assert MOST_KEPT * 0.98 <= len(part) <= MOST_KEPT * 1.02
        assert any(index >= 19_990 for index in part)
        assert all(index ^ 1 in part for index in part), "a group is never divided"
    assert len(split.train) > 17_000
    assert len(split_groups(groups, sets, seed=1, most=most_kept(60)).test) == pytest.approx(600, rel=0.02)
    assert [most_kept(seconds) for seconds in (5, 60, 3600)] == [100, 600, 1000]
