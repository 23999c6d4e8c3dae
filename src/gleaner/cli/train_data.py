"""A run's folder made from a data set on the disk: what `gleaner train` does in place of the app."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from gleaner.formats.registry import Format, read
from gleaner.formats.sources import Source
from gleaner.formats.values import FormatProblem, Picture, Problem
from gleaner.formats.viam import line_of
from gleaner.learn.errors import RunProblem
from gleaner.learn.request import FEWEST_PER_LABEL, Task

DATASET = "dataset.jsonl"


@dataclass
class Prepared:
    """`tags` and `boxes`: pictures with each label. `hash` covers the pictures and what is said of them."""

    pictures: int = 0
    several_tags: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    hash: str = ""

    def task(self) -> Task:
        """What the annotations are good for: boxes say more than tags."""
        if self.boxes:
            return Task.DETECTION
        return Task.MULTI_LABEL if self.several_tags else Task.SINGLE_LABEL

    def labels(self, task: Task) -> list[str]:
        """Those with enough pictures, most frequent first."""
        counts = self.boxes if task is Task.DETECTION else self.tags
        return [label for label, count in counts.most_common() if count >= FEWEST_PER_LABEL]


def prepare(source: Source, format_: Format, run_dir: Path, seen: Callable[[int], None]) -> Prepared:
    """Copies the pictures into `run_dir/images` and writes the dataset there; what cannot be read is listed.

    Raises RunProblem where nothing can be read, OSError when the disk is full.
    """
    images = run_dir / "images"
    images.mkdir(parents=True)
    done, digest = Prepared(), hashlib.sha256()
    with (run_dir / DATASET).open("w", encoding="utf-8") as lines:
        for one in _each(source, format_):
            if isinstance(one, Problem):
                done.problems.append(str(one))
            elif (problem := _add(one, done, images, lines, digest.update)) is not None:
                done.problems.append(problem)
            else:
                seen(done.pictures)
    if not done.pictures:
        why = f" The first problem: {done.problems[0]}" if done.problems else ""
        raise RunProblem(f"No picture could be read.{why}", "Name the folder that holds the pictures themselves.")
    done.hash = digest.hexdigest()
    return done


def _each(source: Source, format_: Format) -> Iterator[Picture | Problem]:
    try:
        yield from read(format_, source)
    except FormatProblem as problem:
        raise RunProblem(f"{problem}.", "Mend it, or name another folder.") from problem


def _add(picture: Picture, done: Prepared, images: Path, lines: IO[str], note: Callable[[bytes], object]) -> str | None:
    try:
        content = picture.read()
    except FormatProblem as problem:
        return str(problem)
    ending = PurePosixPath(picture.name).suffix.lower()
    name = f"{done.pictures:06d}{ending if len(ending) <= 5 else ''}"
    (images / name).write_bytes(content)
    said = line_of(f"images/{name}", picture)
    # The report names pictures as their owner does.
    said["binary_data_id"] = picture.capture.binary_data_id or picture.name
    lines.write(json.dumps(said, ensure_ascii=False) + "\n")
    note(hashlib.sha256(content).digest() + _told(said))
    done.pictures += 1
    done.several_tags += len(picture.tags) > 1
    done.tags.update(set(picture.tags))
    done.boxes.update({box.label for box in picture.boxes})
    return None


def _told(said: dict[str, Any]) -> bytes:
    return json.dumps([said["classification_annotations"], said["bounding_box_annotations"]]).encode()
