"""The formats by name, and which of them a folder is in."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from gleaner.formats import coco, folders, huggingface, parquet, viam, voc, yolo
from gleaner.formats.sources import Source
from gleaner.formats.values import Entry, FormatProblem, Picture, Problem
from gleaner.formats.writing import Report


class Format(StrEnum):
    """In the order in which they are tried on import: the first that fits is taken."""

    VIAM = "viam"
    HUGGINGFACE = "huggingface"
    PARQUET = "parquet"
    YOLO = "yolo"
    COCO = "coco"
    VOC = "voc"
    FOLDERS = "folders"


@dataclass(frozen=True)
class Codec:
    write: Callable[[Iterator[Picture], Report], Iterator[Entry]]
    read: Callable[[Source], Iterator[Picture | Problem]]
    matches: Callable[[Source], bool]


CODECS = {
    Format.VIAM: Codec(viam.write, viam.read, viam.matches),
    Format.HUGGINGFACE: Codec(huggingface.write, huggingface.read, huggingface.matches),
    Format.PARQUET: Codec(parquet.write, parquet.read, parquet.matches),
    Format.YOLO: Codec(yolo.write, yolo.read, yolo.matches),
    Format.COCO: Codec(coco.write, coco.read, coco.matches),
    Format.VOC: Codec(voc.write, voc.read, voc.matches),
    Format.FOLDERS: Codec(folders.write, folders.read, folders.matches),
}


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as err:
        raise FormatProblem(f"A file of the data set is damaged: {err}. Copy or pack it again") from err
    except (RuntimeError, NotImplementedError) as err:  # zipfile's words for a password, and for a packing it lacks
        raise FormatProblem(f"The zip cannot be unpacked: {err}. Pack it again without a password") from err


def read(format_: Format, source: Source) -> Iterator[Picture | Problem]:
    """What the source holds. Raises FormatProblem where a file of it cannot be read at all."""
    with _readable():
        found = CODECS[format_].read(source)
    while True:
        # Not around the `yield`: what happens to a picture elsewhere is not the source's damage.
        with _readable():
            one = next(found, None)
        if one is None:
            return
        yield one


def detect(source: Source) -> Format:
    """Raises FormatProblem for what is none of them."""
    with _readable():
        for format_, codec in CODECS.items():
            if codec.matches(source):
                return format_
    raise FormatProblem(
        "There are no pictures and no annotations in any known format here. "
        f"Known are: {', '.join(Format)}; name the folder that holds the data set itself"
    )
