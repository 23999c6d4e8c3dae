"""Every frame survives the wire, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gleaner.wire.ids import CaptureIdHasher, capture_id
from gleaner.wire.sync_frames import (
    PIECE_BYTES,
    Ack,
    Batch,
    Entry,
    EntryKind,
    Frame,
    FrameError,
    Offset,
    Piece,
    PieceAck,
    Result,
    Resume,
    SlowDown,
    Status,
    decode,
    encode,
)

NAMES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=30)
IDS = st.binary(min_size=16, max_size=16).map(bytes.hex)
COUNTS = st.integers(0, 2**40)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    payloads = draw(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
    return Batch(draw(COUNTS), tuple(draw(entries(len(p))) for p in payloads), tuple(payloads))


@st.composite
def entries(draw: st.DrawFn, size: int = 7) -> Entry:
    texts = st.lists(NAMES, max_size=2).map(tuple)
    return Entry(
        draw(IDS), draw(NAMES), size, draw(st.sampled_from(EntryKind)), draw(texts), draw(texts), draw(COUNTS), 1, "n"
    )


RESULTS = st.builds(Result, IDS, st.sampled_from(Status), NAMES, NAMES)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    batches(),
    st.builds(Resume, COUNTS, entries()),
    st.builds(Offset, COUNTS, IDS, COUNTS),
    st.builds(Piece, COUNTS, IDS, COUNTS, st.booleans(), st.binary(max_size=99)),
    st.builds(PieceAck, COUNTS, IDS, COUNTS),
    st.builds(Ack, COUNTS, st.lists(RESULTS, max_size=4).map(tuple)),
    st.builds(SlowDown, st.floats(0, 3600), NAMES),
)


@given(FRAMES)
def test_every_frame_comes_back_as_it_was(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


@given(FRAMES, st.integers(0, 60))
def test_a_cut_frame_is_refused(frame: Frame, missing: int) -> None:
    message = encode(frame)
    cut = message[: max(0, len(message) - 1 - missing)]
    try:
        again = decode(cut)
    except FrameError:
        return
    # Only a piece has no length of its own: its message length is the WebSocket's business, its id the server's.
    assert isinstance(again, Piece)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(FrameError):
        decode(noise)


def raw(header: object, payload: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "little") + text + payload


ENTRY = {"id": "0" * 32, "path": "a/b", "size": 3, "kind": "capture"}
BAD = [
    (raw([]), "Expected `object`, got `array`"),
    (raw({"kind": "tell_me"}), "Invalid value 'tell_me'"),
    (raw({"kind": "batch", "seq": 1, "entries": []}), r"length >= 1 - at `\$.entries`"),
    (raw({"kind": "batch", "seq": 1, "entries": [ENTRY]}, b"ab"), "add up to 3 bytes"),
    (raw({"kind": "batch", "seq": -1, "entries": [ENTRY]}, b"abc"), r">= 0 - at `\$.seq`"),
    (raw({"kind": "batch", "seq": True, "entries": [ENTRY]}, b"abc"), r"got `bool` - at `\$.seq`"),
    (raw({"kind": "resume", "seq": 1, "entry": {**ENTRY, "id": "xyz"}}), r"at `\$.entry.id`"),
    (raw({"kind": "resume", "seq": 1, "entry": {**ENTRY, "path": ""}}), r"length >= 1 - at `\$.entry.path`"),
    (raw({"kind": "resume", "seq": 1, "entry": {**ENTRY, "path": "a\0b"}}), r"regex .* at `\$.entry.path`"),
    (raw({"kind": "resume", "seq": 1, "entry": {**ENTRY, "tags": "x"}}), r"got `str` - at `\$.entry.tags`"),
    (raw({"kind": "resume", "seq": 1, "entry": ENTRY}, b"x"), "expected none"),
    (raw({"kind": "piece", "seq": 1, "id": "0" * 32, "offset": 0, "last": 1}), r"Expected `bool`.*\$.last`"),
    (raw({"kind": "piece", "seq": 1, "id": "0" * 32, "offset": 0, "last": True}, bytes(PIECE_BYTES + 1)), "at most"),
    (
        raw({"kind": "ack", "seq": 1, "results": [{"id": "0" * 32, "status": "fine"}]}),
        r"'fine' - at `\$.results\[0\].status`",
    ),
    (raw({"kind": "slow_down", "seconds": "1"}), r"at `\$.seconds`"),
    (b"\xff\xff\xff\xff{}", "does not fit"),
    (b"\x02\0\0\0{]", "not JSON"),
]


@pytest.mark.parametrize(("message", "words"), BAD, ids=[words for _, words in BAD])
def test_a_wrong_frame_says_what_is_wrong(message: bytes, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        decode(message)


def test_what_a_later_version_adds_is_passed_over() -> None:
    frame = decode(raw({"kind": "resume", "seq": 1, "entry": {**ENTRY, "colour": "red"}, "mood": 3}))
    assert frame == Resume(1, Entry("0" * 32, "a/b", 3, EntryKind.CAPTURE))


def test_half_a_character_holds_nothing_up() -> None:
    entry = Entry("0" * 32, "a", 3, EntryKind.FILE, ("x\ud800",))
    assert decode(encode(Batch(1, (entry,), (b"abc",)))).entries[0].tags == ("x?",)


def test_a_text_message_is_refused() -> None:
    with pytest.raises(FrameError, match="text message"):
        decode("{}")


def test_sizes_must_agree_before_sending() -> None:
    entry = Entry("0" * 32, "a", 5, EntryKind.FILE)
    with pytest.raises(FrameError, match="payload sizes"):
        encode(Batch(1, (entry,), (b"abc",)))


@given(NAMES, NAMES, st.binary(max_size=50), st.integers(0, 50))
def test_an_id_is_the_same_in_pieces(part: str, path: str, content: bytes, cut: int) -> None:
    hasher = CaptureIdHasher(part, path)
    hasher.update(content[:cut])
    hasher.update(content[cut:])
    assert hasher.hexdigest() == capture_id(part, path, content)


def test_ids_keep_their_fields_apart() -> None:
    assert capture_id("ab", "c", b"x") != capture_id("a", "bc", b"x")
    assert capture_id("a", "b", b"cx") != capture_id("a", "bc", b"x")
