"""Parquet with the pictures inside, as Hugging Face `datasets` loads it: `data/<split>-<number>.parquet`.

The column `image` is `datasets`' Image feature (bytes and path); `gleaner` holds as JSON what the others cannot say.
A file is closed at 32 MB, which is what one split keeps in memory while it is written.
"""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Iterator
from typing import Any

from gleaner.formats.huggingface import picture_of_row, row_of
from gleaner.formats.naming import Names
from gleaner.formats.pixels import size_of
from gleaner.formats.sidecar import described
from gleaner.formats.sources import Source
from gleaner.formats.values import Entry, FormatProblem, Picture, Problem, split_of
from gleaner.formats.writing import Report

_FILE_BYTES = 32 << 20
_GROUP_ROWS, _GROUP_BYTES = 100, 8 << 20
_FEATURES = {
    "image": {"_type": "Image"},
    "width": {"dtype": "int32", "_type": "Value"},
    "height": {"dtype": "int32", "_type": "Value"},
    "tags": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "objects": {
        "bbox": {
            "feature": {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"},
            "_type": "List",
        },
        "category": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    },
    "gleaner": {"dtype": "string", "_type": "Value"},
}


def write(pictures: Iterator[Picture], report: Report) -> Iterator[Entry]:
    pa = require_library()
    schema = _schema(pa)
    names, shards, numbers = Names(), dict[str, _Shard](), dict[str, int]()
    for picture in pictures:
        size = size_of(picture)
        if isinstance(size, Problem):
            report(size)
            continue
        split = picture.split or "train"
        if split not in shards:
            shards[split] = _Shard(pa, schema)
        shard = shards[split]
        said = described(picture) | {"split": picture.split}
        image = {"bytes": picture.read(), "path": names.of(picture, split)}
        shard.add({"image": image, **row_of(picture, size), "gleaner": json.dumps(said)})
        if shard.size >= _FILE_BYTES:
            yield _finished(shards.pop(split), split, numbers)
    if not shards and not numbers:
        shards["train"] = _Shard(pa, schema)  # a data set without pictures is one too
    for split, shard in shards.items():
        yield _finished(shard, split, numbers)


def matches(source: Source) -> bool:
    return any(path.endswith(".parquet") for path in source.paths)


def read(source: Source) -> Iterator[Picture | Problem]:
    pa = require_library()
    import pyarrow.parquet as pq

    for path in source.paths:
        if not path.endswith(".parquet"):
            continue
        try:
            with source.open(path) as opened, pq.ParquetFile(opened) as file:
                if "image" not in file.schema_arrow.names:
                    why = f"it has no column `image`, only {', '.join(file.schema_arrow.names)[:200]}"
                    yield Problem(path, why, "Name the column with the pictures `image`.")
                    continue
                number = 0
                for batch in file.iter_batches(batch_size=16):
                    for index in range(batch.num_rows):
                        number += 1
                        try:
                            [row] = batch.slice(index, 1).to_pylist()
                        except UnicodeDecodeError as err:
                            why = f"row {number} has a text that is no UTF-8: {err}"
                            yield Problem(path, why, "Export it again; the other rows were read.")
                            continue
                        yield from _read_row(path, number, row)
        except (pa.ArrowException, OSError) as err:
            yield Problem(path, f"it is no readable Parquet file: {err}", "Copy or export it again.")


class _Shard:
    def __init__(self, pa: Any, schema: Any) -> None:
        import pyarrow.parquet as pq

        self._pa = pa
        self._schema = schema
        self._file = io.BytesIO()
        # Pictures are compressed already.
        self._writer = pq.ParquetWriter(self._file, schema, compression="none")
        self._rows: list[dict[str, Any]] = []
        self._pending = 0
        self.size = 0

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._pending += len(row["image"]["bytes"])
        self.size += len(row["image"]["bytes"]) + len(row["gleaner"])
        if len(self._rows) >= _GROUP_ROWS or self._pending >= _GROUP_BYTES:
            self._flush()

    def finish(self) -> bytes:
        self._flush()
        self._writer.close()
        return self._file.getvalue()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._pending = [], 0


def _finished(shard: _Shard, split: str, numbers: dict[str, int]) -> Entry:
    number = numbers[split] = numbers.get(split, -1) + 1
    return Entry.of_bytes(f"data/{split}-{number:05}.parquet", shard.finish())


def _schema(pa: Any) -> Any:
    boxes = pa.struct([("bbox", pa.list_(pa.list_(pa.float64()))), ("category", pa.list_(pa.string()))])
    columns = [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("tags", pa.list_(pa.string())),
        ("objects", boxes),
        ("gleaner", pa.string()),
    ]
    return pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})})


def _read_row(file: str, number: int, row: dict[str, Any]) -> Iterator[Picture | Problem]:
    image = row.get("image")
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes) or not content:
        yield Problem(file, f"row {number} holds no picture's bytes", "Embed the pictures when you export it.")
        return
    path = str(image.get("path") or "") if isinstance(image, dict) else ""
    try:
        said = json.loads(row.get("gleaner") or "{}")
        by_file = split_of(posixpath.basename(file).partition("-")[0])
        split = split_of(str(said["split"])) if "split" in said else by_file
        yield from picture_of_row(row, path or f"{number}", len(content), lambda: content, said, split)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as err:
        yield Problem(file, f"row {number}: {err}", "Correct that row, or leave it: the others are read.")


def require_library() -> Any:
    """pyarrow. Raises FormatProblem where it is missing."""
    try:
        import pyarrow
    except ImportError as err:
        raise FormatProblem("Parquet needs pyarrow: pip install 'gleaner[export]'") from err
    return pyarrow
