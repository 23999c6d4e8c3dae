"""Whatever a data set holds: written in a format and read again it is the same, from a folder and from a zip."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gleaner.formats.archive import Archive, packed
from gleaner.formats.registry import CODECS, Format, detect
from gleaner.formats.sources import FolderSource, ZipSource
from gleaner.formats.values import SPLITS, Box, Capture, Picture, Problem

EDGE = 1e-9


@cache
def png(seed: int, width: int, height: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


# Printable and not, right to left, emoji, what file systems, XML, YAML and zips make of their own.
words = st.one_of(
    st.sampled_from(
        ["star", "a/b", "a_b", "../up", "con", "train", "unlabeled", "ü", "لون", "🦊", "a: b", "- x", "no"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
)
names = st.one_of(
    st.sampled_from(
        [
            "a.jpg",
            "A.PNG",
            "x/a.png",
            "y/a.png",
            "images/images/a.png",
            "a",
            "a.b.c",
            "nul.png",
            ".png",
            "\u00a0",
            "\u3000b.png",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    edge = st.floats(0, 0.9, allow_subnormal=False)
    size = st.floats(1e-3, 0.1)
    x, y = draw(edge), draw(edge)
    sure = draw(st.none() | st.floats(0, 1))
    label = draw(words.filter(lambda text: text.strip()))
    return Box(label, x, y, min(x + draw(size), 1.0), min(y + draw(size), 1.0), sure)


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    width, height = draw(st.sampled_from([(8, 6), (1, 1), (640, 7)]))
    content = png(draw(st.integers(0, 3)), width, height)
    return Picture(
        draw(names),
        len(content),
        lambda: content,
        width,
        height,
        tuple(draw(st.lists(words, max_size=3, unique=True))),
        tuple(draw(st.lists(boxes(), max_size=3))),
        draw(st.sampled_from(["", *SPLITS])),
        Capture(*(draw(st.sampled_from(["", "2026-01-31T12:00:00Z", "ü"])) for _ in range(7))),
    )


def comparable(picture: Picture) -> tuple[object, ...]:
    drawn = [
        (b.label, *(round(e / EDGE) for e in (b.x_min, b.y_min, b.x_max, b.y_max)), b.confidence) for b in picture.boxes
    ]
    where = picture.capture
    return picture.name, picture.read(), picture.tags, tuple(drawn), picture.split, where


def sorted_by_all(found: list[Picture]) -> list[tuple[object, ...]]:
    return sorted((comparable(one) for one in found), key=repr)


def fail(problem: Problem) -> None:
    raise AssertionError(str(problem))


def read_all(format_: Format, source: FolderSource | ZipSource) -> list[Picture]:
    found = list(CODECS[format_].read(source))
    assert [str(one) for one in found if isinstance(one, Problem)] == []
    return [one for one in found if isinstance(one, Picture)]


def archived(format_: Format, given_: list[Picture], archive: Archive, start: int = 0) -> bytes:
    return b"".join(packed(CODECS[format_].write(iter(given_), fail), archive, start))


@pytest.mark.parametrize("format_", list(Format))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(given_=st.lists(pictures(), max_size=6))
def test_written_and_read_again_is_the_same(format_: Format, given_: list[Picture]) -> None:
    expected = sorted_by_all(given_)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archived(format_, given_, Archive.TAR))) as tar:
            tar.extractall(folder, filter="data")
        source = FolderSource(Path(folder))
        assert sorted_by_all(read_all(format_, source)) == expected
        if given_:
            assert detect(source) == format_
    zipped = ZipSource(io.BytesIO(archived(format_, given_, Archive.ZIP)))
    assert sorted_by_all(read_all(format_, zipped)) == expected
    zipped.close()


@pytest.mark.parametrize("archive", list(Archive))
@settings(max_examples=25, deadline=None)
@given(given_=st.lists(pictures(), max_size=4), cut=st.floats(0, 1))
def test_a_cut_archive_goes_on_at_any_byte(archive: Archive, given_: list[Picture], cut: float) -> None:
    whole = archived(Format.COCO, given_, archive)
    at = int(len(whole) * cut)
    assert whole[:at] + archived(Format.COCO, given_, archive, at) == whole


@pytest.mark.parametrize("format_", list(Format))
def test_one_picture_at_a_time_is_in_memory(format_: Format) -> None:
    read: list[int] = []
    content = png(1, 8, 6)

    def endless() -> Iterator[Picture]:
        for number in range(300):
            yield replace(
                Picture(f"{number}.png", len(content), lambda: content, 8, 6), tags=(f"t{number % 3}",), split="train"
            )
            read.append(number)

    entries = CODECS[format_].write(endless(), fail)
    next(entries)
    # Parquet keeps a file's worth; every other writer hands out each picture before it takes the next.
    assert len(read) <= 1 or format_ is Format.PARQUET
    assert sum(1 for _ in entries) > 0 or format_ is Format.PARQUET
