"""Protobuf's `Struct` as plain Python values."""

from __future__ import annotations

from typing import Any

from google.protobuf.struct_pb2 import Struct, Value


def struct_to_dict(struct: Struct) -> dict[str, Any]:
    return {key: plain(value) for key, value in struct.fields.items()}


def plain(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return struct_to_dict(value.struct_value)
    if kind == "list_value":
        return [plain(one) for one in value.list_value.values]
    if kind is None or kind == "null_value":
        return None
    return getattr(value, kind)
