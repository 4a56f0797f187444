"""Serialized form and size of values sent between operators."""

from __future__ import annotations

import pickle
from typing import Any

PROTOCOL = 5
"""Pickle protocol of transferred and measured values."""

Payload = bytes | bytearray | memoryview
"""Pickled value."""


def pickle_value(value: Any) -> bytes:
    """Return the serialized `value`. Unpicklable values raise the exception of pickle."""
    return pickle.dumps(value, protocol=PROTOCOL)


def unpickle_value(data: Payload) -> Any:
    """Return the value serialized as `data`."""
    return pickle.loads(data)


def pickled_bytes(value: Any) -> int:
    """Return the serialized size of `value` in bytes."""
    return len(pickle_value(value))
