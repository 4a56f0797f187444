"""Serialized form and size of values sent between operators."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any

PROTOCOL = 5
"""Pickle protocol of transferred and measured values."""

Payload = bytes | bytearray | memoryview
"""Pickled value, or a list of such (`pack_list`)."""

_LIST = b"\0"
"""First byte of a packed list; that of pickles is another."""
_COUNT = struct.Struct("<I")


def pickle_value(value: Any) -> bytes:
    """Return the serialized `value`. Unpicklable values raise the exception of pickle."""
    return pickle.dumps(value, protocol=PROTOCOL)


def unpickle_value(data: Payload) -> Any:
    """Return the value serialized as `data`."""
    return [unpickle_value(value) for value in unpack_list(data)] if is_list(data) else pickle.loads(data)


def is_list(data: Payload) -> bool:
    """Return whether a payload is a packed list."""
    return data[:1] == _LIST


def unpack_list(data: Payload) -> list[memoryview]:
    """Return the values of a packed list, which stay serialized.

    Raises:
        ValueError: it is another value.
    """
    if not is_list(data):
        raise ValueError("found another value, expected a packed list")
    view = memoryview(data)
    (count,) = _COUNT.unpack_from(view, len(_LIST))
    position = len(_LIST) + _COUNT.size
    lengths = struct.unpack_from(f"<{count}Q", view, position)
    position += 8 * count
    values = []
    for length in lengths:
        values.append(view[position : position + length])
        position += length
    return values


def pack_list(values: Sequence[Payload]) -> bytes:
    """Return the payload of a list of values that stay serialized, so that their types need not be imported.

    Example:
        >>> unpickle_value(pack_list([pickle_value(1), pack_list([])]))
        [1, []]
    """
    lengths = [len(value) for value in values]
    return b"".join((_LIST, _COUNT.pack(len(lengths)), struct.pack(f"<{len(lengths)}Q", *lengths), *values))


def pickled_bytes(value: Any) -> int:
    """Return the serialized size of `value` in bytes."""
    return len(pickle_value(value))
