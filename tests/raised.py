"""Expectations on errors by their code, whatever their message says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from circinus.errors import CircinusError


@contextmanager
def raises_code(error: type[CircinusError], code: str) -> Iterator[pytest.ExceptionInfo[CircinusError]]:
    """Expect `error` with exactly this `code`."""
    with pytest.raises(error) as caught:
        yield caught
    assert caught.value.code == code, f"{caught.value.code}: {caught.value}"
