from __future__ import annotations

import errno
import threading
from concurrent.futures import Future
from dataclasses import replace

import pytest
import sqlalchemy as sa
from store_fixtures import OWNER, Store, also_in_a_bucket, picture, readings, text_file

from gleaner.app.errors import Conflict, InvalidInput, Unavailable
from gleaner.app.services.items_values import ItemFilter, Selection
from gleaner.app.store import tables as t
from gleaner.app.store.index import Outcome
from gleaner.app.store.ingest import Ingest, Receipt
from gleaner.app.store.origins import Origins
from gleaner.app.store.records import Upload
from gleaner.app.store.recovery import adopt_orphans


@also_in_a_bucket
def test_uploads_in_flight_together_share_a_pack(store: Store) -> None:
    held = threading.Event()
    write = store.packs.write

    def slow_write(*args: object, **kwargs: object) -> object:
        held.wait(10)
        return write(*args, **kwargs)  # type: ignore[arg-type]

    store.packs.write = slow_write  # type: ignore[method-assign,assignment]
    futures = [store.ingest.submit(picture(n)) for n in range(100)]
    held.set()
    receipts = [future.result(30) for future in futures]
    assert {one.outcome for one in receipts} == {Outcome.STORED}
    assert len({one.row for one in receipts}) == 100
    assert len(store.pack_names()) <= 3


@also_in_a_bucket
def test_receipt_comes_after_bytes_and_record_are_readable(store: Store) -> None:
    [receipt] = store.add(picture(1, content=b"\xff\xd8\xff hello"))
    content = store.items.content(OWNER, receipt.row)
    assert content.all() == b"\xff\xd8\xff hello"
    assert content.item.binary_data_id == receipt.binary_data_id == f"org-1/location-1/{receipt.file_id}"


def test_same_upload_again_is_a_duplicate_and_costs_no_disk(store: Store) -> None:
    [first] = store.add(picture(1))
    packs = store.pack_names()
    [again] = store.add(picture(1))
    assert again.is_duplicate and again.row == first.row and again.binary_data_id == first.binary_data_id
    assert store.pack_names() == packs


@also_in_a_bucket
def test_same_upload_many_times_at_once_is_stored_once(store: Store) -> None:
    receipts = store.add(*(picture(1) for _ in range(50)), *(readings(0, 3) for _ in range(50)))
    assert [one.outcome for one in receipts].count(Outcome.STORED) == 2
    assert store.items.count(OWNER, ItemFilter())[0] == 1
    assert store.readings.count(OWNER, ItemFilter()) == 3


@also_in_a_bucket
def test_same_key_with_other_bytes_is_a_conflict(store: Store) -> None:
    first, second = picture(1), picture(2)
    forged = Upload(replace(second.info, idempotency_key=first.info.idempotency_key), second.payload)
    store.add(first)
    with pytest.raises(Conflict, match="other content"):
        store.add(forged)


def test_too_many_bytes_in_flight_are_refused_and_taken_later(store: Store) -> None:
    ingest = Ingest(store.packs, store.database, store.events, max_bytes_in_flight=1000, clock_ns=store.clock)
    ingest._running = True  # nothing drains the queue yet
    waiting = [ingest.submit(picture(n, content=b"\xff\xd8\xff" + bytes([n]) * 400)) for n in range(2)]
    with pytest.raises(Unavailable, match="waiting to be written"):
        ingest.submit(picture(3, content=b"\xff\xd8\xff" + b"3" * 400))
    ingest._running = False
    ingest.start()
    assert [future.result(30).outcome for future in waiting] == [Outcome.STORED] * 2
    assert ingest.submit(picture(3)).result(30).outcome is Outcome.STORED
    ingest.stop()


def test_full_disk_is_told_to_each_sender_and_healed_by_itself(store: Store) -> None:
    write = store.packs.write

    def full(*args: object, **kwargs: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    store.packs.write = full  # type: ignore[method-assign,assignment]
    with pytest.raises(Unavailable, match="No space left"):
        store.add(picture(1))
    store.packs.write = write  # type: ignore[method-assign]
    assert store.add(picture(1))[0].outcome is Outcome.STORED


@pytest.mark.parametrize("bad", [{"captured_ns": 2**70}, {"component_name": "\ud800"}], ids=["index", "pack"])
def test_an_upload_that_cannot_be_stored_is_rejected_and_costs_its_neighbours_nothing(
    store: Store, bad: dict[str, object]
) -> None:
    uploads = [picture(n) for n in range(9)]
    uploads[4] = Upload(replace(uploads[4].info, **bad), uploads[4].payload)  # type: ignore[arg-type]
    submission = store.ingest.submit_together(uploads, (done := threading.Event()).set)
    assert done.wait(30)
    assert isinstance(submission.outcomes.pop(4), InvalidInput)
    assert [one.outcome for one in submission.outcomes if isinstance(one, Receipt)] == [Outcome.STORED] * 8
    assert store.items.count(OWNER, ItemFilter())[0] == 8
    assert adopt_orphans(store.packs, store.database).packs == 0, "nothing is left that a start would stumble over"


@also_in_a_bucket
def test_stop_commits_everything_taken(store: Store) -> None:
    futures: list[Future[Receipt]] = [store.ingest.submit(picture(n)) for n in range(200)]
    store.ingest.stop()
    assert all(future.done() and future.result().outcome is Outcome.STORED for future in futures)
    with pytest.raises(Unavailable, match="stopping"):
        store.ingest.submit(picture(999))


def test_deleted_capture_stays_deleted_when_the_machine_sends_it_again(store: Store) -> None:
    [receipt] = store.add(picture(1))
    store.items.delete(OWNER, Selection(rows=(receipt.row,)))
    assert store.add(picture(1))[0].is_duplicate
    assert store.items.count(OWNER, ItemFilter())[0] == 0


def test_deleted_file_that_a_person_adds_again_comes_back(store: Store) -> None:
    [receipt] = store.add(text_file("a.txt", b"hello"))
    store.items.delete(OWNER, Selection(rows=(receipt.row,)))
    [again] = store.add(text_file("a.txt", b"hello", revive=True))
    assert again.outcome is Outcome.STORED and again.row == receipt.row
    assert store.items.content(OWNER, receipt.row).all() == b"hello"


def test_unknown_dataset_is_named_and_the_item_kept(store: Store) -> None:
    known = store.datasets.create(OWNER, "org-1", "shapes")
    [receipt] = store.add(picture(1, dataset_ids=(known.id, "gone")))
    assert receipt.unknown_dataset_ids == ("gone",)
    assert store.datasets.get(OWNER, known.id).item_count == 1


@also_in_a_bucket
def test_large_spooled_upload_does_not_live_in_memory(store: Store) -> None:
    from viam.proto.app.datasync import DataType, UploadMetadata

    from gleaner.app.store.uploads import from_file

    spooled = store.spool.create()
    for number in range(20):
        spooled.append(bytes([number]) * 1_000_000)
    metadata = UploadMetadata(type=DataType.DATA_TYPE_FILE, file_name="video.mp4")
    upload = from_file(metadata, spooled, picture(1).info.place, 1)
    assert upload.payload.in_memory < 2 << 20
    [receipt] = store.add(upload)
    read = store.items.content(OWNER, receipt.row).read
    assert b"".join(read(7_999_999, 2)) == b"\x07\x08"
    assert list((store.folder / "spool").iterdir()) == []


def test_many_small_uploads_make_a_rush_and_few_do_not(store: Store) -> None:
    store.add(picture(1))
    assert not store.ingest.is_rushed
    store.add(*(picture(n) for n in range(2, 40)))
    assert store.ingest.is_rushed
    assert not store.ingest.is_crowded, "nothing that matters waits for pictures that come one by one"


def test_an_origin_is_one_row_whoever_looks_and_follows_its_names(store: Store) -> None:
    origins, info = Origins(), picture(1).info
    renamed = replace(info, place=replace(info.place, machine_name="renamed"))
    for wanted in (info, info, renamed, renamed, info):
        with store.database.write() as db:
            [number] = origins.ids(db, [wanted]).values()
            assert Origins().ids(db, [wanted]).popitem()[1] == number
            assert db.execute(sa.select(t.origin.c.id, t.origin.c.machine_name)).all() == [
                (number, wanted.place.machine_name)
            ]
