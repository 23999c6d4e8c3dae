"""Cameras that play files: one photo, a folder, a video; and a webcam whose device is a file."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg
from camera_pictures import jpeg, picture, until, with_orientation, write_video

from gleaner.machine.models import camera_image_dir, camera_image_file, camera_video, camera_webcam
from gleaner.machine.models.camera_image_dir import ImageDirAttributes, Player
from gleaner.machine.models.camera_video import VideoAttributes, VideoDriver
from gleaner.machine.models.camera_webcam import WebcamAttributes, WebcamDriver, complete_jpeg, devices
from gleaner.machine.models.frames import DeviceLost, DriverSource, SourceState
from gleaner.machine.models.photo_files import load_photo
from gleaner.machine.models.pictures import CameraProblem, decode_image
from gleaner.wire.jpeg import exif_orientation

LOG = logging.getLogger("test.files")


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# ---------------------------------------------------------------- photo files


def test_an_upright_jpeg_keeps_its_bytes(tmp_path):
    data = jpeg(picture())
    loaded = load_photo(write(tmp_path / "a.jpg", data), 85)
    assert (loaded.data, loaded.width_px, loaded.height_px, loaded.mime_type) == (data, 64, 48, "image/jpeg")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_held_sideways_is_turned_upright(tmp_path, orientation, order):
    data = with_orientation(jpeg(picture()), orientation, order)
    assert exif_orientation(data) == orientation
    loaded = load_photo(write(tmp_path / "a.jpg", data), 95)
    assert (loaded.width_px, loaded.height_px) == ((64, 48) if orientation <= 4 else (48, 64))
    assert exif_orientation(loaded.data) == 1
    # Source of the table: EXIF 2.32 §4.6.4, where the stored picture's blue left half ends up when shown.
    frame = decode_image(loaded.data)
    side = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}[orientation]
    height, width = frame.shape[:2]
    part = {
        "left": frame[:, : width // 3],
        "right": frame[:, -width // 3 :],
        "top": frame[: height // 3],
        "bottom": frame[-height // 3 :],
    }
    assert part[side][:, :, 0].mean() > 150


@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe1\x00\x20Exif\x00\x00II*\x00\xff\xff\xff\xff", b"GIF89a"]
)
def test_damaged_exif_counts_as_upright(damage):
    assert exif_orientation(damage) == 1


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff\xe0"])
def test_a_file_that_is_no_picture_names_itself(tmp_path, data):
    with pytest.raises(CameraProblem, match=r"bad\.jpg"):
        load_photo(write(tmp_path / "bad.jpg", data), 85)


def test_a_png_becomes_a_jpeg(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), picture())
    loaded = load_photo(tmp_path / "a.png", 90)
    assert loaded.data[:2] == b"\xff\xd8"
    assert np.abs(decode_image(loaded.data).astype(int) - picture()).mean() < 8


# ---------------------------------------------------------------- image_file


async def test_image_file_shows_the_file_and_its_later_versions(tmp_path, build):
    path = write(tmp_path / "a.jpg", jpeg(picture()))
    camera = await build(camera_image_file.SPEC, color_image_file_path=str(path), frame_rate=240)
    images, metadata = await camera.get_images()
    assert images[0].data == path.read_bytes()
    assert metadata.captured_at.ToDatetime().timestamp() > 0
    write(path, jpeg(picture(100, 80)))

    async def shows(width: int) -> bool:
        return (await camera.get_images())[0][0].width == width

    await until(lambda: shows(100))
    path.unlink()
    with pytest.raises(CameraProblem, match=r"a\.jpg cannot be read"):
        await until(lambda: shows(0))


async def test_a_missing_image_file_is_refused_with_the_attribute_to_fix(tmp_path, build):
    with pytest.raises(FileNotFoundError, match="color_image_file_path"):
        await build(camera_image_file.SPEC, color_image_file_path=str(tmp_path / "none.jpg"))


# ---------------------------------------------------------------- image_dir


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def play(folder: Path, clock: Clock, **settings) -> Player:
    return Player("cam", ImageDirAttributes(path=str(folder), **settings), LOG, clock)


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(4):
        write(tmp_path / f"{number}.jpg", jpeg(picture(40 + number, 30)))
    write(tmp_path / "sub" / "9.jpeg", jpeg(picture(49, 30)))
    write(tmp_path / ".hidden.jpg", b"x")
    write(tmp_path / "notes.txt", b"x")
    return tmp_path


def widths(player: Player, clock: Clock, count: int) -> list[int]:
    found = []
    for _ in range(count):
        found.append(player.make().width_px)
        clock.now_s += 1.0
    return found


def test_photos_play_in_order_and_repeat(folder):
    clock = Clock()
    assert widths(play(folder, clock), clock, 7) == [40, 41, 42, 43, 49, 40, 41]


def test_without_subfolders_and_without_repeat_the_last_photo_stays(folder):
    clock = Clock()
    assert widths(play(folder, clock, recursive=False, loop=False), clock, 6) == [40, 41, 42, 43, 43, 43]


def test_shuffled_order_depends_on_the_seed_only(folder):
    one, two, three = ([Clock(), seed] for seed in (1, 1, 2))
    orders = [widths(play(folder, c, order="shuffled", seed=s), c, 5) for c, s in (one, two, three)]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == [40, 41, 42, 43, 49]
    assert orders[0] != orders[2]


def test_an_unreadable_photo_is_skipped_and_named_once(folder, caplog):
    write(folder / "1.jpg", b"\xff\xd8broken")
    clock = Clock()
    player = play(folder, clock, recursive=False)
    assert widths(player, clock, 9).count(40) >= 2
    assert len([r for r in caplog.records if "1.jpg" in r.message]) == 1


def test_a_folder_of_nothing_readable_says_so(tmp_path):
    write(tmp_path / "a.jpg", b"x")
    with pytest.raises(CameraProblem, match="no photo"):
        play(tmp_path, Clock()).make()


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_folder_without_photos_is_refused(tmp_path, kind):
    folder = tmp_path / "photos"
    if kind == "empty":
        folder.mkdir()
    with pytest.raises(OSError, match="correct path"):
        play(folder, Clock())


async def test_real_photos_come_through_byte_for_byte(photos, build):
    folder = photos / "signs" / "3"
    camera = await build(camera_image_dir.SPEC, path=str(folder), frame_rate=30)
    images, _ = await camera.get_images()
    assert images[0].data in {p.read_bytes() for p in folder.glob("*.jpg")}


async def test_every_real_photo_can_be_loaded(photos, tmp_path):
    for path in [
        *sorted((photos / "signs" / "7").glob("*.jpg"))[:10],
        *sorted((photos / "raccoon" / "images").glob("*"))[:10],
    ]:
        loaded = load_photo(path, 85)
        assert decode_image(loaded.data).shape == (loaded.height_px, loaded.width_px, 3)


# ---------------------------------------------------------------- video


def brightness(data: bytes) -> float:
    return float(simplejpeg.decode_jpeg(data, colorspace="GRAY").mean())


@pytest.mark.parametrize("codec", ["mjpeg", "libx264"])
async def test_a_video_file_plays_and_repeats(tmp_path, build, codec):
    path = write_video(tmp_path / "v.mkv", frames=6, rate=60, codec=codec)
    camera = await build(camera_video.SPEC, video_path=str(path))
    seen = set()
    async with asyncio.timeout(20):
        while camera.source.frames < 14 or len(seen) < 3:
            images, _ = await camera.get_images()
            seen.add(round((brightness(images[0].data) - 20) / 20))
    assert seen <= set(range(6))
    assert images[0].width == 64


async def test_a_video_without_repeat_stays_on_its_last_picture(tmp_path, build):
    path = write_video(tmp_path / "v.avi", frames=3, rate=60)
    camera = await build(camera_video.SPEC, video_path=str(path), loop=False)

    async def shows_the_last() -> bool:
        return abs(brightness((await camera.get_images())[0][0].data) - 60) < 4

    await until(shows_the_last)
    before = camera.source.frames
    await until(lambda: camera.source.frames > before)
    assert await shows_the_last()


async def test_a_video_file_waits_while_nobody_looks(tmp_path):
    path = write_video(tmp_path / "v.avi", frames=40, rate=25)
    driver = VideoDriver("cam", VideoAttributes(video_path=str(path)))
    source = DriverSource("cam", driver.run, LOG, max_age_s=0.5, idle_after_s=0.05)
    source.start()
    try:
        await source.read(10)
        await until(lambda: not source._feed.is_wanted())
        await until(lambda: source._feed.is_paused)
        played = source.frames
        assert played < 40
        await source.read(10)
        await until(lambda: source.frames > played)
    finally:
        await asyncio.to_thread(source.stop)


async def test_a_missing_video_is_refused_and_a_text_file_is_named(tmp_path, build):
    with pytest.raises(FileNotFoundError, match="video_path"):
        await build(camera_video.SPEC, video_path=str(tmp_path / "none.mp4"))
    text = write(tmp_path / "v.mp4", b"hello" * 100)
    camera = await build(camera_video.SPEC, video_path=str(text))
    with pytest.raises(CameraProblem, match=r"v\.mp4 cannot be played.*check video_path"):
        await camera.get_images(timeout=5)


async def test_a_stream_is_decoded_from_its_last_key_frame_once_somebody_looks(tmp_path):
    """A file read through the stream path: what was sent while nobody looked is kept undecoded."""
    path = write_video(tmp_path / "v.mkv", frames=30, rate=30, codec="libx264")
    shown: list[float] = []

    class Feed:
        stopping = type("Never", (), {"is_set": staticmethod(lambda: False)})
        packets = 0

        def is_wanted(self) -> bool:
            self.packets += 1
            return self.packets > 20

        def publish(self, make) -> None:
            shown.append(brightness(make().data))

    driver = VideoDriver("cam", VideoAttributes(video_path="rtsp://camera.invalid/stream"))
    with av.open(str(path)) as container, pytest.raises(Exception, match="ended"):
        driver._follow(container, Feed())  # type: ignore[arg-type]
    assert 3 <= len(shown) <= 12
    assert all(value > 10 for value in shown)


def test_a_password_in_an_address_stays_out_of_messages():
    driver = VideoDriver("cam", VideoAttributes(video_path="rtsp://me:secret@10.0.0.9:554/live?token=x"))
    assert driver._where() == "rtsp://10.0.0.9:554/live"


# ---------------------------------------------------------------- webcam


def file_as_device(path: Path):
    def opener(_device: str, _options: dict[str, str]):
        return av.open(str(path))

    return opener


def webcam_source(driver: WebcamDriver) -> DriverSource:
    source = DriverSource("cam", driver.run, LOG, max_age_s=60, retry_s=0.01)
    source.start()
    return source


async def test_mjpeg_is_passed_on_undecoded(tmp_path):
    path = write_video(tmp_path / "v.avi", frames=3)
    with av.open(str(path)) as container:
        sent = [bytes(p) for p in container.demux(video=0) if p.size]
    driver = WebcamDriver(
        "cam", WebcamAttributes(video_path="/dev/video9"), file_as_device(path), lambda: ["/dev/video9"]
    )
    source = webcam_source(driver)
    try:
        got = await source.read(10)
        assert got.data in {complete_jpeg(data) for data in sent}
        assert (got.width_px, got.height_px) == (64, 48)
    finally:
        source.stop()


async def test_a_raw_format_is_encoded_when_read(tmp_path):
    path = write_video(tmp_path / "v.mkv", frames=3, codec="libx264")
    driver = WebcamDriver("cam", WebcamAttributes(), file_as_device(path), lambda: ["/dev/video0"])
    source = webcam_source(driver)
    try:
        got = await source.read(10)
        assert decode_image(got.data).shape == (48, 64, 3)
    finally:
        source.stop()


async def test_an_unplugged_webcam_is_lost_named_and_found_again(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write_video(tmp_path / "v.avi", frames=3)
    hidden = tmp_path / "unplugged"
    present = lambda: ["/dev/video0"] if path.exists() else []  # noqa: E731
    driver = WebcamDriver("cam", WebcamAttributes(video_path="/dev/video0"), file_as_device(path), present)
    source = webcam_source(driver)
    try:
        await source.read(10)
        shutil.move(path, hidden)
        await until(lambda: source.state is SourceState.LOST and "cannot open /dev/video0" in source.error)
        assert "there is no /dev/video*" in source.error
        shutil.move(hidden, path)
        await until(lambda: source.state is SourceState.RUNNING)
        assert (await source.read(10)).width_px == 64
    finally:
        source.stop()


async def test_an_absent_webcam_cannot_be_built_and_names_the_devices_there_are(build):
    with pytest.raises(DeviceLost, match=r"/dev/video_none.*(devices here|there is no /dev/video)"):
        await build(camera_webcam.SPEC, video_path="/dev/video_none")


@pytest.mark.parametrize(
    ("device", "reason"), [("/dev/null", "Inappropriate ioctl"), ("/dev/video_none", "No such file")]
)
def test_ffmpeg_takes_the_options_and_fails_at_the_device(device: str, reason: str):
    driver = WebcamDriver("cam", WebcamAttributes(video_path=device, width_px=640, height_px=480, frame_rate=30))
    with pytest.raises(DeviceLost, match=rf"cannot open {device}: {reason}"):
        driver.open()


async def test_a_webcam_that_was_opened_ahead_is_not_opened_twice(tmp_path):
    path, opened = write_video(tmp_path / "v.mkv", frames=3, codec="libx264"), []

    def opener(_device: str, _options: dict[str, str]):
        opened.append(av.open(str(path)))
        return opened[-1]

    driver = WebcamDriver("cam", WebcamAttributes(), opener, lambda: ["/dev/video0"])
    driver.open()
    source = DriverSource("cam", driver.run, LOG, max_age_s=60, retry_s=60)
    source.start()
    try:
        assert (await source.read(10)).width_px == 64
        assert len(opened) == 1
    finally:
        source.stop()


def test_devices_are_listed_by_number(tmp_path):
    for name in ("video10", "video2", "videofoo", "null"):
        (tmp_path / name).touch()
    assert devices(tmp_path) == [str(tmp_path / "video2"), str(tmp_path / "video10")]


def test_settings_become_v4l2_options_with_mjpeg_first():
    sets = WebcamDriver("cam", WebcamAttributes(width_px=640, height_px=480, frame_rate=30))._option_sets()
    assert sets == [
        {"video_size": "640x480", "framerate": "30", "input_format": "mjpeg"},
        {"video_size": "640x480", "framerate": "30"},
    ]


def without_huffman_tables(data: bytes) -> bytes:
    kept, at = data[:2], 2
    while data[at + 1] != 0xDA:
        length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] != 0xC4:
            kept += data[at : at + length]
        at += length
    return kept + data[at:]


def test_missing_huffman_tables_are_added():
    whole = jpeg(picture())
    bare = without_huffman_tables(whole)
    assert b"\xff\xc4" not in bare
    mended = complete_jpeg(bare)
    assert mended is not None
    assert np.array_equal(decode_image(mended), decode_image(whole))
    assert complete_jpeg(whole) == whole


@pytest.mark.parametrize("torn", [b"", b"\xff\xd8\xff\xe0", b"\x00" * 40])
def test_a_torn_mjpeg_picture_is_dropped(torn):
    assert complete_jpeg(torn) is None
    assert complete_jpeg(jpeg(picture())[:-40]) is None


async def test_closing_a_camera_ends_its_thread(tmp_path, build):
    path = write_video(tmp_path / "v.avi")
    camera = await build(camera_video.SPEC, video_path=str(path))
    await camera.get_images()
    started = time.monotonic()
    await camera.close()
    assert time.monotonic() - started < 8
    assert (await camera.get_status())["state"] == "stopped"
