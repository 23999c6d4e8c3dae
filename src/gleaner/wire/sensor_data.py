"""Encodes Viam's `SensorData` straight to bytes, without building protobuf objects.

Why by hand: the device encodes every reading it takes. The template encoder below writes the same bytes several times
faster than `dict_to_struct` + protobuf (bench/capture_write.py measures both); tests compare it with protobuf.
Field numbers are from Viam's public `datasync.proto` and Google's `struct.proto`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, SupportsFloat

NANOS = 1_000_000_000
_SMALL = tuple(bytes((n,)) for n in range(128))
_NUMBERS = frozenset((float, int))
_FIVE_BYTES = 1 << 28
_DOUBLE = struct.Struct("<d")
# Viam's documented limit for one tabular reading.
MAX_READING_BYTES = 4 << 20
# A template is generated code: readings beyond this many numbers go the general way.
MAX_TEMPLATE_NUMBERS = 512
# A source whose shape or strings change all the time never profits: stop trying after this many templates.
MAX_TEMPLATES = 6
# Protobuf's readers refuse messages nested deeper than 100: a dictionary takes three of them (Struct, entry, Value), a list
# two. SensorData is the first, and the innermost value must still fit.
_MOST_NESTED = 97
_IN_A_STRUCT, _IN_A_LIST = 3, 2


def varint(number: int) -> bytes:
    """Protobuf's variable-length form of a non-negative integer."""
    if number < 128:
        return _SMALL[number]
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _timestamp(time_ns: int) -> bytes:
    if time_ns < 0:
        raise ValueError(f"a capture time before 1970 cannot be stored: {time_ns} ns")
    seconds, nanos = divmod(time_ns, NANOS)
    if nanos >= _FIVE_BYTES:  # three of four; written out, because each record has two of them
        return b"%b\x10%c%c%c%c%c" % (
            _seconds(seconds),
            nanos & 127 | 128,
            nanos >> 7 & 127 | 128,
            nanos >> 14 & 127 | 128,
            nanos >> 21 & 127 | 128,
            nanos >> 28,
        )
    return _seconds(seconds) + (b"\x10" + varint(nanos) if nanos else b"")


@lru_cache(maxsize=4)
def _seconds(seconds: int) -> bytes:
    return b"\x08" + varint(seconds) if seconds else b""


def encode_metadata(requested_ns: int, received_ns: int, annotations: bytes = b"") -> bytes:
    """Field 1 of SensorData: both times (nanoseconds since the epoch) and serialized `Annotations`."""
    requested, received = _timestamp(requested_ns), _timestamp(received_ns)  # at most 23 bytes each
    if not annotations:
        size = len(requested) + len(received) + 4
        return b"\x0a%c\x0a%c%b\x12%c%b" % (size, len(requested), requested, len(received), received)
    body = b"\x0a" + varint(len(requested)) + requested + b"\x12" + varint(len(received)) + received
    body += b"\x22" + varint(len(annotations)) + annotations
    return b"\x0a" + varint(len(body)) + body


def encode_binary(requested_ns: int, received_ns: int, payload: bytes, annotations: bytes = b"") -> tuple[bytes, bytes]:
    """A binary SensorData as (head, payload), apart, so that a big payload is never copied."""
    if not payload:
        raise ValueError("an empty binary capture cannot be stored")
    return encode_metadata(requested_ns, received_ns, annotations) + b"\x1a" + varint(len(payload)), payload


def split_binary(body: memoryview) -> tuple[bytes, memoryview] | None:
    """(serialized SensorMetadata, payload) of a record as `encode_binary` makes it; None: another message, let protobuf look.

    Protobuf's parser copies a payload three times until it is bytes in Python.
    """
    metadata = _field_end(body, 0, 0x0A)
    if metadata is None:
        return None
    payload = _field_end(body, metadata[1], 0x1A)
    if payload is None or payload[1] != len(body):
        return None
    return bytes(body[metadata[0] : metadata[1]]), body[payload[0] : payload[1]]


def _field_end(body: memoryview, at: int, key: int) -> tuple[int, int] | None:
    """Start and end of the length-delimited field with this key that begins at `at`."""
    if at >= len(body) or body[at] != key:
        return None
    size = shift = 0
    for index in range(at + 1, min(at + 11, len(body))):
        byte = body[index]
        size |= (byte & 127) << shift
        if byte < 128:
            end = index + 1 + size
            return (index + 1, end) if end <= len(body) else None
        shift += 7
    return None


def encode_value(value: Any, depth: int = 0) -> bytes:
    """`google.protobuf.Value`. Raises TypeError for what JSON has no word for, ValueError for what nobody could read."""
    kind = type(value)
    if kind is float or kind is int:
        return b"\x11" + _DOUBLE.pack(value)
    if kind is str:
        text: bytes = value.encode()
        return b"\x1a" + varint(len(text)) + text
    if kind is bool:
        return b"\x20\x01" if value else b"\x20\x00"
    if value is None:
        return b"\x08\x00"
    if isinstance(value, Mapping):
        body = encode_struct(value, depth)
        return b"\x2a" + varint(len(body)) + body
    if isinstance(value, (list, tuple)):
        _check_depth(depth)
        items = [encode_value(item, depth + _IN_A_LIST) for item in value]
        body = b"".join(b"\x0a" + varint(len(item)) + item for item in items)
        return b"\x32" + varint(len(body)) + body
    return _encode_unusual(value, depth)


def _check_depth(depth: int) -> None:
    if depth > _MOST_NESTED:
        raise ValueError("a reading is nested too deeply (more than 32 dictionaries, or contains itself)")


def _encode_unusual(value: Any, depth: int) -> bytes:
    """Numpy scalars and arrays, enums, subclasses of the plain types."""
    if hasattr(value, "tolist"):
        return encode_value(value.tolist(), depth)
    for plain in (bool, str):
        if isinstance(value, plain):
            return encode_value(plain(value))
    if isinstance(value, SupportsFloat):
        return encode_value(float(value))
    if isinstance(value, (bytes, bytearray)):
        return encode_value(bytes(value).decode())
    raise TypeError(
        f"a reading holds a {type(value).__name__}, expected numbers, text, booleans, None, lists or dictionaries"
    )


def _entry_head(key: Any) -> bytes:
    if not isinstance(key, str):
        raise TypeError(f"a reading has the key {key!r}, expected text")
    name = key.encode()
    return b"\x0a" + varint(len(name)) + name


def encode_struct(fields: Mapping[str, Any], depth: int = 0) -> bytes:
    """`google.protobuf.Struct`, the general way."""
    _check_depth(depth)
    out = []
    for key, item in fields.items():
        value = encode_value(item, depth + _IN_A_STRUCT)
        entry = _entry_head(key) + b"\x12" + varint(len(value)) + value
        out.append(b"\x0a" + varint(len(entry)) + entry)
    return b"".join(out)


class _NoTemplate(Exception):
    """The value has something in it that only the general way can encode."""


class _TemplateBuilder:
    """Turns one example into constant bytes, places for numbers, and the guards under which the constants hold."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = [b""]
        self.numbers: list[str] = []
        self.guards: list[str] = []

    def add_struct(self, fields: dict[str, Any], path: str) -> None:
        self.guards.append(f"{path}.__class__ is dict and tuple({path}) == {tuple(fields)!r}")
        for key, item in fields.items():
            if type(key) is not str:
                raise _NoTemplate
            head = _entry_head(key)
            size = _size_of(item)
            self.chunks[-1] += (
                b"\x0a" + varint(len(head) + 1 + len(varint(size)) + size) + head + b"\x12" + varint(size)
            )
            self.add_value(item, f"{path}[{key!r}]")

    def add_value(self, value: Any, path: str) -> None:
        kind = type(value)
        if kind in _NUMBERS:
            self.guards.append(f"{path}.__class__ in NUMBERS")
            self.chunks[-1] += b"\x11"
            self.numbers.append(path)
            self.chunks.append(b"")
        elif kind is dict:
            size = sum(_entry_size(key, item) for key, item in value.items())
            self.chunks[-1] += b"\x2a" + varint(size)
            self.add_struct(value, path)
        elif kind is list or kind is tuple:
            sizes = [_size_of(item) for item in value]
            self.guards.append(f"{path}.__class__ is {kind.__name__} and len({path}) == {len(value)}")
            self.chunks[-1] += b"\x32" + varint(sum(1 + len(varint(s)) + s for s in sizes))
            for index, (item, size) in enumerate(zip(value, sizes, strict=True)):
                self.chunks[-1] += b"\x0a" + varint(size)
                self.add_value(item, f"{path}[{index}]")
        elif kind is str:
            self.guards.append(f"{path}.__class__ is str and {path} == {value!r}")
            self.chunks[-1] += encode_value(value)
        elif kind is bool or value is None:
            self.guards.append(f"{path} is {value!r}")
            self.chunks[-1] += encode_value(value)
        else:
            raise _NoTemplate


def _entry_size(key: str, item: Any) -> int:
    size = _size_of(item)
    entry = len(_entry_head(key)) + 1 + len(varint(size)) + size
    return 1 + len(varint(entry)) + entry


def _size_of(value: Any) -> int:
    return 9 if type(value) in _NUMBERS else len(encode_value(value))


def _template(example: dict[str, Any]) -> Callable[[Any], bytes | None]:
    """A function that encodes values shaped like `example` with one `struct.pack`, and returns None for any other."""
    builder = _TemplateBuilder()
    builder.add_struct(example, "d")
    if len(builder.numbers) > MAX_TEMPLATE_NUMBERS:
        raise _NoTemplate
    layout = "<" + "d".join(f"{len(chunk)}s" for chunk in builder.chunks)
    arguments = [f"C[{i}], {path}" for i, path in enumerate(builder.numbers)] + [f"C[{len(builder.chunks) - 1}]"]
    # Generated code, as dataclasses do: keys and strings enter it through repr() only. Interpreting the shape instead
    # of compiling it costs four times as much.
    guards = " and ".join(builder.guards)
    source = f"def encode(d):\n  if {guards}:\n    return PACK({', '.join(arguments)})\n  return None\n"
    scope: dict[str, Any] = {"C": builder.chunks, "PACK": struct.Struct(layout).pack, "NUMBERS": _NUMBERS}
    exec(compile(source, "<reading template>", "exec"), scope)
    encode: Callable[[Any], bytes | None] = scope["encode"]
    return encode


class ReadingEncoder:
    """Encodes the readings of one source; remembers their shape. Not for use by several threads at once."""

    def __init__(self) -> None:
        self._encode: Callable[[Any], bytes | None] | None = None
        self._templates = 0

    def struct_bytes(self, fields: Mapping[str, Any]) -> bytes:
        """`google.protobuf.Struct` of the fields."""
        if self._encode is not None:
            try:
                body = self._encode(fields)
            except (KeyError, IndexError, TypeError):
                body = None  # another shape than the template's
            if body is not None:
                return body
        body = encode_struct(fields)
        if self._templates < MAX_TEMPLATES and type(fields) is dict:
            self._templates += 1
            try:
                self._encode = _template(fields)
            except _NoTemplate:
                self._templates = MAX_TEMPLATES
        return body

    def encode(self, requested_ns: int, received_ns: int, fields: Mapping[str, Any]) -> bytes:
        """A tabular SensorData. Raises TypeError, ValueError or OverflowError for a reading that cannot be stored."""
        body = self.struct_bytes(fields)
        message = b"%b\x12%b%b" % (encode_metadata(requested_ns, received_ns), varint(len(body)), body)
        if len(message) > MAX_READING_BYTES:
            raise ValueError(f"a reading has {len(message) >> 20} MB, at most 4 MB can be stored: make it a file")
        return message
