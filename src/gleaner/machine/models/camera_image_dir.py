"""`gleaner:camera:image-dir`: plays a folder of photos like a camera would see them."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from gleaner.machine.models.base import Attributes, BuildContext, ModelSpec
from gleaner.machine.models.frame_camera import CAMERA_CAPTURE, FrameCamera, frame_rate_field, quality_field
from gleaner.machine.models.frames import OnDemandSource
from gleaner.machine.models.photo_files import PHOTO_SUFFIXES, load_photo
from gleaner.machine.models.pictures import CameraProblem, Picture


class ImageDirAttributes(Attributes):
    path: str = Field(min_length=1, title="Folder", description="Folder with photos on the machine.")
    frame_rate: float = frame_rate_field(1.0, "Photos per second.")
    order: Literal["sorted", "shuffled"] = Field(
        default="sorted", title="Order", description="By name, or mixed the same way for the same seed."
    )
    seed: int = Field(default=0, ge=0, title="Seed", description="Of the shuffled order.")
    loop: bool = Field(
        default=True, title="Repeat", description="Start again after the last photo; otherwise the last one stays."
    )
    recursive: bool = Field(
        default=True, title="With subfolders", description="Also play the photos of folders inside the folder."
    )
    quality: int = quality_field()


class Player:
    """Which photo shows at a given time since the start. Files that cannot be read are passed over and named once."""

    def __init__(
        self,
        name: str,
        attributes: ImageDirAttributes,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._settings = attributes
        self._log = log
        self._clock = clock
        self._started_s = clock()
        self._folder = Path(attributes.path).expanduser()
        self._bad: set[Path] = set()
        self._photos = find_photos(self._folder, attributes.recursive)
        if attributes.order == "shuffled":
            random.Random(attributes.seed).shuffle(self._photos)
        if not self._photos:
            raise FileNotFoundError(
                f"camera {name}: no photos in {self._folder}: put {', '.join(sorted(PHOTO_SUFFIXES))} files there or correct path"
            )

    def make(self) -> Picture:
        """Raises CameraProblem when not one photo can be read."""
        while self._photos:
            path = self._photos[self._index()]
            try:
                return load_photo(path, self._settings.quality)
            except (CameraProblem, OSError) as error:
                self._log.warning("camera %s skips a photo: %s", self._name, error)
                self._photos.remove(path)
        raise CameraProblem(f"camera {self._name}: no photo in {self._folder} can be read; the log names each")

    def _index(self) -> int:
        shown = int((self._clock() - self._started_s) * self._settings.frame_rate)
        return shown % len(self._photos) if self._settings.loop else min(shown, len(self._photos) - 1)


def find_photos(folder: Path, recursive: bool) -> list[Path]:
    """Photo files by name, hidden ones left out. Raises NotADirectoryError."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder: correct path")
    found = folder.rglob("*") if recursive else folder.glob("*")
    return sorted(p for p in found if p.suffix.lower() in PHOTO_SUFFIXES and not p.name.startswith(".") and p.is_file())


async def build(context: BuildContext) -> FrameCamera:
    attributes: ImageDirAttributes = context.attributes
    player = await asyncio.to_thread(Player, context.name, attributes, context.log)  # lists a folder that may be large
    # Half a photo's time: a picture is then never older than the photo that shows.
    source = OnDemandSource(context.name, player.make, attributes.frame_rate * 2)
    return FrameCamera(context.name, source, frame_rate=attributes.frame_rate)


SPEC = ModelSpec(
    api="rdk:component:camera",
    model="gleaner:camera:image-dir",
    aliases=("gleaner:builtin:image_dir", "rdk:builtin:image_dir"),
    title="Folder of photos",
    description="Plays the photos of a folder one after the other, as if a camera saw them.",
    attributes=ImageDirAttributes,
    build=build,
    icon="camera",
    capture=CAMERA_CAPTURE,
)
