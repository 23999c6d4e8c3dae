"""What a `.seq` is taken for, and what makes two of them one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gleaner.app.errors import InvalidInput
from gleaner.app.services.sequences_values import SequenceDraft, read_file

GOOD: dict[str, Any] = {
    "start_time": "2026-03-04T05:06:07.123456Z",
    "end_time": "2026-03-04T05:06:08Z",
    "resources": [{"resource_name": "cam", "method_name": "GetImages"}],
    "sequence_tags": ["run"],
}
START_NS = 1_772_600_767_000_000_000


def read(**changes: Any) -> SequenceDraft:
    return read_file(json.dumps({**GOOD, **changes}).encode())


def test_a_file_of_a_machine_is_read() -> None:
    assert read() == SequenceDraft((("cam", "GetImages"),), ("run",), START_NS + 123_456_000, START_NS + 10**9)


@pytest.mark.parametrize(
    ("text", "after_ns"),
    [
        ("2026-03-04T05:06:07.123456789Z", 123_456_789),  # as Go writes
        ("2026-03-04T05:06:07.1Z", 100_000_000),
        ("2026-03-04T05:06:07Z", 0),
        ("2026-03-04T07:06:07.5+02:00", 500_000_000),
        ("2026-03-04t05:06:07.25z", 250_000_000),
    ],
)
def test_times_are_exact_to_the_nanosecond(text: str, after_ns: int) -> None:
    assert read(start_time=text).start_ns == START_NS + after_ns


def test_viams_server_writes_null_for_no_tags() -> None:
    assert read(sequence_tags=None).tags == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start_time": None}, "start_time is None"),
        ({"end_time": "2026-13-04T05:06:07Z"}, "not a time"),
        ({"end_time": None}, "end_time is None"),  # one that never ended
        ({"end_time": "2026-03-04T05:06:06Z"}, "ends before"),
        ({"resources": []}, "at least one resource"),
        ({"resources": "cam"}, "no list"),
        ({"resources": [{"resource_name": "cam"}]}, "no name or no method"),
        ({"resources": [{"resource_name": "", "method_name": "m"}]}, "no name or no method"),
        ({"sequence_tags": [1]}, "no list of texts"),
        ({"sequence_tags": ["a\nb"]}, "is no tag"),
    ],
)
def test_what_is_none_is_refused_with_the_reason(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        read(**changes)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="JSON"):
        read_file(data)


@given(st.permutations([("cam", "A"), ("cam", "B"), ("arm", "A")]), st.permutations(["x", "y", "z"]))
def test_the_order_of_resources_and_tags_makes_no_other_sequence(
    resources: list[tuple[str, str]], tags: list[str]
) -> None:
    one = SequenceDraft((("arm", "A"), ("cam", "A"), ("cam", "B")), ("x", "y", "z"), 1, 2)
    assert SequenceDraft(tuple(resources), tuple(tags), 1, 2).id_in("p") == one.id_in("p")


def test_another_part_time_resource_or_tag_makes_another_one() -> None:
    one = SequenceDraft((("cam", "A"),), ("x",), 1, 2)
    others = [
        one.id_in("q"),
        SequenceDraft((("cam", "A"),), ("x",), 1, 3).id_in("p"),
        SequenceDraft((("camA", ""),), ("x",), 1, 2).id_in("p"),
        SequenceDraft((("cam", "A"), ("x", "y")), (), 1, 2).id_in("p"),
        SequenceDraft((("cam", "A"),), (), 1, 2).id_in("p"),
    ]
    assert len({one.id_in("p"), *others}) == 6
