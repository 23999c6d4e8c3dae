"""Items of an app into a folder, in any of the formats, as far as they are not there yet."""

from __future__ import annotations

import array
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gleaner.cli.app_access import App, tried
from gleaner.formats.registry import CODECS, Format
from gleaner.formats.values import Box, Capture, Picture, split_off

_PAGE = 500
_LISTS = (".json", ".jsonl", ".yaml", ".txt", ".xml", ".parquet")


def to_folder(app: App, query: str, format_: Format, out: Path, say: Callable[[str], None]) -> tuple[int, int]:
    """(files written, files that were there with the same size). Each is whole or not there."""
    written = there = 0
    for entry in CODECS[format_].write(_pictures(app, query), lambda problem: say(str(problem))):
        target = out / entry.path
        # Lists are small and may have changed without changing in size.
        is_picture = entry.path.startswith(("images/", "JPEGImages/")) or not entry.path.endswith(_LISTS)
        if is_picture and target.is_file() and target.stat().st_size == entry.size:
            there += 1
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.part")
        with temporary.open("wb") as file:
            for chunk in entry.open():
                file.write(chunk)
        temporary.replace(target)
        written += 1
    return written, there


def _pictures(app: App, query: str) -> Iterator[Picture]:
    rows = array.array("I", tried(lambda: app.client.get_bytes(f"/items/index?kind=image&{query}")))
    if sys.byteorder == "big":
        rows.byteswap()
    for start in range(0, len(rows), _PAGE):
        body = {"rows": rows[start : start + _PAGE].tolist()}
        found = tried(lambda body=body: app.client.post("/items/lookup", body))  # type: ignore[misc]
        yield from (_picture(app, one) for one in found["items"])


def _picture(app: App, item: dict[str, Any]) -> Picture:
    tags, split = split_off(item["tags"])
    boxes = tuple(
        Box(b["label"], b["x_min"], b["y_min"], b["x_max"], b["y_max"], b["confidence"]) for b in item["boxes"]
    )
    is_turned = item["mime_type"] == "image/jpeg"  # by EXIF, perhaps: measured when a format needs it
    width, height = (0, 0) if is_turned else (item["width"], item["height"])
    name = item["file_name"] or f"{item['id'].rpartition('/')[2]}{item['file_ext']}"
    capture = Capture(
        item["captured_at"],
        item["id"],
        item["organization_id"],
        item["location"]["id"],
        item["machine"]["id"],
        item["part"]["id"],
        item["component_name"],
    )
    read = partial(_content, app, item["row"])
    return Picture(name, item["size_bytes"], read, width, height, tags, boxes, split, capture)


def _content(app: App, row: int) -> bytes:
    return tried(lambda: app.client.get_bytes(f"/items/{row}/content"))
