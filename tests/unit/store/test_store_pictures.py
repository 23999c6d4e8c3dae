"""Sniffing and thumbnails."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import sqlalchemy as sa
from store_fixtures import OWNER, Store, also_in_a_bucket, picture, text_file

from gleaner.app.errors import InvalidInput, NotFound
from gleaner.app.services.items_values import Selection
from gleaner.app.services.thumbnails import Thumbnails
from gleaner.app.store import tables as t
from gleaner.app.store.sniff import picture_size, sniff


def encoded(extension: str, width: int = 64, height: int = 48) -> bytes:
    pixels = np.full((height, width, 3), (40, 90, 200), np.uint8)
    return bytes(cv2.imencode(extension, pixels)[1])


@pytest.mark.parametrize(
    ("extension", "mime"),
    [(".jpg", "image/jpeg"), (".png", "image/png"), (".webp", "image/webp"), (".bmp", "image/bmp")],
)
def test_pictures_are_known_by_their_bytes(extension: str, mime: str) -> None:
    found = sniff(encoded(extension), mime_type="text/plain", file_ext=".txt")
    assert (found.mime_type, found.kind, found.width, found.height) == (mime, "image", 64, 48)


@pytest.mark.parametrize(
    ("head", "mime", "size"),
    [
        (b"GIF89a\x40\x00\x30\x00", "image/gif", (64, 48)),
        (b"DEPTHMAP" + (64).to_bytes(8, "big") + (48).to_bytes(8, "big"), "image/vnd.viam.dep", (64, 48)),
        (b"# .PCD v.7", "pointcloud/pcd", (0, 0)),
        (b"\0\0\0\x20ftypisom", "video/mp4", (0, 0)),
        (b"RIFF\0\0\0\0WAVE", "audio/wav", (0, 0)),
        (b"\xff\xd8\xff", "image/jpeg", (0, 0)),  # cut off
    ],
)
def test_other_kinds(head: bytes, mime: str, size: tuple[int, int]) -> None:
    found = sniff(head)
    assert (found.mime_type, found.width, found.height) == (mime, *size)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".bmp"])
def test_headers_cut_anywhere_are_no_error(extension: str) -> None:
    data = encoded(extension)
    for end in range(min(len(data), 400)):
        assert picture_size(data[:end], sniff(data).mime_type) in ((0, 0), (64, 48))


@pytest.fixture
def thumbnails(store: Store) -> Iterator[Thumbnails]:
    made = Thumbnails(store.database, store.packs, store.items, store.clock)
    store.ingest.on_stored = made.stored
    made.start()
    yield made
    made.stop()


def size_of(jpeg: bytes) -> tuple[int, int]:
    return picture_size(jpeg, "image/jpeg")


@pytest.mark.parametrize(
    ("extension", "source", "expected"),
    [
        (".jpg", (1280, 960), (320, 240)),
        (".png", (100, 2000), (16, 320)),
        (".png", (2000, 2), (320, 1)),
        (".jpg", (64, 48), (64, 48)),  # never made larger
    ],
)
def test_thumbnail_fits_its_box(
    store: Store, thumbnails: Thumbnails, extension: str, source: tuple[int, int], expected: tuple[int, int]
) -> None:
    [receipt] = store.add(picture(1, content=encoded(extension, *source)))
    assert size_of(thumbnails.get(OWNER, receipt.row)) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_thumbnail_is_turned_as_the_browser_turns_the_picture(
    store: Store, thumbnails: Thumbnails, orientation: int
) -> None:
    """Stored with four quarters of different colours; a page lays boxes over the thumbnail as over the picture."""
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[:, :80, 0] = pixels[:, 80:, 2] = 255
    pixels[:60, :, 1] = 255
    jpeg = bytes(cv2.imencode(".jpg", pixels)[1])
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HHI", orientation, 0, 0)
    file = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    (receipt,) = store.add(picture(1, content=file))
    shown = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)  # OpenCV turns it, too
    made = cv2.imdecode(np.frombuffer(thumbnails.get(OWNER, receipt.row), np.uint8), cv2.IMREAD_COLOR)
    assert made.shape == shown.shape
    assert np.abs(shown[10, 10].astype(int) - made[10, 10]).max() < 40


def test_thumbnails_are_kept_over_restarts_and_encrypted(store: Store, thumbnails: Thumbnails) -> None:
    receipts = store.add(*(picture(n, content=encoded(".jpg", 640, 480) + bytes([n])) for n in range(3)))
    made = [thumbnails.get(OWNER, one.row) for one in receipts]
    thumbnails.stop()
    with store.database.read() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(t.thumbnail)) == 3
    newest = store.folder / "packs" / store.pack_names()[-1]
    assert b"\xff\xd8\xff" not in newest.read_bytes()
    fresh = Thumbnails(store.database, store.packs, store.items, store.clock)
    assert [fresh.get(OWNER, one.row) for one in receipts] == made


@also_in_a_bucket
def test_lost_thumbnail_pack_is_made_again(store: Store, thumbnails: Thumbnails) -> None:
    [receipt] = store.add(picture(1, content=encoded(".jpg", 640, 480)))
    before = set(store.pack_names())
    made = thumbnails.get(OWNER, receipt.row)
    thumbnails.stop()
    for name in set(store.pack_names()) - before:
        store.packs.delete(name)
    fresh = Thumbnails(store.database, store.packs, store.items, store.clock)
    assert fresh.get(OWNER, receipt.row) == made


@pytest.mark.parametrize("content", [b"\xff\xd8\xff nothing more", encoded(".jpg")[:100], b"\x89PNG\r\n\x1a\n broken"])
def test_broken_picture_has_no_thumbnail_but_a_reason(store: Store, thumbnails: Thumbnails, content: bytes) -> None:
    [receipt] = store.add(picture(1, content=content))
    for _ in range(2):
        with pytest.raises(InvalidInput, match="cannot be shown"):
            thumbnails.get(OWNER, receipt.row)


def test_files_and_deleted_pictures_have_none(store: Store, thumbnails: Thumbnails) -> None:
    text, gone = store.add(text_file("a.txt", b"x"), picture(1, content=encoded(".jpg")))
    with pytest.raises(InvalidInput, match="not a picture"):
        thumbnails.get(OWNER, text.row)
    store.items.delete(OWNER, Selection(rows=(gone.row,)))
    with pytest.raises(NotFound):
        thumbnails.get(OWNER, gone.row)


def test_a_size_no_picture_has_is_no_size() -> None:
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (2**31).to_bytes(4, "big") + (1).to_bytes(4, "big")
    assert picture_size(head, "image/png") == (0, 0)
