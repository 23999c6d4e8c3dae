"""However a data set was damaged, reading it ends with pictures and named problems, or with one refusal in words."""

from __future__ import annotations

import io
import zipfile
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gleaner.formats.archive import Archive, packed
from gleaner.formats.registry import CODECS, Format, detect, read
from gleaner.formats.sources import ZipSource
from gleaner.formats.values import Box, Capture, FormatProblem, Picture, Problem


@cache
def files_of(format_: Format) -> dict[str, bytes]:
    content = bytes(cv2.imencode(".png", np.zeros((6, 8, 3), np.uint8))[1])
    box = Box("stär", 0.1, 0.2, 0.5, 0.75, 0.5)
    pictures = [
        Picture(name, len(content), lambda: content, 8, 6, ("a", "b/c"), (box, box), split, Capture("2026-01-01"))
        for name, split in (("a.png", "train"), ("b/a.png", "val"), ("c.png", ""))
    ]
    with zipfile.ZipFile(
        io.BytesIO(b"".join(packed(CODECS[format_].write(iter(pictures), print), Archive.ZIP)))
    ) as one:
        return {name: one.read(name) for name in one.namelist()}


#: What takes the place of some bytes: numbers where names belong, ends of structures, other kinds of values.
PIECES = st.sampled_from(
    [b"", b"null", b"[]", b"{}", b"7", b"-1", b"1e999", b"NaN", b'"', b"\n", b"\0", b"<a/>", b"\xff", b": ", b"../"]
)


@pytest.mark.parametrize("format_", list(Format))
@settings(max_examples=800, deadline=None)
@given(data=st.data())
def test_damage_is_named_and_never_breaks_the_reading(format_: Format, data: st.DataObject) -> None:
    files = dict(files_of(format_))
    name = data.draw(st.sampled_from(sorted(name for name in files if not name.endswith(".png"))))
    content = files[name]
    start = data.draw(st.integers(0, len(content)))
    end = min(start + data.draw(st.integers(0, 12)), len(content))
    files[name] = content[:start] + data.draw(PIECES | st.binary(max_size=4)) + content[end:]
    if data.draw(st.booleans()):
        del files[data.draw(st.sampled_from(sorted(files)))]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, each in files.items():
            archive.writestr(path, each)
    source = ZipSource(made)
    try:
        detect(source)
        for one in read(format_, source):
            assert isinstance(one, Picture | Problem)
            if isinstance(one, Problem):
                assert one.what and one.hint
            else:
                one.read()
    except FormatProblem as problem:
        assert str(problem)
    finally:
        source.close()


@pytest.mark.parametrize("format_", list(Format))
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_damaged_zip_is_refused_or_its_pictures_are_named(format_: Format, data: st.DataObject) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, each in files_of(format_).items():
            archive.writestr(path, each)
    content = bytearray(made.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        source = ZipSource(io.BytesIO(bytes(content)))
    except FormatProblem:
        return
    try:
        for one in read(detect(source), source):
            if isinstance(one, Picture):
                one.read()
    except FormatProblem as problem:
        assert str(problem)
    finally:
        source.close()
