"""A machine's sync connection against the real app."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from running_app import RunningApp, running_app
from viam.proto.app.datasync import DataCaptureMetadata, DataType, SensorData
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from gleaner.app.errors import AppError, Conflict, InvalidInput, NotFound, PermissionDenied, TooLarge, Unauthenticated
from gleaner.app.services.items_sync import rejection
from gleaner.app.services.items_values import ItemFilter
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.ids import capture_id
from gleaner.wire.sync_frames import (
    COMPRESSION_HEADER,
    PIECE_BYTES,
    ZLIB,
    Ack,
    Batch,
    Entry,
    EntryKind,
    Frame,
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


@contextmanager
def syncing(app: RunningApp, part: tuple[str, str]) -> Iterator[ClientConnection]:
    address = app.web.replace("http", "ws") + "/api/sync"
    headers = {"part_id": part[0], "secret": part[1]}
    with connect(address, additional_headers=headers, max_size=None, proxy=None) as socket:
        yield socket


def ask(socket: ClientConnection, frame: Batch | Resume | Piece) -> Frame:
    """The answer, without the time that it took the app."""
    socket.send(encode(frame))
    answer = decode(socket.recv(30))
    return replace(answer, held_ms=0) if isinstance(answer, (Ack, Offset, PieceAck)) else answer


def capture(number: int, content: bytes = b"") -> bytes:
    header = DataCaptureMetadata(
        component_type="rdk:component:camera",
        component_name="cam",
        method_name="ReadImage",
        type=DataType.DATA_TYPE_BINARY_SENSOR,
        mime_type="image/jpeg",
        tags=["captured"],
    )
    record = SensorData(binary=content or b"\xff\xd8\xff picture %d" % number)
    record.metadata.time_requested.seconds = 1_700_000_000 + number
    record.metadata.time_received.seconds = 1_700_000_000 + number
    return encode_header(header) + encode_record(record)


def tabular(count: int) -> bytes:
    header = DataCaptureMetadata(
        component_type="rdk:component:sensor",
        component_name="system",
        method_name="Readings",
        type=DataType.DATA_TYPE_TABULAR_SENSOR,
    )
    body = encode_header(header)
    for number in range(count):
        record = SensorData()
        record.metadata.time_requested.seconds = 1_700_000_000 + number
        record.metadata.time_received.seconds = 1_700_000_000 + number
        record.struct.update({"readings": {"cpu": number / 2}})
        body += encode_record(record)
    return body


def entry(part_id: str, path: str, data: bytes, **more: object) -> Entry:
    kind = EntryKind.CAPTURE if path.endswith(".capture") else EntryKind.FILE
    return Entry(capture_id(part_id, path, data), path, len(data), kind, **more)  # type: ignore[arg-type]


def test_batch_is_stored_once_and_acknowledged_by_id(app: RunningApp) -> None:
    part = app.new_part()
    files = {f"cam/{n}.capture": capture(n) for n in range(20)} | {"s.capture": tabular(3), "notes/a.txt": b"hello"}
    entries = tuple(entry(part[0], path, data) for path, data in files.items())
    with syncing(app, part) as socket:
        first = ask(socket, Batch(1, entries, tuple(files.values())))
        again = ask(socket, Batch(2, entries, tuple(files.values())))
    assert isinstance(first, Ack) and first.seq == 1
    assert [one.id for one in first.results] == [one.id for one in entries]
    assert {one.status for one in first.results} == {Status.STORED}
    assert isinstance(again, Ack) and {one.status for one in again.results} == {Status.DUPLICATE}

    assert app.context.items.count(app.owner, ItemFilter(part_ids=(part[0],)))[0] == 21
    newest = app.context.items.page(app.owner, ItemFilter(component_names=("cam",)), limit=1).items[0]
    assert newest.captured_ns == 1_700_000_019 * 10**9
    assert newest.tags == ("captured",)
    assert newest.origin.machine_name == "rover"
    rows = app.context.readings.rows(app.owner, ItemFilter(part_ids=(part[0],)), 10)
    assert [one.data for one in rows] == [{"readings": {"cpu": cpu}} for cpu in (1.0, 0.5, 0.0)]


def test_changed_bytes_and_damaged_captures_are_rejected_and_block_nothing(app: RunningApp) -> None:
    part = app.new_part()
    good, broken = capture(1), b"\x05nonsense"
    entries = (
        entry(part[0], "good.capture", good),
        entry(part[0], "broken.capture", broken),
        Entry("0" * 32, "other.capture", len(good), EntryKind.CAPTURE),
    )
    with syncing(app, part) as socket:
        answer = ask(socket, Batch(1, entries, (good, broken, good)))
    assert isinstance(answer, Ack)
    assert [one.status for one in answer.results] == [Status.STORED, Status.REJECTED, Status.REJECTED]
    assert [one.again for one in answer.results] == [False, False, True]  # changed bytes say nothing of the file
    assert "capture file" in answer.results[1].message and answer.results[1].hint
    assert "other.capture" in answer.results[2].message


def test_capture_without_readings_is_acknowledged_so_that_the_machine_deletes_it(app: RunningApp) -> None:
    part = app.new_part()
    data = tabular(0)
    with syncing(app, part) as socket:
        answer = ask(socket, Batch(1, (entry(part[0], "empty.capture", data),), (data,)))
    assert isinstance(answer, Ack) and answer.results[0].status is Status.STORED
    assert app.context.readings.series(app.owner, ItemFilter()) == []


@pytest.mark.parametrize("path", ["video.capture", "video.mp4"])
def test_big_file_resumes_at_the_durable_offset_over_reconnect_and_restart(tmp_path: Path, path: str) -> None:
    content = bytes(range(256)) * 5000 + b"end"
    data = capture(7, content) if path.endswith(".capture") else content
    pieces = [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
    with running_app(tmp_path) as app:
        part = app.new_part()
        big = entry(part[0], path, data, tags=("long",))
        with syncing(app, part) as socket:
            assert ask(socket, Resume(1, big)) == Offset(1, big.id, 0)
            assert ask(socket, Piece(2, big.id, 0, False, pieces[0])) == PieceAck(2, big.id, PIECE_BYTES)
        with syncing(app, part) as socket:  # the connection dropped
            assert ask(socket, Resume(1, big)) == Offset(1, big.id, PIECE_BYTES)
            # A piece that does not fit is answered with where to go on.
            assert ask(socket, Piece(2, big.id, 0, False, pieces[0])) == Offset(2, big.id, PIECE_BYTES)
            assert ask(socket, Piece(3, big.id, PIECE_BYTES, False, pieces[1])) == PieceAck(3, big.id, 2 * PIECE_BYTES)
    with running_app(tmp_path) as app:  # the app restarted
        with syncing(app, part) as socket:
            assert ask(socket, Resume(1, big)) == Offset(1, big.id, 2 * PIECE_BYTES)
            for number in range(2, len(pieces)):
                is_last = number == len(pieces) - 1
                answer = ask(socket, Piece(number, big.id, number * PIECE_BYTES, is_last, pieces[number]))
            assert isinstance(answer, Ack) and answer.results[0].status is Status.STORED
            known = ask(socket, Resume(9, big))
            assert isinstance(known, Ack) and known.results[0].status is Status.DUPLICATE
        item = app.context.items.page(app.owner, ItemFilter(tags=("long",))).items[0]
        assert app.context.items.content(app.owner, item.row).all() == content
        assert list((tmp_path / "spool").iterdir()) == []


def test_big_file_with_other_bytes_than_its_id_says_is_rejected_and_forgotten(app: RunningApp) -> None:
    part = app.new_part()
    wanted = entry(part[0], "video.mp4", b"abc")
    with syncing(app, part) as socket:
        assert isinstance(ask(socket, Resume(1, wanted)), Offset)
        answer = ask(socket, Piece(2, wanted.id, 0, True, b"xyz"))
        assert isinstance(answer, Ack) and answer.results[0].status is Status.REJECTED and answer.results[0].again
        assert ask(socket, Resume(3, wanted)) == Offset(3, wanted.id, 0)


def test_only_parts_with_their_secret_may_connect(app: RunningApp) -> None:
    part_id, _ = app.new_part()
    with pytest.raises(InvalidStatus) as refused, syncing(app, (part_id, "wrong")):
        pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body or b"{}")["error"]["hint"]


def test_nonsense_closes_the_connection_with_the_reason(app: RunningApp) -> None:
    with syncing(app, app.new_part()) as socket:
        socket.send(b"\xff\xff\xff\xff")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4400


def test_several_batches_are_in_flight_at_once(app: RunningApp) -> None:
    part = app.new_part()
    with syncing(app, part) as socket:
        for seq in range(8):
            data = [capture(seq * 100 + n) for n in range(10)]
            entries = tuple(entry(part[0], f"{seq}/{n}.capture", one) for n, one in enumerate(data))
            socket.send(encode(Batch(seq, entries, tuple(data))))
        answers = [decode(socket.recv(30)) for _ in range(8)]
    assert {answer.seq for answer in answers if isinstance(answer, Ack)} == set(range(8))
    assert app.context.items.count(app.owner, ItemFilter())[0] == 80


def test_unknown_dataset_is_told_and_the_file_is_kept(app: RunningApp) -> None:
    part = app.new_part()
    with syncing(app, part) as socket:
        answer = ask(socket, Batch(1, (entry(part[0], "a/b.txt", b"x", dataset_ids=("gone",)),), (b"x",)))
    assert isinstance(answer, Ack) and answer.results[0].status is Status.STORED
    assert "gone" in answer.results[0].message


def test_more_than_the_app_can_hold_slows_the_machine_down_and_loses_nothing(tmp_path: Path) -> None:
    with running_app(tmp_path, max_bytes_in_flight=1 << 20) as app:
        part = app.new_part()
        write = app.context.packs.write
        held = threading.Event()

        def slow_write(*args: Any, **kwargs: Any) -> Any:
            held.wait(20)
            return write(*args, **kwargs)

        app.context.packs.write = slow_write  # type: ignore[method-assign]
        with syncing(app, part) as socket:
            for seq in range(4):
                data = [capture(seq * 10 + n, bytes([seq, n]) * 100_000) for n in range(4)]
                entries = tuple(entry(part[0], f"{seq}/{n}.capture", one) for n, one in enumerate(data))
                socket.send(encode(Batch(seq, entries, tuple(data))))
            first = decode(socket.recv(30))
            assert isinstance(first, SlowDown) and first.seconds > 0 and "waiting" in first.message
            held.set()
            acks = set[int]()
            while len(acks) < 4:
                answer = decode(socket.recv(30))
                if isinstance(answer, Ack):
                    assert {one.status for one in answer.results} == {Status.STORED}
                    acks.add(answer.seq)
        assert app.context.items.count(app.owner, ItemFilter())[0] == 16


def test_compressed_readings_are_what_they_were(app: RunningApp) -> None:
    part = app.new_part()
    data = tabular(50)
    packed = zlib.compress(data)
    one = replace(entry(part[0], "s.capture", data), packed=len(packed))
    with syncing(app, part) as socket:
        assert socket.response is not None
        assert socket.response.headers[COMPRESSION_HEADER] == ZLIB
        first = ask(socket, Batch(1, (one,), (packed,)))
        again = ask(socket, Batch(2, (replace(one, packed=0),), (data,)))
    assert isinstance(first, Ack) and first.results[0].status is Status.STORED
    assert isinstance(again, Ack) and again.results[0].status is Status.DUPLICATE
    assert len(app.context.readings.rows(app.owner, ItemFilter(part_ids=(part[0],)), 100)) == 50


def test_a_bomb_ends_the_connection_and_nothing_else(app: RunningApp) -> None:
    part = app.new_part()
    packed = zlib.compress(bytes(500_000_000), 1)
    bomb = Entry("0" * 32, "s.capture", 1000, EntryKind.CAPTURE, packed=len(packed))
    with syncing(app, part) as socket:
        socket.send(encode(Batch(1, (bomb,), (packed,))))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
        assert closed.value.rcvd is not None and "decompresses" in closed.value.rcvd.reason
    good = capture(1)
    with syncing(app, part) as socket:
        answer = ask(socket, Batch(1, (entry(part[0], "good.capture", good),), (good,)))
    assert isinstance(answer, Ack) and answer.results[0].status is Status.STORED


def test_pieces_of_several_files_and_batches_come_all_at_once(app: RunningApp) -> None:
    """Nobody waits for an answer before the next frame, as on a line of 100 ms."""
    part = app.new_part()
    contents = [bytes([n]) * 700_000 for n in range(3)]
    files = [entry(part[0], f"video-{n}.mp4", data) for n, data in enumerate(contents)]
    small = capture(1)
    with syncing(app, part) as socket:
        for number, one in enumerate(files):
            assert ask(socket, Resume(number, one)) == Offset(number, one.id, 0)
        seq = 100
        for start in range(0, 700_000, 100_000):
            for one, data in zip(files, contents, strict=True):
                socket.send(encode(Piece(seq, one.id, start, start == 600_000, data[start : start + 100_000])))
                seq += 1
        socket.send(encode(Batch(seq, (entry(part[0], "small.capture", small),), (small,))))
        answers = [decode(socket.recv(30)) for _ in range(22)]
    stored = [one for answer in answers if isinstance(answer, Ack) for one in answer.results]
    assert [one.status for one in stored] == [Status.STORED] * 4
    reached: dict[str, int] = {}
    for answer in answers:
        if isinstance(answer, PieceAck):
            assert answer.offset > reached.get(answer.id, 0)
            reached[answer.id] = answer.offset
    assert app.context.items.count(app.owner, ItemFilter())[0] == 4


def test_a_sequence_in_a_batch_or_in_pieces_is_kept_once_and_no_file(app: RunningApp) -> None:
    part = app.new_part()
    resources = [{"resource_name": f"cam{n}", "method_name": "GetImages"} for n in range(3)]
    times = {"start_time": "2026-03-04T05:06:07.123456Z", "end_time": "2026-03-04T05:06:08Z"}
    data = json.dumps({**times, "resources": resources, "sequence_tags": ["run"]}, indent=2).encode()
    broken = data.replace(b"end_time", b"ended")

    def named(name: str, content: bytes) -> Entry:
        path = f"sequences/{name}.seq"
        return Entry(capture_id(part[0], path, content), path, len(content), EntryKind.SEQUENCE)

    first, bad, copied = named("a", data), named("b", broken), named("c", data)
    with syncing(app, part) as socket:
        assert "sequence" in str(socket.response.headers.get("gleaner-kinds"))  # type: ignore[union-attr]
        answer = ask(socket, Batch(1, (first, bad), (data, broken)))
        assert isinstance(answer, Ack)
        assert [one.status for one in answer.results] == [Status.STORED, Status.REJECTED]
        assert "end_time is None" in answer.results[1].message
        assert isinstance(ask(socket, Resume(2, copied)), Offset)
        again = ask(socket, Piece(3, copied.id, 0, True, data))
    assert isinstance(again, Ack)
    assert [one.status for one in again.results] == [Status.DUPLICATE]
    [kept] = app.context.sequences.page(app.owner, app.organization_id).sequences
    assert (kept.part_id, kept.covers.tags, len(kept.covers.resources)) == (part[0], ("run",), 3)
    assert app.context.items.count(app.owner, ItemFilter(part_ids=(part[0],))) == (0, 0)


def test_a_part_that_is_deleted_while_it_sends_keeps_its_files(app: RunningApp) -> None:
    part = app.new_part()
    data, video = capture(1), entry(part[0], "video.mp4", b"abc")
    with syncing(app, part) as socket:
        assert isinstance(ask(socket, Resume(1, video)), Offset)
        machine = app.context.fleet.part(app.owner, part[0]).machine_id
        app.context.fleet.delete_machine(app.owner, machine)
        answer = ask(socket, Piece(2, video.id, 0, True, b"abc"))
        assert isinstance(answer, Ack)
        assert answer.results[0].status is Status.REJECTED and answer.results[0].again
        with pytest.raises(ConnectionClosed, match="There is no part"):
            ask(socket, Batch(3, (entry(part[0], "a.capture", data),), (data,)))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (InvalidInput("not a capture"), False),
        (TooLarge("more than the app takes"), False),
        (NotFound("no part"), True),
        (PermissionDenied("may not"), True),
        (Unauthenticated("secret"), True),
        (Conflict("in use"), True),
    ],
)
def test_only_what_is_wrong_with_the_bytes_is_said_of_a_file(error: AppError, again: bool) -> None:
    assert rejection("0" * 32, error) == Result("0" * 32, Status.REJECTED, error.message, error.hint, again)
