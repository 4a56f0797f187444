"""How large a value is when it is sent from one operator to the next."""

from __future__ import annotations

import pickle
from typing import Any

PROTOCOL = 5
"""Pickle protocol in which values travel and are measured."""


def pickle_value(value: Any) -> bytes:
    """`value` as it is sent. Raises whatever pickle raises for what cannot be pickled."""
    return pickle.dumps(value, protocol=PROTOCOL)


def unpickle_value(data: bytes | bytearray | memoryview) -> Any:
    """The value that was sent as `data`."""
    return pickle.loads(data)


def pickled_bytes(value: Any) -> int:
    """Number of bytes that `value` takes on a link."""
    return len(pickle_value(value))
